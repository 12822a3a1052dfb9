"""Behavioural fingerprints: what a loss computes, regardless of how it is written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sandbox.contract import Contract
from sandbox.draws import draw
from sandbox.oracle import Answer, LossOracle
from sandbox.reports import Fingerprint

POINTS = 24
MODERATE, WIDE = 2.5, 50.0  # half-widths of the log-ratios in the two groups of rows
DUPLICATE_DISTANCE = 1e-4
_SEED = 20240612


def grid(contract: Contract, parameters: tuple[str, ...], rows: int, width: float = MODERATE) -> dict[str, Tensor]:
    """Fixed inputs, (rows, POINTS) float64, equal in every row.

    A policy input stays within `width` of its reference, where the contract has one: that is its log-ratio.
    """
    drawn = draw(contract, (POINTS,), _SEED, lambda generator: 2 * width * (_unit(generator) - 0.5))
    return {name: values.expand(rows, -1) for name, values in drawn.items() if name in parameters}


def _unit(generator: torch.Generator) -> Tensor:
    return torch.rand(POINTS, generator=generator, dtype=torch.float64)


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
    return Fingerprint(tuple(tuple(row) for row in table(oracle, (1.0,))[0].tolist()))


def table(oracle: LossOracle, scales: Sequence[float]) -> Tensor:
    """(scales, rows, values): the fingerprint at each scale, from one packed call in float64."""
    scalars = probe_scalars(oracle.contract, scales)
    runs = len(next(iter(scalars.values()))) if scalars else len(scales)
    moderate, wide = (grid(oracle.contract, oracle.parameters, runs, width) for width in (MODERATE, WIDE))
    inputs = {name: torch.cat([moderate[name], wide[name]]) for name in moderate}
    answer = oracle.evaluate(inputs, {name: values * 2 for name, values in scalars.items()})
    rows = _normalise(answer.losses, _of_every_input(answer, oracle))
    halves = rows.view(2, len(scales), runs // len(scales), -1)  # moderate, wide
    return torch.cat([halves[0], halves[1]], 1)


def _of_every_input(answer: Answer, oracle: LossOracle) -> Tensor:
    """(R, G, B) gradients to all of the contract's policy inputs, so that fingerprints of one contract have one size."""
    every = [t.name for t in oracle.contract.tensors if t.carries_gradient]
    read = [t.name for t in oracle.contract.tensors_of(oracle.parameters) if t.carries_gradient]
    gradients = answer.gradients.new_zeros(len(answer.losses), len(every), answer.losses.shape[1])
    gradients[:, [every.index(name) for name in read]] = answer.gradients
    return gradients


def _normalise(losses: Tensor, gradients: Tensor) -> Tensor:
    """Per run: losses centred, losses and gradients divided by the gradient's norm; non-finite entries become NaN."""
    losses, gradients = losses.double(), gradients.double().flatten(1)  # (R, B), (R, G * B)
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
    scale = torch.maximum(one.abs().amax(2), table.abs().amax(2)).clamp(min=1e-30)
    gaps = ((one - table).abs().amax(2) / scale).amax(1)
    return torch.where(masked, math.inf, gaps)
