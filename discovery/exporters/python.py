"""A loss as a Python module that needs nothing but torch, with its provenance in the docstring.

The candidate's code is carried over as it is; only its own module docstring moves into ours, because a module has one.
Nothing is executed here. The result is parsed and compared with the archived source, statement by statement, before it is
returned, so neither a name nor a thought can change what the module does.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from db.records import Entry, TrialRecord
from discovery.exporters.base import ExportContext, ExportError
from sandbox.contract import Contract
from sandbox.text import clean_text, one_line

WIDTH = 110
MAX_LINEAGE = 20

_STANDARD = frozenset(["math", "typing", "collections", "__future__"])


class PythonExporter:
    """Writes `loss(...)` and its helpers; `import` the file and call it."""

    name: ClassVar[str] = "python"
    summary: ClassVar[str] = "a self-contained Python module that needs only torch"
    suffix: ClassVar[str] = ".py"

    def export(self, entry: Entry, trials: Sequence[TrialRecord], context: ExportContext) -> str:
        """The module's text. Raises ExportError if the source does not parse, imports something else, or fails to verify."""
        source = entry.candidate.source
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ExportError(f"{entry.candidate.short_id} is not valid Python ({one_line(str(error), 80)})") from None
        _check_imports(tree, entry.candidate.short_id)
        own_doc, code = _split_docstring(source, tree)
        body = "\n".join(_provenance(entry, trials, context, _parameters(tree, context.contract)))
        if own_doc:
            body += f"\n\nThe source's own documentation:\n\n{textwrap.indent(_plain(own_doc), '    ')}"
        docstring = _escape(body.rstrip() + "\n")
        thought = "".join(f"{line}\n" for line in _comment(entry.thought))
        text = f'"""{docstring}"""\n\n{thought}{code.strip(chr(10))}\n'
        _verify(text, tree, own_doc is not None, entry.candidate.short_id)
        return text


def _parameters(tree: ast.Module, contract: Contract) -> tuple[str, ...]:
    """The contract's inputs that the candidate's function takes, in contract order."""
    taken = {
        argument.arg
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == contract.function
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    }
    return tuple(i.name for i in contract.inputs if i.name in taken)


def _provenance(
    entry: Entry, trials: Sequence[TrialRecord], context: ExportContext, parameters: tuple[str, ...]
) -> Iterable[str]:
    candidate, contract = entry.candidate, context.contract
    yield f"Training objective {one_line(entry.name, 80) or 'unnamed'}, exported from an archive of objective-discovery."
    yield ""
    yield from _fields(
        {
            "candidate": candidate.id,
            "interface": contract.name,
            "campaign": entry.campaign,
            "origin": f"{entry.origin}, by {entry.proposer}",
            "model": context.model or "no language model",
            "proposed": _when(entry.created_at),
            "exported": _when(context.exported_at),
            "version": context.version,
            "command": context.command,
        }
    )
    yield ""
    yield "Built on:"
    for ancestor in context.lineage[:MAX_LINEAGE]:
        yield f"    {ancestor.candidate_id[:10]}  {one_line(ancestor.name, 80)} ({one_line(ancestor.origin, 20)})"
    if len(context.lineage) > MAX_LINEAGE:
        yield f"    and {len(context.lineage) - MAX_LINEAGE} more"
    if not context.lineage:
        yield "    no earlier loss"
    yield ""
    yield from _scores(entry, trials)
    yield ""
    yield "Use, with one value per example in every tensor:"
    yield ""
    passed = ", ".join(f"{name}=..." for name in parameters)
    yield from textwrap.wrap(
        f"{contract.function}({passed}).mean().backward()",
        WIDTH,
        initial_indent="    ",
        subsequent_indent=" " * (5 + len(contract.function)),
    )
    yield ""
    for item in (i for i in contract.inputs if i.name in parameters):
        wrapped = textwrap.wrap(f"{item.name}: {item.description}", WIDTH - 8)
        yield from textwrap.indent("\n".join(wrapped), "    ").split("\n")


def _scores(entry: Entry, trials: Sequence[TrialRecord]) -> Iterable[str]:
    if entry.score is None:
        reason = f": {one_line(str(entry.failure), 160)}" if entry.failure else ""
        yield f"Not ranked{reason}."
    else:
        direction = "higher" if entry.score.higher_is_better else "lower"
        seeds = len(entry.score.by_seed)
        yield f"{one_line(entry.score.metric, 60)} ({direction} is better): {entry.score.mean:.6g}, mean of {seeds} seeds"
        for seed, value in sorted(entry.score.by_seed.items()):
            yield f"    seed {seed}: {value:.6g}"
    done = [t for t in trials if t.status == "done"]
    for trial in done:
        yield f"Trial of {one_line(trial.evaluator, 60)}, seed {trial.seed}, task {trial.task_id[:10]}:"
        for metric in trial.metrics:
            error = f" +- {metric.stderr:.2g}" if metric.stderr is not None else ""
            yield f"    {one_line(metric.name, 60)}: {metric.value:.6g}{error} {one_line(metric.unit, 40)}".rstrip()


def _fields(values: dict[str, str]) -> Iterable[str]:
    for label, value in values.items():
        yield f"    {label + ':':<11}{one_line(value, 300)}"


def _when(moment: datetime | None) -> str:
    return "unknown" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def _plain(text: str) -> str:
    """Clean lines; separators that some editors take for line ends are real ones here."""
    return "\n".join(clean_text(text, 8000).splitlines())


def _comment(thought: str) -> Iterable[str]:
    lines = [wrapped for line in _plain(thought).split("\n") for wrapped in textwrap.wrap(line, WIDTH)]
    if lines:
        yield "# The idea, in its proposer's words:"
        yield from (f"# {line}" for line in lines)
        yield ""


def _escape(body: str) -> str:
    r"""Text for a triple-quoted literal. It ends in a line break, so no quote can touch the closing ones."""
    return body.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _check_imports(tree: ast.Module, short_id: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            roots = [(node.module or "").split(".")[0]] if node.level == 0 else ["."]
        else:
            continue
        for root in roots:
            if root != "torch" and root not in _STANDARD:
                raise ExportError(
                    f"{short_id} imports {one_line(root, 40)!r}; only accepted candidates can be exported"
                )


def _split_docstring(source: str, tree: ast.Module) -> tuple[str | None, str]:
    """The module docstring, and the source without it."""
    doc = ast.get_docstring(tree)
    if doc is None:
        return None, source
    node = tree.body[0]
    lines = source.split("\n")
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    before = "\n".join([*lines[: node.lineno - 1], _columns(lines[node.lineno - 1], 0, node.col_offset)])
    after = "\n".join([_columns(lines[node.end_lineno - 1], node.end_col_offset, None), *lines[node.end_lineno :]])
    return doc, before + after.lstrip(" \t;")


def _columns(line: str, start: int, end: int | None) -> str:
    """Part of a line by the UTF-8 byte offsets that `ast` counts in."""
    return line.encode()[start:end].decode()


def _verify(text: str, archived: ast.Module, had_docstring: bool, short_id: str) -> None:
    try:
        exported = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExportError(f"the module made from {short_id} does not parse ({one_line(str(error), 80)})") from None
    ours = [ast.dump(node) for node in exported.body[1:]]
    theirs = [ast.dump(node) for node in archived.body[1 if had_docstring else 0 :]]
    if ast.get_docstring(exported) is None or ours != theirs:
        raise ExportError(f"the module made from {short_id} differs from the archived code; nothing was exported")
