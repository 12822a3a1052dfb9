"""Everything that is known about one loss, as a frozen value. `gathering` makes it from an archive or the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from db.records import Ancestor, CampaignRecord, Entry, Proposal, Score, TaskRecord, TrialRecord
from discovery.contest import PRIVILEGED, UNLIKE, UNLIKE_MEANING
from discovery.statistics import Difference
from sandbox.contract import Contract
from sandbox.reports import GateReport, ProbeReport
from sandbox.text import one_line


@dataclass(frozen=True)
class Comparison:
    """A baseline measured on the same seeds: its score, and the loss minus it, paired.

    `alike`: whether both are privileged or neither is (`discovery.contest`).
    """

    name: str
    candidate_id: str
    mean: float
    difference: Difference
    alike: bool = True


@dataclass(frozen=True)
class Measurement:
    """How a loss did on one task over one set of seeds.

    Attributes:
        evaluator, task_id: the task.
        ranks: whether the search ranked by it; otherwise the seeds or the task are fresh.
        fresh_seeds: the search's own task on seeds that it never saw.
        score: by seed.
        mean: with its interval, as a difference to nothing; `low` and `high` are None with one seed.
        versus: baselines measured alike, those of the loss's own kind first, the leading one of each kind first.
    """

    evaluator: str
    task_id: str
    ranks: bool
    fresh_seeds: bool
    score: Score
    mean: Difference
    versus: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class Dossier:
    """A loss with its provenance. Everything from `proposal` on is empty for a loss that no archive holds.

    All of its text is hostile where it is shown.
    """

    entry: Entry
    contract: Contract
    gate: GateReport
    probe: ProbeReport | None = None
    proposal: Proposal | None = None
    model: str | None = None  # the language model behind the proposal
    campaign: CampaignRecord | None = None
    trials: Sequence[TrialRecord] = ()
    tasks: Mapping[str, TaskRecord] = field(default_factory=dict)
    lineage: Sequence[Ancestor] = ()  # without the loss itself
    measurements: Sequence[Measurement] = ()
    arrays: Mapping[int, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)  # summaries by trial id

    @property
    def standing(self) -> str:
        """Whether it is better than the leading baselines, in a sentence with the intervals; empty if nothing is compared.

        Better is said only of what is so wherever it was measured again: the search chose by its own seeds.
        """
        compared = [m for m in self.measurements if m.versus]
        if not compared or self.entry.origin == "known":
            return ""
        again = [m for m in compared if not m.ranks]
        won = [m.versus[0].difference.verdict == "better" for m in again or compared]
        said = "; ".join(_beside_leader(m) for m in compared)
        if all(won):
            where = "measured again" if again else "on the seeds that the search chose by, not confirmed on fresh ones"
            return f"better than {self._opponent}, {where}: {said}{self._unlike(compared)}"
        return f"not shown to be better than {self._opponent}: {said}{self._unlike(compared)}"

    @property
    def _opponent(self) -> str:
        like = all(m.versus[0].alike for m in self.measurements if m.versus)
        return f"the leading {PRIVILEGED} baseline" if self.privileged and like else "the leading baseline"

    def _unlike(self, compared: Sequence[Measurement]) -> str:
        """Why a comparison is not like with like, where one is not."""
        if all(m.versus[0].alike for m in compared):
            return ""
        return f" ({UNLIKE_MEANING})"

    @property
    def privileged(self) -> tuple[str, ...]:
        """The inputs that it reads and that tell it more than labels do."""
        return self.gate.privileged

    @property
    def parameters(self) -> tuple[str, ...]:
        """The contract's inputs that the loss reads."""
        return self.gate.parameters

    @property
    def primary(self) -> Measurement | None:
        """The measurement that ranks it, else any other."""
        return next(iter(sorted(self.measurements, key=lambda m: not m.ranks)), None)


def _beside_leader(measurement: Measurement) -> str:
    """``frontier -0.0067 [-0.0127, -0.0007] to dpo, behind``, and what it was measured on, if not by the search."""
    other, metric = measurement.versus[0], one_line(measurement.score.metric, 40)
    difference = other.difference
    ends = "" if difference.low is None else f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    on = "" if measurement.ranks else " on fresh seeds" if measurement.fresh_seeds else " on another task"
    unlike = "" if other.alike else f", {UNLIKE}"
    return f"{metric} {difference.mean:+.4f}{ends} to {one_line(other.name, 40)}{on}, {difference.says}{unlike}"
