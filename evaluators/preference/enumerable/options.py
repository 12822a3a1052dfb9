"""Options of `preference.enumerable`. The worlds themselves (regimes, pairs, reference) are constants: `definition.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.options import check_grid, nearest, option
from evaluators.preference.contract import SMALLEST_BATCH
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.responses import count

_FIDELITIES = ("exact", "screen")
_DEVICES = ("cpu", "cuda", "auto")
_SCREENED = 2  # every so manieth beta and learning rate is trained when screening


@dataclass(frozen=True)
class EnumerableOptions:
    """All options. The defaults define the published score; a change gives another task.

    Raises:
        ValueError: a value out of range.
    """

    fidelity: str = option(
        "exact",
        f"exact: the published score; screen: only the regimes {', '.join(d.SCREEN_REGIMES)}, every second beta and "
        "every second learning rate, to weed out what is far behind",
    )
    betas: tuple[float, ...] = option(
        tuple(0.04 * 2.0**k for k in range(9)),
        "the grid of beta, rising; a policy is trained for each at each learning rate",
    )
    learning_rates: tuple[float, ...] = option(
        (0.001, 0.0025, 0.006, 0.015, 0.036),
        "the grid of Adam's learning rate, rising; each falls to 0 along a half cosine",
    )
    steps: int = option(32, f"optimiser steps of each policy; a multiple of {d.CHECKPOINTS}")
    batch: int = option(32, "pairs in one step")
    regimes: tuple[str, ...] = option(
        tuple(r.name for r in d.REGIMES), "the worlds of a seed: regimes of preference data, by name"
    )
    max_length: int = option(10, "tokens in the longest response; all responses are enumerated")
    device: str = option("cpu", "cpu, cuda or auto (a GPU if this process sees one)")
    threads: int = option(
        1, "CPU threads of a trial; scores do not depend on it, and more than one pays off only on idle cores"
    )

    def __post_init__(self) -> None:
        if self.fidelity not in _FIDELITIES:
            raise ValueError(f"fidelity must be {' or '.join(_FIDELITIES)}, not {self.fidelity!r}")
        if self.device not in _DEVICES:
            raise ValueError(f"device must be one of {', '.join(_DEVICES)}, not {self.device!r}")
        for name in ("steps", "batch", "threads"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.batch < SMALLEST_BATCH:
            raise ValueError(f"batch must be at least {SMALLEST_BATCH}, as losses are told, not {self.batch}")
        if self.steps % d.CHECKPOINTS:
            raise ValueError(f"steps must be a multiple of {d.CHECKPOINTS}, not {self.steps}")
        check_grid("betas", self.betas)
        check_grid("learning_rates", self.learning_rates)
        _check_regimes(self.regimes)
        _check_length(self.max_length)
        if self.fidelity == "screen" and not self.used_regimes:
            raise ValueError(f"fidelity screen trains {', '.join(d.SCREEN_REGIMES)}, and regimes has none of them")

    @property
    def used_regimes(self) -> tuple[d.Regime, ...]:
        """Those that are trained, in the order of the definition."""
        screened = self.fidelity == "screen"
        return tuple(r for r in d.REGIMES if r.name in self.regimes and (not screened or r.name in d.SCREEN_REGIMES))

    @property
    def used_betas(self) -> tuple[float, ...]:
        """Those that are trained."""
        return self.betas[::_SCREENED] if self.fidelity == "screen" else self.betas

    @property
    def used_learning_rates(self) -> tuple[float, ...]:
        """Those that are trained, the largest in any case."""
        return self.learning_rates[::-_SCREENED][::-1] if self.fidelity == "screen" else self.learning_rates

    @property
    def runs(self) -> int:
        """Policies of one world: one for each learning rate and beta, in this order."""
        return len(self.used_learning_rates) * len(self.used_betas)


def _check_regimes(names: Sequence[str]) -> None:
    known = [r.name for r in d.REGIMES]
    if not names:
        raise ValueError("regimes is empty; at least one is needed")
    for name in names:
        if name not in known:
            raise ValueError(f"regimes: there is no regime {name!r}; {nearest(name, known)}")
    if len(set(names)) != len(names):
        raise ValueError("regimes must each be named once")


def _check_length(length: int) -> None:
    if length < 2:
        raise ValueError(f"max_length must be at least 2, not {length}")
    if length > 1000 or count(length) > d.MOST_RESPONSES:
        number = f"{count(length):,}" if length < 60 else f"about 2^{length + 1}"
        raise ValueError(
            f"max_length {length} means {number} responses to each prompt, which are all enumerated; at most "
            f"{d.MOST_RESPONSES:,} can be"
        )


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
