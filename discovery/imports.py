"""Losses from files: our own, a person's, and DiscoPOP's. Read as text; nothing is run.

A file is one of: a loss in candidate form; a file that one of our exporters wrote (the marked part of it is taken); a
function of DiscoPOP's form, which is a method with `self.beta`; a JSON list of `{name, code}` in that form (DiscoPOP's
`tests.json`); a JSON document of our own exporter, which keeps the loss's identity.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery.exporters.record import SCHEMA
from discovery.exporters.rendering import BEGIN, END
from discovery.nearby import meant
from evaluators.options import OptionsError
from sandbox.candidate import MAX_SOURCE_BYTES, Candidate, normalise_source
from sandbox.contract import Contract
from sandbox.gate_text import text_violations
from sandbox.mend import read_candidate
from sandbox.syntax import parse
from sandbox.text import one_line

MAX_LOSSES = 1000
_MAX_FILE_BYTES = 50 * MAX_SOURCE_BYTES
_ENDINGS = (".py", ".json")
_USUAL_IMPORTS = {"torch": "import torch", "math": "import math", "F": "import torch.nn.functional as F"}


@dataclass(frozen=True)
class Given:
    """One loss of a file. `where` says which; `problem` why there is no candidate. All text of it is hostile."""

    where: str
    name: str
    thought: str = ""
    candidate: Candidate | None = None
    problem: str = ""


def read_losses(path: Path, contract: Contract) -> list[Given]:
    """All losses of a file, or of the .py and .json files of a folder, in order.

    Raises:
        OptionsError: there is no such file, it is no text, or it holds nothing of a known form.
    """
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix in _ENDINGS and f.name != "__init__.py" and f.is_file())
        if not files:
            raise OptionsError(f"there is no .py or .json file in {str(path)!r}")
    elif path.is_file():
        files = [path]
    else:
        raise OptionsError(f"there is no file or folder {str(path)!r}{meant(path)}")
    found: list[Given] = []
    for file in files:
        try:
            found += _from_file(file, contract)
        except OptionsError as error:
            if not path.is_dir():
                raise
            found.append(Given(str(file), file.stem, problem=str(error)))
    if len(found) > MAX_LOSSES:
        raise OptionsError(f"{str(path)!r} holds {len(found)} losses; at most {MAX_LOSSES} are taken at once")
    return found


def _from_file(path: Path, contract: Contract) -> Sequence[Given]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise OptionsError(f"{str(path)!r} is too large: at most {_MAX_FILE_BYTES:,} bytes are read")
    try:
        text = path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise OptionsError(f"{str(path)!r} is not a UTF-8 text file") from None
    if path.suffix == ".json":
        return list(_from_json(path, text, contract))
    return [_given(str(path), path.stem, text, contract)]


def _from_json(path: Path, text: str, contract: Contract) -> Iterable[Given]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"{str(path)!r} is not JSON: {one_line(str(error), 120)}") from None
    if isinstance(content, dict) and content.get("schema") == SCHEMA:
        yield _from_record(path, content)
        return
    if not isinstance(content, list):
        raise OptionsError(
            f"{str(path)!r} is neither a list of {{name, code}} nor written by `discovery export --format json`"
        )
    for number, item in enumerate(content):
        where = f"{path}[{number}]"
        if not (isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("code"), str)):
            yield Given(where, f"item {number}", problem="it is not an object with the texts name and code")
            continue
        thought = item.get("thought")
        yield _given(where, item["name"], item["code"], contract, thought if isinstance(thought, str) else "")


def _from_record(path: Path, content: dict[str, Any]) -> Given:
    contract, source = content.get("contract"), content.get("source")
    interface = contract.get("name") if isinstance(contract, dict) else None
    if not (isinstance(interface, str) and isinstance(source, str)):
        raise OptionsError(f"{str(path)!r} lacks the loss's contract or source")
    name, thought = content.get("name"), content.get("thought")
    return Given(
        str(path),
        name if isinstance(name, str) else path.stem,
        thought if isinstance(thought, str) else "",
        Candidate(interface, source),
    )


def _given(where: str, name: str, text: str, contract: Contract, thought: str = "") -> Given:
    """A loss written in Python. What does not parse is left for the gate, which names the line."""
    code = normalise_source(marked_part(text.removeprefix("\ufeff")))
    tree = None
    if not text_violations(code):
        try:
            tree = parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            tree = None
    if tree is not None:
        thought = thought or (ast.get_docstring(tree) or "").partition("\n")[0]
        method = _method(tree, contract)
        if method is not None:
            return _from_method(where, name, thought, tree, method, contract)
    return Given(where, name, thought, read_candidate(code, contract))


def marked_part(text: str) -> str:
    """What stands between the marks of our exporters; all of a text without them."""
    start = text.find(BEGIN)
    end = text.rfind(END)
    return text[start + len(BEGIN) : end] if 0 <= start < end else text


def _method(tree: ast.Module, contract: Contract) -> ast.FunctionDef | None:
    """The one function that takes `self`, in a text that has none of the contract's name without it."""
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    methods = [f for f in functions if f.args.args and f.args.args[0].arg == "self"]
    plain = [f for f in functions if f.name == contract.function and f not in methods]
    return methods[0] if len(methods) == 1 and not plain else None


def _from_method(
    where: str, name: str, thought: str, tree: ast.Module, method: ast.FunctionDef, contract: Contract
) -> Given:
    """DiscoPOP's form in ours: a function of the contract's name, with beta as an argument."""
    settings = {s.name for s in contract.scalars}
    used: set[str] = set()
    unknown: set[str] = set()
    for node in ast.walk(method):
        for key, value in ast.iter_fields(node):
            items = value if isinstance(value, list) else [value]
            for position, item in enumerate(items):
                if _is_own(item):
                    attribute = item.attr
                    (used if attribute in settings else unknown).add(attribute)
                    replacement = ast.copy_location(ast.Name(attribute, ast.Load()), item)
                    if isinstance(value, list):
                        value[position] = replacement
                    else:
                        setattr(node, key, replacement)
    if unknown:
        known = ", ".join(f"self.{s}" for s in sorted(settings))
        attributes = ", ".join(f"self.{one_line(a, 40)}" for a in sorted(unknown))
        return Given(where, name, thought, problem=f"it uses {attributes}; a loss is given {known}")
    method.name, method.returns = contract.function, None
    del method.args.args[0]
    for argument in method.args.args:
        argument.annotation = None
    taken = {a.arg for a in method.args.args}
    required = [s.name for s in contract.scalars if not s.optional]
    method.args.args += [ast.arg(s) for s in [*required, *sorted(used - set(required))] if s not in taken]
    method.args.defaults = []
    source = "\n".join([*_missing_imports(tree), ast.unparse(ast.fix_missing_locations(tree))])
    return Given(where, name, thought, read_candidate(source, contract))


def _is_own(node: Any) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _missing_imports(tree: ast.Module) -> Iterable[str]:
    """DiscoPOP's code is run where torch, F and math are there already."""
    bound = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names}
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    return [text for name, text in _USUAL_IMPORTS.items() if name in read and name not in bound]
