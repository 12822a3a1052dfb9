"""Why a campaign ended, as the archive keeps it. Importable without SQLAlchemy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The kind of an end; the value is what the archive stores."""

    CANDIDATES = "candidates"  # these six: the budget of that name had no room for one more proposal
    PROPOSALS = "proposals"
    WALL = "wall_s"
    TOKENS = "tokens"
    USD = "usd"
    DEVICE_HOURS = "device_hours"
    STALLED = "stalled"  # the budget of proposals went into copies
    EXHAUSTED = "exhausted"  # the proposer had nothing more to propose
    PROPOSER = "proposer"  # the proposer could not go on
    INTERRUPTED = "interrupted"  # somebody asked it to stop
    SETTINGS = "settings"  # a setting turned out to be wrong
    PLUGIN = "plugin"  # an evaluator, strategy or proposer is faulty
    FAULT = "fault"  # of the machine, of Ray, of the archive or ours
    IMPORTED = "imported"  # no search: losses taken from files
    UNRECORDED = "unrecorded"  # ended before reasons were kept

    @property
    def words(self) -> str:
        """What it means, where nothing more particular is known."""
        return _WORDS.get(self) or f"budget.{self} is used up"


_WORDS = {
    Reason.STALLED: "the search stalled: most proposals were copies",
    Reason.EXHAUSTED: "the proposer had nothing more to propose",
    Reason.PROPOSER: "the proposer could not go on",
    Reason.INTERRUPTED: "it was asked to stop",
    Reason.SETTINGS: "a setting is wrong",
    Reason.PLUGIN: "a plug-in is faulty",
    Reason.FAULT: "a fault stopped it",
    Reason.IMPORTED: "losses were taken from files",
    Reason.UNRECORDED: "the reason was not recorded",
}


@dataclass(frozen=True)
class Ending:
    """Why a campaign ended. `detail` is one line with numbers or the error's words, hostile where it is shown."""

    reason: Reason = Reason.UNRECORDED
    detail: str = ""

    @property
    def text(self) -> str:
        """The detail, or the reason's own words where there is none."""
        return self.detail or self.reason.words


NOT_RECORDED = Ending()


def ending_of(reason: str | None, detail: str | None) -> Ending | None:
    """From an archive's columns: None while it runs or after its driver was killed; an unknown word is unrecorded."""
    if reason is None:
        return None
    known = reason in {r.value for r in Reason}
    return Ending(Reason(reason) if known else Reason.UNRECORDED, detail or "")
