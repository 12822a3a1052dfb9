"""Behavioural fingerprints: what a loss computes, regardless of how it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sandbox.candidate import Candidate
from sandbox.contract import Contract, TensorInput
from sandbox.oracle import Answer, LossOracle
from sandbox.reports import Fingerprint
from sandbox.server import OracleServer

POINTS = 24
MODERATE, WIDE = 2.5, 50.0  # half-widths of the log-ratios in the two groups of rows
DUPLICATE_DISTANCE = 1e-4
SCALES = (1 / 16, 16.0)  # a known loss at beta * c with c in here is a rescaled beta, not a discovery
_COARSE = 129  # values of c tried first, evenly in log c
_FINE = 9  # values of c in each refinement, which narrows the bracket four times
_WORTH_REFINING = 0.05  # a true match is within about 0.02 of its nearest value in the coarse table
_FLOOR = 0.2  # of the slope between table values: a true match has none, and slopes change little between neighbours
_CLEAR = 0.01  # of DUPLICATE_DISTANCE: no need to search on
_FLAT = 0.8  # around a true match the distance is V-shaped; a minimum this close to its neighbours is not one
_SEED = 20240612


def grid(contract: Contract, parameters: tuple[str, ...], rows: int, width: float = MODERATE) -> dict[str, Tensor]:
    """Fixed inputs, (rows, POINTS) float64, equal in every row.

    A policy input stays within `width` of its reference, where the contract has one: that is its log-ratio.
    """
    generator = torch.Generator().manual_seed(_SEED)
    drawn: dict[str, Tensor] = {}
    for spec in contract.tensors:  # all of them in contract order: values do not depend on which inputs are read
        drawn[spec.name] = _draw(spec, POINTS, generator)
    for spec in contract.tensors:
        anchor = anchor_of(contract, spec)
        if anchor is not None:
            unit = torch.rand(POINTS, generator=generator, dtype=torch.float64)
            drawn[spec.name] = drawn[anchor] + 2 * width * (unit - 0.5)
    return {name: values.expand(rows, -1) for name, values in drawn.items() if name in parameters}


def _draw(spec: TensorInput, count: int, generator: torch.Generator) -> Tensor:
    unit = torch.rand(count, generator=generator, dtype=torch.float64)
    values = spec.low + (spec.high - spec.low) * unit
    return values if spec.dtype == "float32" else values.round()


def anchor_of(contract: Contract, spec: TensorInput) -> str | None:
    """The gradient-free input a policy input is compared with: same position among those of the same range."""
    if not spec.carries_gradient:
        return None
    same = [t for t in contract.tensors if (t.low, t.high) == (spec.low, spec.high)]
    policy, fixed = [t for t in same if t.carries_gradient], [t for t in same if not t.carries_gradient]
    position = policy.index(spec)
    return fixed[position].name if position < len(fixed) else None


def probe_scalars(contract: Contract, scales: Sequence[float] = (1.0,)) -> dict[str, list[float]]:
    """Scalar settings: for each scale, one row per probe value; the contract's scale scalar is multiplied by it."""
    rows = max((len(s.probe_values) for s in contract.scalars), default=1)
    settings: dict[str, list[float]] = {}
    for scalar in contract.scalars:
        values = [scalar.probe_values[i % len(scalar.probe_values)] for i in range(rows)]
        scaled = scalar.name == contract.scale_scalar
        settings[scalar.name] = [v * (c if scaled else 1.0) for c in scales for v in values]
    return settings


def fingerprint(oracle: LossOracle) -> Fingerprint:
    """The candidate's fingerprint: a row per probe value at moderate log-ratios, then the same at wide ones.

    Moderate rows tell shapes apart where training happens; wide ones tell a hinge at a small beta from a straight line.
    Both are normalised by themselves, so that an exponential's tail does not drown the rest. Raises what the oracle raises.
    """
    return Fingerprint(tuple(tuple(row) for row in _table(oracle, (1.0,))[0].tolist()))


