"""A loss as a function of the margin alone: its curve, its limits, whether it is convex.

The margin is how far training has moved a policy from its reference in the wanted direction, in nats: chosen log-ratio
minus rejected log-ratio, split evenly between the two; for a contract with labels, the log-ratio of a desirable response
and minus that of an undesirable one, of which the curve is the mean. Everything else is held at one ordinary value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sandbox.contract import Contract, TensorInput
from sandbox.draws import directions
from sandbox.oracle import LossOracle
from sandbox.reports import CURVE_REACH

POINTS = 41  # of the curve
_FAR = (10.0, 100.0, 1000.0)  # where limits are read off, in the same units
_CURVATURE = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
}  # of its range: rounding, where differences should have one sign
_STILL_MOVING = 0.5  # of the previous step between far points (each ten times as far) is no convergence
_SETTLED = 1e-9
_HUGE = 1e30  # beyond this a loss is clamped at best
_COPIES = 2  # examples of each margin in a batch at least: one of each label, or twice the same


@dataclass(frozen=True)
class MarginBehaviour:
    """What the curve says about a loss; `curve` is centred and divided by its norm, for `distances`.

    Limits are text, since neither JSON nor a comparison has an infinity: a number, ``inf``, ``-inf``, or ``nan`` where the
    loss is not a number.
    """

    curve: tuple[float, ...]
    falling: bool  # never rises with the margin
    convex: bool
    limit_up: str
    limit_down: str

    @property
    def bounded_above(self) -> bool:
        return "inf" not in (self.limit_up, self.limit_down)


def margin_behaviour(oracle: LossOracle, dtype: torch.dtype = torch.float64) -> MarginBehaviour | None:
    """Measure a candidate; None for a contract whose policy inputs have no reference. Raises what the oracle raises."""
    if not has_margin(oracle.contract):
        return None
    far = [s * f for s in (1.0, -1.0) for f in _FAR]
    inner = _inner_points()
    losses = curves(oracle, (1.0,), [*inner, *far], dtype)[0]
    shape, outer = losses[: len(inner)], losses[len(inner) :].tolist()
    up, down = outer[: len(_FAR)], outer[len(_FAR) :]
    middle, rounding = float(shape[len(inner) // 2]), _CURVATURE[dtype] * float(shape.max() - shape.min())
    return MarginBehaviour(
        tuple(normalise(shape[None])[0].tolist()),
        _never_rises(shape, rounding),
        _is_convex(shape, rounding),
        _limit(middle, up),
        _limit(middle, down),
    )


def has_margin(contract: Contract) -> bool:
    """Whether every required policy input has a reference to move away from, and a way to go."""
    required = [t for t in contract.tensors if t.carries_gradient and not t.optional]
    return all(t.reference is not None and t.wanted is not None for t in required)


def curve_table(oracle: LossOracle, scales: Sequence[float]) -> Tensor:
    """(scales, POINTS) normalised curves with the scale scalar multiplied by each of `scales`."""
    return normalise(curves(oracle, scales, _inner_points()))


def curves(
    oracle: LossOracle, scales: Sequence[float], points: Sequence[float], dtype: torch.dtype = torch.float64
) -> Tensor:
    """(scales, points) losses as float64, from one packed call in `dtype`.

    Args:
        scales: factors of the scale scalar. The margins do not move with them.
        points: margins in units of 1 / (the scale scalar's default).
    """
    contract = oracle.contract
    scalars = {s.name: s.default for s in contract.scalars}
    unit = scalars[contract.scale_scalar] if contract.scale_scalar else 1.0
    margins = torch.tensor(points, dtype=torch.float64) / unit  # (P,)
    copies = max(_COPIES, contract.smallest_batch)
    batches = margins[:, None].expand(-1, copies)  # (P, copies): nothing else in a batch than one margin
    if oracle.elementwise:  # each example by itself: all margins in one batch
        batches = batches.reshape(1, -1)
    runs = len(batches)
    inputs = {name: t.to(dtype).repeat(len(scales), 1) for name, t in at_margins(contract, batches).items()}
    settings = {
        name: [v * (c if name == contract.scale_scalar else 1.0) for c in scales for _ in range(runs)]
        for name, v in scalars.items()
    }
    losses = oracle.evaluate(inputs, settings).losses.double()
    return losses.reshape(len(scales), len(points), copies).mean(2)


def at_margins(contract: Contract, margins: Tensor) -> dict[str, Tensor]:
    """All inputs at these margins in nats, (R, B) as they are; labels alternate along the batch."""
    inputs = {t.name: torch.full_like(margins, _ordinary(t)) for t in contract.tensors}
    if contract.label is not None:
        inputs[contract.label] = (torch.arange(margins.shape[1]) % 2 == 0).to(margins).expand_as(margins).clone()
    wanted = directions(contract, inputs)
    for spec in contract.tensors:
        if spec.reference is not None and spec.name in wanted:
            inputs[spec.name] = inputs[spec.reference] + wanted[spec.name] * margins / len(wanted)
    return inputs


def _ordinary(spec: TensorInput) -> float:
    """The middle of the range; of an input that no training moves, and that better examples have higher, a quarter above.

    So two responses are alike in everything that is required, and in length, but the chosen one has the better score.
    """
    middle, quarter = (spec.low + spec.high) / 2, (spec.high - spec.low) / 4
    if spec.dtype != "float32":
        return float(round(middle))
    if spec.carries_gradient or spec.wanted is None:
        return middle
    return middle + (quarter if spec.wanted == "up" else -quarter)


def _inner_points() -> list[float]:
    return [CURVE_REACH * (2 * i / (POINTS - 1) - 1) for i in range(POINTS)]


def normalise(losses: Tensor) -> Tensor:
    """Each row centred and divided by its norm; a constant row becomes zero, one that is not finite NaN."""
    centred = losses - losses.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    scale = losses.abs().amax(1, keepdim=True) + 1e-300
    rows = torch.where(norm > 1e-12 * scale, centred / norm.clamp(min=1e-300), 0.0)
    return torch.where(norm.isfinite(), rows, torch.nan)


def _never_rises(losses: Tensor, rounding: float) -> bool:
    return bool((losses[1:] - losses[:-1] <= rounding).all())


def _is_convex(losses: Tensor, rounding: float) -> bool:
    bends = losses[2:] - 2 * losses[1:-1] + losses[:-2]
    return bool(bends.isfinite().all()) and bool((bends >= -rounding).all())


def _limit(middle: float, outer: Sequence[float]) -> str:
    """What losses at ten times the margin each time tend to."""
    if any(math.isnan(v) for v in outer):
        return "nan"
    if abs(outer[-1]) > _HUGE:
        return "inf" if outer[-1] > 0 else "-inf"
    before, last = outer[1] - outer[0], outer[2] - outer[1]
    size = max(abs(v) for v in (middle, *outer)) + 1e-300
    if abs(last) > _STILL_MOVING * abs(before) and abs(last) > _SETTLED * size:
        return "inf" if last > 0 else "-inf"
    return f"{outer[-1]:.6g}" if abs(outer[-1]) > 1e-12 else "0"
