"""Options of `preference.enumerable`. The worlds themselves (regimes, pairs, reference) are constants: `definition.py`."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators.options import option
from evaluators.preference.contract import SMALLEST_BATCH
from evaluators.preference.enumerable.definition import CHECKPOINT_EVERY

_FIDELITIES = ("exact",)
_DEVICES = ("cpu", "cuda", "auto")


@dataclass(frozen=True)
class EnumerableOptions:
    """All options. The defaults define the published score; a change gives another task.

    Raises:
        ValueError: a value out of range.
    """

    fidelity: str = option("exact", "exact: KL and reward by enumeration; the only fidelity there is")
    betas: tuple[float, ...] = option(
        tuple(0.05 * 2.0**k for k in range(8)), "the grid of beta; one policy per world is trained for each"
    )
    steps: int = option(200, f"optimiser steps of each policy; a multiple of {CHECKPOINT_EVERY}")
    batch: int = option(32, "pairs in one step")
    learning_rate: float = option(4e-3, "Adam's learning rate, constant")
    device: str = option("cpu", "cpu, cuda or auto (a GPU if this process sees one)")
    threads: int = option(
        1, "CPU threads of a trial; scores do not depend on it, and more than one pays off only on idle cores"
    )

    def __post_init__(self) -> None:
        if self.fidelity not in _FIDELITIES:
            raise ValueError(f"fidelity must be {' or '.join(_FIDELITIES)}, not {self.fidelity!r}")
        if self.device not in _DEVICES:
            raise ValueError(f"device must be one of {', '.join(_DEVICES)}, not {self.device!r}")
        for name in ("steps", "batch", "learning_rate", "threads"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.batch < SMALLEST_BATCH:
            raise ValueError(f"batch must be at least {SMALLEST_BATCH}, as losses are told, not {self.batch}")
        if self.steps % CHECKPOINT_EVERY:
            raise ValueError(f"steps must be a multiple of {CHECKPOINT_EVERY}, not {self.steps}")
        if not self.betas or any(b <= 0 for b in self.betas) or len(set(self.betas)) != len(self.betas):
            raise ValueError("betas must be positive and differ from each other")


@dataclass(frozen=True)
class UnpairedOptions(EnumerableOptions):
    """Options of `preference.enumerable_unpaired`: the same, with responses in the place of pairs.

    Raises:
        ValueError: a value out of range.
    """

    batch: int = option(64, "responses in one step")
    desirable_kept: float = option(1.0, "share of the chosen responses that are used, as desirable ones")
    undesirable_kept: float = option(1.0, "share of the rejected responses that are used, as undesirable ones")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("desirable_kept", "undesirable_kept"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1, not {getattr(self, name)}")
        if max(self.desirable_kept, self.undesirable_kept) < 0.05:
            raise ValueError(
                "desirable_kept or undesirable_kept must be at least 0.05, or nothing is left to learn from"
            )
