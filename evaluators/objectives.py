"""Known objectives: published losses kept as candidate source text."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.options import OptionsError, nearest
from sandbox.candidate import Candidate

if TYPE_CHECKING:
    from sandbox.contract import Contract
    from sandbox.fingerprint import KnownLosses
    from sandbox.server import OracleServer


@dataclass(frozen=True)
class Objective:
    """A published loss. `summary` is the first line of its docstring; the rest (equation, paper) is in the source."""

    name: str
    family: str
    summary: str
    path: Path
    candidate: Candidate


_FOLDERS = {"preference.pairs": Path(__file__).parent / "preference" / "objectives"}


def known_families() -> list[str]:
    """Names of the contracts that have known objectives."""
    return sorted(_FOLDERS)


@cache
def known_objectives(contract: str) -> dict[str, Objective]:
    """All known objectives of a contract by name; empty for a contract that has none."""
    folder = _FOLDERS.get(contract)
    found = {}
    for path in sorted(folder.glob("*.py")) if folder else []:
        if path.stem != "__init__":
            source = path.read_text(encoding="utf-8")
            doc = ast.get_docstring(ast.parse(source)) or ""
            found[path.stem] = Objective(path.stem, contract, doc.split("\n")[0], path, Candidate(contract, source))
    return found


def known_objective(contract: str, name: str) -> Objective:
    """The objective of that name. Raises OptionsError (with the nearest name) if there is none."""
    known = known_objectives(contract)
    if name not in known:
        raise OptionsError(f"no known objective {name!r} for {contract}; {nearest(name, list(known))}")
    return known[name]


def known_losses(server: OracleServer, contract: Contract) -> KnownLosses:
    """All known objectives of a contract, fingerprinted for `match`. Takes about a second.

    Raises:
        CandidateError, InfrastructureError: from the oracle.
    """
    from sandbox.fingerprint import KnownLosses  # torch
    from sandbox.gate import check_source

    known = {
        name: (objective.candidate, check_source(objective.candidate, contract).parameters)
        for name, objective in known_objectives(contract.name).items()
    }
    return KnownLosses(server, contract, known)
