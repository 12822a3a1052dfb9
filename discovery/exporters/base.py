"""What an exporter is. It reads archived values and returns text; it runs no candidate code and writes no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol

from db.records import Entry, TrialRecord
from sandbox.contract import Contract


class ExportError(ValueError):
    """A candidate that cannot be exported: one line that says why. Exit code 2."""


@dataclass(frozen=True)
class Ancestor:
    """A loss that the exported one was built on."""

    candidate_id: str
    name: str
    origin: str


@dataclass(frozen=True)
class ExportContext:
    """What an export records besides the archived entry.

    Attributes:
        contract: the interface of the loss.
        command: the command line that made the file.
        exported_at: when, timezone-aware.
        version: of this project.
        model: language model behind the proposal, None if there was none.
        lineage: parents of the loss, as far back as the archive knows them.
    """

    contract: Contract
    command: str
    exported_at: datetime
    version: str
    model: str | None = None
    lineage: Sequence[Ancestor] = ()


class Exporter(Protocol):
    """One output format. Pure: equal arguments give equal bytes. All text of an entry is hostile.

    `suffix` is the usual file ending, with its dot.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    suffix: ClassVar[str]

    def export(self, entry: Entry, trials: Sequence[TrialRecord], context: ExportContext) -> str:
        """The file's text.

        Raises:
            ExportError: the candidate cannot be expressed in this format, or the result did not verify.
        """
