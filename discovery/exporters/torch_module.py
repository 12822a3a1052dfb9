"""A loss as an `nn.Module` whose constants are attributes, any of which gradient reaches can be learned.

The candidate's numbers become keyword arguments of its function, with the archived numbers as defaults, and attributes of
the module. With the defaults nothing changes in the last bit, and with every learnable constant as a parameter nothing but
rounding: both are run and compared before the file is written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import ClassVar

from discovery.dossier import Dossier
from discovery.exporters.base import CALL, Export, ExportContext, Exporter, Runnable
from discovery.exporters.constants import Constant, lift
from discovery.exporters.header import docstring, name_of, thought_comment
from discovery.exporters.rendering import BEGIN, END, render_around
from discovery.exporters.sources import (
    entry_of,
    parse_accepted,
    require_free,
    split_docstring,
    split_future,
    typed,
)
from discovery.exporters.tensors import learnable
from sandbox.arguments import with_defaults
from sandbox.contract import Contract, ScalarInput, TensorInput
from sandbox.syntax import parse

_OURS = frozenset(["Sequence", "torch", "Tensor", "nn", "Loss"])
_ADAPTER = """
def {call}({scalars}**inputs):
    return Loss({passed})(**inputs)
"""
_LEARNING = """
def {call}({scalars}**inputs):
    module = Loss({passed}learnable=Loss.LEARNABLE)
    for name, value in dict({values}).items():  # the same in double precision
        setattr(module, name, nn.Parameter(torch.tensor(float(value), dtype=torch.float64)))
    losses = module(**inputs)
    torch.autograd.grad(losses.mean(), list(module.parameters()), retain_graph=True)
    return losses
"""
_ROUNDING = 1e-9


class TorchExporter(Exporter):
    """Writes `Loss`, an `nn.Module`, around the candidate's function."""

    name: ClassVar[str] = "torch"
    summary: ClassVar[str] = "an nn.Module with beta and the loss's constants as attributes, optionally learnable"
    suffix: ClassVar[str] = ".py"

    def export(self, dossier: Dossier, context: ExportContext) -> Export:
        """The module. Raises ExportError if the source cannot stand in one."""
        candidate, contract = dossier.entry.candidate, dossier.contract
        tree = parse_accepted(candidate.source, candidate.short_id)
        entry_of(tree, contract, candidate.short_id)
        require_free(tree, _OURS, candidate.short_id)
        own_doc, code = split_docstring(candidate.source, tree)
        future, code = split_future(code)
        lifted, constants = lift(parse(code), contract, _reserved())
        settings = [s for s in contract.scalars_of(dossier.parameters) if not s.optional]
        can_learn = [s.name for s in settings if learnable(lifted, contract, s.name)]
        can_learn += [c.name for c in constants if c.learnable]
        passed = [i.name for i in contract.inputs if i.name in dossier.parameters and i not in settings]
        text = render_around(
            "torch.py.j2",
            _spaced(typed(ast.unparse(lifted), contract)),
            candidate.short_id,
            docstring=docstring(
                f"PyTorch module for the loss {name_of(dossier)}, exported by objective-discovery.",
                dossier,
                context,
                _use(passed, constants, can_learn),
                own_doc,
            ).rstrip("\n"),
            future=future,
            thought=thought_comment(dossier),
            function=contract.function,
            scalars=settings,
            constants=constants,
            attributes=[*(s.name for s in settings), *(c.name for c in constants)],
            inputs=list(_forward(lifted, contract, passed)),
            passed=passed,
            learnable=can_learn,
            begin=BEGIN,
            end=END,
        )
        return Export(text)

    def runnables(self, export: Export, dossier: Dossier) -> Sequence[Runnable]:
        """The module as it is, and with everything learnable as a parameter."""
        settings = [s.name for s in dossier.contract.scalars_of(dossier.parameters) if not s.optional]
        scalars, passed = "".join(f"{n}, " for n in settings), "".join(f"{n}={n}, " for n in settings)
        values = {"call": CALL, "scalars": scalars, "passed": passed}
        found = [Runnable("the module", export.text, _ADAPTER.format(**values))]
        learned = _learnable(export.text) | {n: n for n in settings if n in _learnable(export.text)}
        if learned:
            what, given = "the module with learnable constants", ", ".join(f"{n}={v}" for n, v in learned.items())
            found.append(Runnable(what, export.text, _LEARNING.format(**values, values=given), _ROUNDING))
        return found


def _reserved() -> set[str]:
    """Names that an attribute of a module must not have."""
    import torch

    return {*dir(torch.nn.Module()), *_OURS, "learnable", "self", "wrong", "math", "F"}


def _learnable(text: str) -> dict[str, str]:
    """Names that the exported module can learn, with the source of their defaults."""
    module = next(n for n in parse(text).body if isinstance(n, ast.ClassDef) and n.name == "Loss")
    names: tuple[str, ...] = ast.literal_eval(
        next(n.value for n in module.body if isinstance(n, ast.AnnAssign) and n.value)
    )
    made = next(n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return {a.arg: ast.unparse(d) for a, d in with_defaults(made.args) if d is not None and a.arg in names}


def _forward(tree: ast.Module, contract: Contract, passed: Sequence[str]) -> Iterable[str]:
    """Parameters of `forward`, with the defaults that the candidate gives to optional inputs."""
    entry = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == contract.function)
    defaults = {a.arg: d for a, d in with_defaults(entry.args) if d is not None}
    kinds: dict[str, TensorInput | ScalarInput] = {i.name: i for i in contract.inputs}
    for name in sorted(passed, key=lambda n: n in defaults):
        kind = "Tensor" if isinstance(kinds[name], TensorInput) else "float"
        yield f"{name}: {kind}" + (f" = {ast.unparse(defaults[name])}" if name in defaults else "")


def _spaced(code: str) -> str:
    """Two blank lines around functions, as people expect; `ast.unparse` leaves one."""
    lines: list[str] = []
    for line in code.strip("\n").split("\n"):
        after_body = lines and lines[-1] == "" and line and not line.startswith((" ", "#", ")"))
        if (line.startswith("def ") or after_body) and lines:
            while lines and lines[-1] == "":
                lines.pop()
            lines += ["", ""] if lines else []
        lines.append(line)
    return "\n".join(lines)


def _use(passed: Sequence[str], constants: Sequence[Constant], can_learn: Sequence[str]) -> Iterable[str]:
    example = next((c.name for c in constants if c.learnable), None)
    yield "Use, with one value per example in every tensor:"
    yield ""
    yield f"    criterion = Loss(beta=0.1{f', learnable=({example!r},)' if example else ''})"
    yield f"    criterion({', '.join(passed[:2])}, ...).mean().backward()"
    yield ""
    yield f"Constants: {', '.join(f'{c.name} = {c.value}' for c in constants) or 'none besides the settings'}."
    yield f"Learnable: {', '.join(can_learn) or 'none'}."
