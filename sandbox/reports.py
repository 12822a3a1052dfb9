"""What the gate and the probe say about a candidate: plain frozen values, no torch needed to read them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.failure import Failure


@dataclass(frozen=True)
class Violation:
    """One thing the gate refuses: where (1-based line, 0 for the whole text), what, and what to do instead."""

    line: int
    problem: str
    instead: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.problem}. {self.instead}"


@dataclass(frozen=True)
class GateReport:
    """Static verdict. `parameters` are the contract inputs that the candidate's function names, in contract order."""

    violations: tuple[Violation, ...] = ()
    parameters: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return not self.violations


@dataclass(frozen=True)
class Properties:
    """Measured behaviour that is recorded, not judged."""

    batch_coupled: bool  # examples in a batch influence each other
    bounded_below: bool  # losses do not run off to minus infinity on extreme inputs
    finite_at_extremes: bool
    monotone_decreasing: bool  # gradients never push the first policy input down nor the second up
    detached_parts: bool  # the returned gradient is not the derivative of the returned loss (KTO)
    inputs_with_gradient: tuple[str, ...]  # gradient is non-zero somewhere; reference-free losses have no others


@dataclass(frozen=True)
class Fingerprint:
    """Normalised losses and gradients on a fixed float64 grid, one row per probe value of the scale scalar.

    `values` holds rows of equal length; a non-finite entry is NaN. Compare with `sandbox.fingerprint.distance`.
    """

    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ProbeReport:
    """Behaviour of a candidate in an oracle child, measured before any training is paid for."""

    failure: Failure | None = None
    properties: Properties | None = None
    fingerprint: Fingerprint | None = None
    facts: dict[str, float] = field(
        default_factory=dict
    )  # the numbers behind a verdict: largest gradient, wall_ms, ...

    @property
    def accepted(self) -> bool:
        return self.failure is None
