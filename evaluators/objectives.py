"""Known objectives: published losses kept as candidate source text."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.options import OptionsError, nearest
from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract
from sandbox.syntax import parse

if TYPE_CHECKING:
    from evaluators.base import Calls
    from sandbox.known import KnownLosses, Tables
    from sandbox.server import OracleServer

_HERE = Path(__file__).parent
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@dataclass(frozen=True)
class Objective:
    """A published loss. Everything but its name is read from its source.

    Attributes:
        contract: name of the contract it is written for.
        family: F1 (pairs, log-probs alone), F2 (pairs with optional inputs) or F3 (single labelled responses).
        summary: first line of its docstring.
        equation: the indented block of its docstring, lines joined by "; ".
        paper: where it was published: authors, year, title, arXiv id; from the line ``Paper:`` or ``Papers:``.
        year: of that paper, of the first if there are several.
        inputs: the contract inputs that it reads, in contract order.
        privileged: those of them that tell more than labels do.
        unsure: whether its docstring says UNSURE: the published form is not known for certain.
    """

    name: str
    contract: str
    family: str
    summary: str
    equation: str
    paper: str
    year: int
    inputs: tuple[str, ...]
    privileged: tuple[str, ...]
    unsure: bool
    path: Path
    candidate: Candidate


@dataclass(frozen=True)
class Library:
    """Where the known objectives of a contract are, and which of them a campaign measures if it is not told."""

    contract: Contract
    folder: Path
    families: tuple[str, str]  # of losses that read no optional input, and of those that do
    baselines: tuple[str, ...]


_LIBRARIES = {
    library.contract.name: library
    for library in (
        Library(PAIRS, _HERE / "preference/objectives", ("F1", "F2"), ("dpo", "hinge", "ipo", "kto_pair", "lrml")),
        Library(UNPAIRED, _HERE / "preference/unpaired/objectives", ("F3", "F3"), ("apo_zero_unpaired", "bco", "kto")),
    )
}


def known_families() -> list[str]:
    """Names of the contracts that have known objectives."""
    return sorted(_LIBRARIES)


def known_folder(contract: str) -> Path:
    """Where the objectives of a contract are. Raises KeyError for one that has none."""
    return _LIBRARIES[contract].folder


def known_contract(name: str) -> Contract:
    """A contract that has known objectives, by name. Raises KeyError for another."""
    return _LIBRARIES[name].contract


def privileged_inputs(contract: str, parameters: Collection[str]) -> tuple[str, ...]:
    """Which of these inputs of a contract tell more than labels do; none of a contract without known objectives."""
    library = _LIBRARIES.get(contract)
    return library.contract.privileged_of(parameters) if library is not None else ()


def default_baselines(contract: str) -> tuple[str, ...]:
    """The known objectives that a campaign measures unless its configuration lists others; none for a foreign contract."""
    return _LIBRARIES[contract].baselines if contract in _LIBRARIES else ()


@cache
def known_objectives(contract: str) -> dict[str, Objective]:
    """All known objectives of a contract by name; empty for a contract that has none."""
    library = _LIBRARIES.get(contract)
    paths = sorted(library.folder.glob("*.py")) if library else []
    return {p.stem: _read(p, library) for p in paths if library and p.stem != "__init__"}


def known_objective(contract: str, name: str) -> Objective:
    """The objective of that name. Raises OptionsError (with the nearest name) if there is none."""
    known = known_objectives(contract)
    if name not in known:
        raise OptionsError(f"no known objective {name!r} for {contract}; {nearest(name, list(known))}")
    return known[name]


def machine_conditions(calls: Calls | None = None, cache_dir: Path | None = None) -> Conditions:
    """Conditions to take fingerprints under on this machine, for a training that calls losses like that.

    The secret in them is drawn once and kept in `cache_dir`, by default `default_cache_dir()`, which no candidate can read:
    so what known losses do need not be measured again for each campaign. Without a writable folder each process has its own.
    """
    from evaluators.base import default_cache_dir

    seed = _machine_seed(cache_dir or default_cache_dir())
    return Conditions(seed) if calls is None else Conditions(seed, calls.batch, tuple(calls.scales))


@cache
def _machine_seed(cache_dir: Path) -> int:
    from evaluators.disk_cache import Stored, load_or_build

    def build() -> Stored:
        return {}, {"seed": Conditions().seed}

    try:
        return int(load_or_build(cache_dir / "known_losses" / "secret", build, lambda _: None)[1]["seed"])
    except (OptionsError, ValueError, KeyError):
        return Conditions().seed


def known_losses(
    server: OracleServer, contract: Contract, conditions: Conditions, cache_dir: Path | None = None
) -> KnownLosses:
    """All known objectives of a contract, fingerprinted at every scale, for `match` and `nearest`.

    The fingerprints take seconds the first time; then they are read from `cache_dir`, by default `default_cache_dir()`.
    Several processes that need them at once wait for one to make them. Without a writable folder each makes its own.

    Args:
        conditions: those that candidates are probed under; from `machine_conditions`, so that the tables are found again.

    Raises:
        CandidateError, InfrastructureError: from the oracle.
    """
    from evaluators.base import default_cache_dir
    from evaluators.disk_cache import Stored, load_or_build
    from sandbox.fingerprint import Rows  # torch
    from sandbox.gate import check_source
    from sandbox.known import KnownLosses, Tables, build_tables, tables_key

    known = {
        name: (objective.candidate, check_source(objective.candidate, contract).parameters)
        for name, objective in known_objectives(contract.name).items()
    }
    made: list[Tables] = []

    def build() -> Stored:
        made.append(build_tables(server, contract, known, conditions))
        return {**vars(made[0].rows), "curves": made[0].curves}, {}

    folder = (cache_dir or default_cache_dir()) / "known_losses" / tables_key(contract, known, conditions)
    try:
        tensors, _ = load_or_build(folder, build, lambda _: None)
        tables = Tables(Rows(*(tensors[part] for part in ("values", "norms", "levels"))), tensors["curves"])
        return KnownLosses(server, contract, known, conditions, tables)
    except (OptionsError, ValueError, KeyError):
        return KnownLosses(server, contract, known, conditions, made[0] if made else None)


def _read(path: Path, library: Library) -> Objective:
    source = path.read_text(encoding="utf-8").removeprefix("\ufeff")
    tree = parse(source)
    doc = ast.get_docstring(tree) or ""
    taken = {
        argument.arg
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == library.contract.function
        for argument in (*node.args.args, *node.args.kwonlyargs)
    }
    paper = _paragraph(doc, r"Papers?: ").rstrip(".")
    year = _YEAR.search(paper)
    rich = taken & {*library.contract.optional} - {"progress"}
    return Objective(
        name=path.stem,
        contract=library.contract.name,
        family=library.families[bool(rich)],
        summary=doc.split("\n")[0],
        equation=_equation(doc),
        paper=paper,
        year=int(year.group()) if year else 0,
        inputs=tuple(i.name for i in library.contract.inputs if i.name in taken),
        privileged=library.contract.privileged_of(taken),
        unsure="UNSURE" in doc,
        path=path,
        candidate=Candidate(library.contract.name, source),
    )


def _paragraph(doc: str, mark: str) -> str:
    """The text after `mark` up to the next empty line or labelled line, as one line."""
    found = re.search(rf"^{mark}(.+?)(?=\n\n|\n[A-Z][a-z]+: |\Z)", doc, re.MULTILINE | re.DOTALL)
    return " ".join(found.group(1).split()) if found else ""


def _equation(doc: str) -> str:
    """The first block of indented lines."""
    found = re.search(r"(?:^ {4,}\S.*\n?)+", doc, re.MULTILINE)
    return "; ".join(" ".join(line.split()) for line in found.group().strip().split("\n")) if found else ""