def _table(oracle: LossOracle, scales: Sequence[float]) -> Tensor:
    """(scales, rows, values): the fingerprint at each scale, from one packed call in float64."""
    scalars = probe_scalars(oracle.contract, scales)
    runs = len(next(iter(scalars.values()))) if scalars else len(scales)
    moderate, wide = (grid(oracle.contract, oracle.parameters, runs, width) for width in (MODERATE, WIDE))
    inputs = {name: torch.cat([moderate[name], wide[name]]) for name in moderate}
    answer = oracle.evaluate(inputs, {name: values * 2 for name, values in scalars.items()})
    halves = _normalise(answer).view(2, len(scales), runs // len(scales), -1)  # moderate, wide
    return torch.cat([halves[0], halves[1]], 1)


def _normalise(answer: Answer) -> Tensor:
    """Per run: losses centred, losses and gradients divided by the gradient's norm; non-finite entries become NaN."""
    losses, gradients = answer.losses.double(), answer.gradients.double().flatten(1)  # (R, B), (R, G * B)
    norm = torch.where(gradients.isfinite(), gradients, 0.0).norm(dim=1, keepdim=True)
    norm = torch.where(norm == 0, 1.0, norm)
    good = losses.isfinite()
    mean = torch.where(good, losses, 0.0).sum(1, keepdim=True) / good.sum(1, keepdim=True).clamp(min=1)
    row = torch.cat([(losses - mean) / norm / POINTS, gradients / norm], 1)
    return torch.where(row.isfinite(), row, torch.nan)


def distance(a: Fingerprint, b: Fingerprint) -> float:
    """Largest difference between two fingerprints, relative to the largest entry, over the worst row.

    Infinite where they are finite at different points or have different sizes.
    """
    if [len(r) for r in a.values] != [len(r) for r in b.values]:
        return math.inf
    return float(distances(stack([a]), stack([b])))


def stack(items: Sequence[Fingerprint]) -> Tensor:
    """(items, rows, values) float64. Raises ValueError if their sizes differ."""
    return torch.tensor([f.values for f in items], dtype=torch.float64)


def distances(one: Tensor, table: Tensor) -> Tensor:
    """(items,) distances of one stacked fingerprint, (1, rows, values), to each in a table, as in `distance`."""
    if one.shape[1:] != table.shape[1:]:
        return torch.full((len(table),), math.inf)
    masked = (one.isnan() != table.isnan()).any(2).any(1)
    one, table = one.nan_to_num(0.0), table.nan_to_num(0.0)
    scale = torch.maximum(one.abs().amax(2), table.abs().amax(2)).clamp(min=1e-300)
    gaps = ((one - table).abs().amax(2) / scale).amax(1)
    return torch.where(masked, math.inf, gaps)


def _mean_gaps(one: Tensor, table: Tensor) -> Tensor:
    """(items,) mean relative differences: what the search for a scale descends.

    Unlike `distances` it sees every row, so that rows in which the scale cancels (a hinge far from its kink) do not hide
    the others, and it grows steadily with the error in the scale. Entries that are non-finite in either count as equal.
    """
    scale = torch.maximum(one.abs().nan_to_num(0.0).amax(2), table.abs().nan_to_num(0.0).amax(2)).clamp(min=1e-300)
    return ((one - table).abs().nan_to_num(0.0).mean(2) / scale).mean(1)


def _reaches_zero(gaps: Sequence[float], best: int) -> bool:
    """Whether the gaps around their minimum can belong to a match that lies between two table values.

    Around a match they are V-shaped: with slope s and spacing D, the neighbours sum to 2sD, and the minimum and its nearer
    neighbour to sD. What is missing to that is a floor that no scale removes. At an end of the table nothing is excluded
    but a minimum that is level with its neighbour.
    """
    last = len(gaps) - 1
    if best in (0, last):
        return last < 1 or gaps[best] < _FLAT * gaps[1 if best == 0 else last - 1]
    slope, nearer = (gaps[best - 1] + gaps[best + 1]) / 2, min(gaps[best - 1], gaps[best + 1])
    return (gaps[best] + nearer - slope) / 2 < _FLOOR * slope


@dataclass(frozen=True)
class Match:
    """A known loss that a candidate equals, with its scale scalar multiplied by `scale`."""

    name: str
    scale: float
    distance: float

    def describe(self, scalar: str | None) -> str:
        """``dpo`` or ``dpo, beta x 2``."""
        if scalar is None or abs(self.scale - 1) < 1e-3:
            return self.name
        return f"{self.name}, {scalar} x {self.scale:.4g}"


class KnownLosses:
    """Fingerprints of known losses over a range of scales, to recognise them at another beta.

    Built once per process and contract; each known loss costs one child and one packed call. Raises what the oracle raises.
    """

    def __init__(
        self, server: OracleServer, contract: Contract, known: Mapping[str, tuple[Candidate, tuple[str, ...]]]
    ) -> None:
        self._server, self._contract, self._known = server, contract, known
        low, high = (math.log(s) for s in SCALES)
        steps = range(_COARSE) if contract.scale_scalar else range(0)
        self._scales = sorted({*(math.exp(low + (high - low) * i / (_COARSE - 1)) for i in steps), 1.0})
        self._tables: dict[str, Tensor] = {}  # (scales, rows, values)
        for name in known:
            with self._oracle(name) as oracle:
                self._tables[name] = _table(oracle, self._scales)

    def _oracle(self, name: str) -> LossOracle:
        candidate, parameters = self._known[name]
        return LossOracle(self._server, candidate, self._contract, parameters)

    def match(self, found: Fingerprint) -> Match | None:
        """The known loss that this is a copy of, up to the scale scalar; None if it is new."""
        one = stack([found])
        for name, table in self._tables.items():
            gaps = _mean_gaps(one, table).tolist()
            best = min(range(len(gaps)), key=gaps.__getitem__)
            if gaps[best] < _WORTH_REFINING and _reaches_zero(gaps, best):
                match = self._refine(name, one, best)
                if match.distance < DUPLICATE_DISTANCE:
                    return match
        return None

    def _refine(self, name: str, one: Tensor, best: int) -> Match:
        """Search c between the neighbours of the best coarse value, then compare there."""
        found = Match(name, self._scales[best], math.inf)
        low, high = self._scales[max(best - 1, 0)], self._scales[min(best + 1, len(self._scales) - 1)]
        with self._oracle(name) as oracle:
            while high / low > 1 + 1e-9:
                scales = [low * (high / low) ** (i / (_FINE - 1)) for i in range(_FINE)]
                table = _table(oracle, scales)
                gaps = _mean_gaps(one, table)
                at = int(gaps.argmin())
                found = Match(name, scales[at], float(distances(one, table[at : at + 1])))
                around = gaps[max(at - 1, 0) : at + 2]
                if found.distance < _CLEAR * DUPLICATE_DISTANCE or float(gaps[at]) > _FLAT * float(around.max()):
                    break
                low, high = scales[max(at - 1, 0)], scales[min(at + 1, len(scales) - 1)]
        return found
