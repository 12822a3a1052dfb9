"""What an evaluator is and what it reports. Importable without torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from numpy.typing import NDArray

from sandbox.contract import Contract

if TYPE_CHECKING:
    from sandbox.oracle import LossOracle


LARGEST = 1e150  # of a metric: the square of one can still be summed up


@dataclass(frozen=True)
class Metric:
    """One aggregate number of a trial. `stderr` is the measurement's own standard error, None where it is exact."""

    name: str
    value: float
    higher_is_better: bool
    unit: str
    stderr: float | None = None


@dataclass(frozen=True)
class MetricSpec:
    """A metric an evaluator promises in every report; `description` is shown to people and to the LLM.

    `lower`, `upper`: what no value can be below or above, whatever the loss; None where there is no such limit.
    `minimum_effect`: the smallest difference between two losses that means anything to a user of the task, in the metric's
    unit; "better" and "worse" are said of larger ones only. 0 where every difference counts that is one.

    Raises:
        ValueError: a minimum effect that is negative or no finite number.
    """

    name: str
    higher_is_better: bool
    unit: str
    description: str
    lower: float | None = None
    upper: float | None = None
    minimum_effect: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_effect < math.inf:
            raise ValueError(f"metric {self.name}: a minimum effect of {self.minimum_effect!r}")


@dataclass(frozen=True)
class Provenance:
    """Where a task's data came from. `sha256` is over the data as used (for synthetic data: over its definition)."""

    source: str
    licence: str
    sha256: str


@dataclass(frozen=True)
class Task:
    """What exactly was measured: two trials are comparable if and only if their task ids are equal.

    `options` are all options of the evaluator as plain JSON values; `id` is sha256 over canonical JSON.
    """

    evaluator: str
    version: int
    options: Mapping[str, Any]
    provenance: Provenance

    @property
    def id(self) -> str:
        content = {"evaluator": self.evaluator, "version": self.version, "options": self.options}
        content["data"] = self.provenance.sha256
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()


@dataclass(frozen=True)
class Timings:
    """Wall seconds from a monotonic clock. `oracle_s` is contained in `train_s`."""

    setup_s: float
    train_s: float
    evaluate_s: float
    oracle_s: float


@dataclass(frozen=True)
class TrialReport:
    """The result of one successful trial.

    Attributes:
        seed: the trial's seed.
        metrics: aggregate values; names are unique.
        arrays: values per world and beta, and training curves; what each name holds is in the evaluator's `arrays_doc`.
        timings, device, threads, versions, peak_memory_mb: how it was measured.
        oracle_calls: number of oracle round trips.
        setup: measurements of the shared preparation that explain the scores (e.g. held-out accuracy of a reward).
        sandbox: what the candidate was confined with, ``none`` if nothing; filled in by `run_trial`.
    """

    seed: int
    metrics: tuple[Metric, ...]
    arrays: Mapping[str, NDArray[Any]]
    timings: Timings
    device: str
    threads: int
    versions: Mapping[str, str]
    peak_memory_mb: float
    oracle_calls: int
    setup: Mapping[str, float] = field(default_factory=dict)
    sandbox: str = ""

    def __post_init__(self) -> None:
        names = [m.name for m in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("a metric is reported twice")
        for metric in self.metrics:
            if not abs(metric.value) <= LARGEST:
                raise ValueError(
                    f"metric {metric.name} is not finite or over {LARGEST:g}; an evaluator must raise instead"
                )

    def metric(self, name: str) -> Metric:
        """The metric of that name. Raises KeyError if the report has none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)


@dataclass(frozen=True)
class Calls:
    """How training calls a loss: examples in one call, and the values of the contract's scale scalar.

    Raises:
        ValueError: a batch that is no whole number above 0, or a scale that is no finite number.
    """

    batch: int
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.batch, int) or self.batch < 1:
            raise ValueError(f"a batch of {self.batch!r} examples")
        odd = next((s for s in self.scales if not isinstance(s, (int, float)) or not math.isfinite(s)), None)
        if odd is not None:
            raise ValueError(f"a scale of {odd!r}")


@runtime_checkable
class TellsCalls(Protocol):
    """What an evaluator may have besides: how its training calls a loss.

    Candidates are then compared at that batch size and at those values; at the defaults of `Conditions` otherwise.
    """

    @property
    def calls(self) -> Calls: ...


@dataclass(frozen=True)
class Resources:
    """What one worker of this evaluator needs from Ray."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mb: int = 1024


class Evaluator(Protocol):
    """One task. An instance belongs to one process and is reused for many trials, one call at a time.

    `prepare` and `run` may come from different threads, never at once.

    Construction is cheap and validates the options (raises OptionsError). `prepare` may take minutes, is idempotent, and
    caches what it can on disk under `cache_dir`, safely against other processes doing the same at once. `run` depends on
    `oracle` and `seed` only: the same seed on the same CPU gives the same metrics to the last bit. It raises nothing for
    a bad candidate by itself: `CandidateError` comes out of the oracle and passes through.
    """

    name: ClassVar[str]
    version: ClassVar[int]  # raise it whenever a change moves any score
    summary: ClassVar[str]
    contract: ClassVar[Contract]
    metrics: ClassVar[tuple[MetricSpec, ...]]
    primary_metric: ClassVar[str]
    arrays_doc: ClassVar[Mapping[str, str]]  # array name -> axes and units

    def __init__(self, options: Mapping[str, Any] | None = None, cache_dir: Path | None = None) -> None:
        """Raises OptionsError for unknown or ill-typed options."""

    @property
    def task(self) -> Task:
        """The exact task; available before `prepare`. Raises OptionsError if its data cannot be found."""

    @property
    def task_description(self) -> str:
        """A few sentences for whoever proposes losses: model, data, optimiser, steps, betas, and what the score is.

        Rendered from the options; available before `prepare`; plain text without line breaks.
        """

    @property
    def resources(self) -> Resources: ...

    def prepare(self, progress: Callable[[str], None] | None = None) -> Mapping[str, float]:
        """Make everything trials share; returns facts about it (e.g. `reward_accuracy`). Raises OptionsError."""

    def run(self, oracle: LossOracle, seed: int) -> TrialReport:
        """One trial. Raises CandidateError (the candidate's fault) or InfrastructureError (ours)."""


def training_progress(step: int, steps: int) -> float:
    """The contract's `progress` at optimiser step `step`, 0-based: 0 at the first, 1 at the last, 0 if there is one."""
    return step / (steps - 1) if steps > 1 else 0.0


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. Raises ValueError on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def default_cache_dir() -> Path:
    """Where prepared tasks are kept: ``$OBJECTIVE_DISCOVERY_CACHE`` or ``~/.cache/objective-discovery``."""
    import os

    return Path(os.environ.get("OBJECTIVE_DISCOVERY_CACHE") or Path.home() / ".cache" / "objective-discovery")
