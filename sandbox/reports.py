"""What the gate and the probe say about a candidate: plain frozen values, no torch needed to read them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.failure import Failure

CURVE_REACH = 8.0  # half-width of a loss curve, in units of 1 / scale scalar


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
    """Static verdict.

    Attributes:
        violations: what is refused; nothing if the candidate is accepted.
        parameters: the contract inputs that the candidate's function names, in contract order.
        notes: what of the text that came was mended before it was judged, one line each.
    """

    violations: tuple[Violation, ...] = ()
    parameters: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return not self.violations


@dataclass(frozen=True)
class Properties:
    """Measured behaviour that is recorded, not judged.

    What has a default was not always measured: None in reports from before, and where a contract has no margin (how far the
    policy has moved from the reference in the wanted direction, in nats; `sandbox.curve`). They describe the formula, also
    where log-probs cannot go. Limits of the loss are text, as JSON has no infinity: a number, ``inf``, ``-inf``, or ``nan``
    where the loss is not a number.
    """

    batch_coupled: bool  # examples in a batch influence each other
    bounded_below: bool  # losses do not run off to minus infinity on extreme inputs
    finite_at_extremes: bool
    monotone_decreasing: bool  # gradients never push a policy input the unwanted way
    detached_parts: bool  # the returned gradient is not the derivative of the returned loss (KTO)
    inputs_with_gradient: tuple[str, ...]  # gradient is non-zero somewhere
    uses_reference: bool | None = None  # losses or gradients change with the reference's values
    convex_in_margin: bool | None = None
    bounded_above: bool | None = None  # as the margin goes to plus or minus infinity
    limit_at_plus_infinity: str | None = None  # of the margin
    limit_at_minus_infinity: str | None = None


@dataclass(frozen=True)
class Fingerprint:
    """Normalised losses and gradients on a fixed float64 grid, one row per probe value of the scale scalar.

    `values` holds rows of equal length; a non-finite entry is NaN. Compare with `sandbox.fingerprint.distance`.
    """

    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Match:
    """A known loss, the factor of its scale scalar, and how far a candidate is from it there."""

    name: str
    scale: float
    distance: float

    def describe(self, scalar: str | None) -> str:
        """``dpo`` or ``dpo, beta x 2``."""
        if scalar is None or abs(self.scale - 1) < 1e-3:
            return self.name
        return f"{self.name}, {scalar} x {self.scale:.4g}"


@dataclass(frozen=True)
class Nearest:
    """Known losses nearest first, each at the scale at which it is nearest.

    Attributes:
        by_fingerprint: distance is the mean over the fingerprint's rows of the distance between normalised gradients, from 0
            (a copy) over 1.4 (nothing in common) to 2 (opposite).
        by_curve: distance is between the normalised loss curves, from 0 (one is a positive multiple of the other, plus a
            constant) to 2 (its mirror image). Empty for a contract without a margin, or without a curve to compare.
    """

    by_fingerprint: tuple[Match, ...]
    by_curve: tuple[Match, ...]


@dataclass(frozen=True)
class ProbeReport:
    """Behaviour of a candidate in an oracle child, measured before any training is paid for.

    `curve` is the loss at evenly spaced margins from -CURVE_REACH to CURVE_REACH, normalised, to compare with known losses;
    empty where there is none.
    `nearest` is filled in by whoever has the known losses at hand.
    """

    failure: Failure | None = None
    properties: Properties | None = None
    fingerprint: Fingerprint | None = None
    facts: dict[str, float] = field(
        default_factory=dict
    )  # the numbers behind a verdict: largest gradient, wall_ms, ...
    curve: tuple[float, ...] = ()
    nearest: Nearest | None = None

    @property
    def accepted(self) -> bool:
        return self.failure is None
