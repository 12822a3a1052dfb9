"""What the gate and the probe say about a candidate: plain frozen values, no torch needed to read them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.contract import Conditions
from sandbox.failure import Failure, FailureKind

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
        privileged: those of the parameters that tell more than labels do; nothing for a loss that sees labels alone.
    """

    violations: tuple[Violation, ...] = ()
    parameters: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    privileged: tuple[str, ...] = ()

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
    """Normalised losses and gradients at inputs drawn under some conditions, one row for each setting of the scalars.

    Compare with `sandbox.fingerprint.distance`.

    Attributes:
        values: rows of equal length; a non-finite entry is NaN.
        conditions: under which it was taken; None for one from before they were kept, which compares with nothing newer.
        norms: of each row's gradients, before they were normalised; empty if it was read from an archive.
        levels: each row's mean loss over that norm; likewise.
        single: whether it was computed in float32.
        other: the same in the other precision, if it could be had.
    """

    values: tuple[tuple[float, ...], ...]
    conditions: Conditions | None = None
    norms: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    single: bool = False
    other: Fingerprint | None = None


@dataclass(frozen=True)
class Match:
    """A known loss, the factor of its scale scalar, and how far a candidate is from it there.

    `factor`: where the candidate is that loss times a positive factor which changes during training, what the factor
    depends on.
    """

    name: str
    scale: float
    distance: float
    factor: str = ""

    def describe(self, scalar: str | None) -> str:
        """``dpo`` or ``dpo, beta x 2``."""
        if scalar is None or abs(self.scale - 1) < 1e-3:
            return self.name
        return f"{self.name}, {scalar} x {self.scale:.4g}"

    def refusal(self, scalar: str | None) -> Failure:
        """Why a candidate that matches is not trained."""
        what = self.describe(scalar)
        if not self.factor:
            return Failure(FailureKind.DUPLICATE, f"behaves like a known loss: ({what})")
        return Failure(
            FailureKind.DUPLICATE,
            f"behaves like a known loss times a positive factor that depends on {self.factor}: ({what}); such a factor is a "
            "learning rate, which is no part of a loss",
        )


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
