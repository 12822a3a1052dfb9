"""Finding the loss that a word on the command line stands for: a file, a known objective, or one of an archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from db.errors import ArchiveError
from discovery.cli.archives import opened
from discovery.cli.files import read_loss
from evaluators.objectives import known_families, known_objectives
from evaluators.options import OptionsError
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.text import one_line


def find_loss(given: str, contract: Contract, archive: str | None) -> tuple[str, Candidate]:
    """Name and candidate of a file, a known objective or an archived candidate, looked for in this order.

    Raises:
        OptionsError: it is none of them, or written for another interface. ArchiveError: the archive cannot be read, has
            no such candidate, or the name is ambiguous.
    """
    path = Path(given)
    if path.suffix == ".py" or path.is_file():
        return path.name, read_loss(path, contract)
    known = known_objectives(contract.name)
    if given in known:
        return given, known[given].candidate
    with else_known(given, sorted(known)), opened(archive) as stored:
        entry = stored.entry(given)
    if entry.candidate.contract != contract.name:
        raise OptionsError(f"{given} is written for {entry.candidate.contract}; this evaluator takes {contract.name}")
    return one_line(entry.name, 80), entry.candidate


def known_names() -> list[str]:
    """Names of all known objectives, sorted."""
    return sorted({name for family in known_families() for name in known_objectives(family)})


@contextmanager
def else_known(given: str, known: Sequence[str]) -> Iterator[None]:
    """Where an archive does not have a loss, name the known objective whose name is the nearest. Raises OptionsError."""
    try:
        yield
    except ArchiveError as error:
        close = get_close_matches(given, known, n=1, cutoff=0.6)
        if error.fault or not close:
            raise
        raise OptionsError(f"{error}; among the known objectives: did you mean {close[0]!r}?") from error
