"""Behavioural fingerprints: what a loss computes, regardless of how it is written.

They are taken as training calls a loss, at the training's own batch size and values of the scale scalar, and at values drawn
from a secret: nobody who writes a loss can know where it is compared. What may change from call to call in training
(progress, running statistics) differs from row to row, so two losses with equal fingerprints are equal throughout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from sandbox.contract import Conditions, Contract
from sandbox.draws import SCALES, draw, draw_scalars
from sandbox.failure import CandidateError, Failure, FailureKind
from sandbox.frames import Answer
from sandbox.oracle import LossOracle
from sandbox.reports import Fingerprint

MODERATE, WIDE = 2.5, 50.0  # half-widths of the log-ratios in the two groups of rows
DUPLICATE_DISTANCE = 1e-4
SINGLE_DISTANCE = (
    3e-4  # the same where float32 is all there is; its rounding moves all but saturated rows by less than 1e-4
)
_LEAST = 24  # examples at each value of the scale scalar, in as many rows as that takes
PRECISION = 1e-3  # largest distance between the same loss in float32 and in float64
_RAISED = re.compile(r"((?:line \d+: )?\w+)(?:: |$)")  # how a failure begins that holds the text of an error
NOT_PROMISED = frozenset({FailureKind.CRASH, FailureKind.CONTRACT})  # what float64 may lead to: float32 was promised


@dataclass(frozen=True)
class Calls:
    """Inputs (R, B) float64 and scalars (R) by name; log-ratios are moderate in the first half of the rows, then wide."""

    tensors: dict[str, Tensor]
    scalars: dict[str, list[float]]

    @property
    def rows(self) -> int:
        return len(next(iter(self.tensors.values())))

    def scaled(self, scalar: str | None, factors: Sequence[float]) -> Calls:
        """All rows once for each factor of that scalar, back to back."""
        tensors = {name: t.repeat(len(factors), 1) for name, t in self.tensors.items()}
        scalars = {
            name: [v * (c if name == scalar else 1.0) for c in factors for v in values]
            for name, values in self.scalars.items()
        }
        return Calls(tensors, scalars)


@dataclass(frozen=True)
class Rows:
    """Normalised behaviour, for each of S scales and R rows.

    Attributes:
        values: (S, R, V) losses, centred, over the batch size, then gradients; both over the gradient's norm. NaN where not
            finite.
        norms: (S, R) of the gradients.
        levels: (S, R) mean losses over those norms.
    """

    values: Tensor
    norms: Tensor
    levels: Tensor

    def __getitem__(self, key: Any) -> Rows:
        """Some scales, or some rows of them: indexes the axes that all three have."""
        return Rows(self.values[key], self.norms[key], self.levels[key])

    def losses(self, batch: int) -> Rows:
        """The losses alone, not centred, each row divided by its norm."""
        found = self.values[..., :batch] * batch + self.levels.unsqueeze(-1)
        norms = found.nan_to_num(0.0).norm(dim=-1)
        return Rows(found / norms.clamp(min=1e-30).unsqueeze(-1), norms * self.norms, torch.zeros_like(norms))


def calls(contract: Contract, conditions: Conditions) -> Calls:
    """The inputs that fingerprints are taken at under these conditions, for every input of the contract."""
    half = SCALES * max(1, -(-_LEAST // conditions.batch))
    parts = [
        draw(contract, (half, conditions.batch), conditions.seed + i, _uniform_within(width))
        for i, width in enumerate((MODERATE, WIDE))
    ]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Calls(tensors, draw_scalars(contract, conditions, 2 * half))


def fingerprint(oracle: LossOracle, conditions: Conditions) -> Fingerprint:
    """The candidate's fingerprint, in float64 if it works there, and in float32, which is what training uses.

    Moderate rows tell shapes apart where training happens; wide ones tell a hinge at a small beta from a straight line. Both
    are normalised by themselves, so that an exponential's tail does not drown the rest.

    The float64 numbers have the digits to compare by. Where they are not those of the float32 loss, that one comes first:
    it is what trains. Raises what the oracle raises in float32, without texts that the candidate could write values into.
    """
    try:
        single = _as_fingerprint(table(oracle, (1.0,), conditions, torch.float32), conditions, True)
    except CandidateError as error:
        raise CandidateError(_without_values(error.failure)) from None
    try:
        double = _as_fingerprint(table(oracle, (1.0,), conditions), conditions, False)
    except CandidateError as error:
        if error.failure.kind not in NOT_PROMISED:
            raise
        return single
    return replace(double, other=single) if _one_function(double, single) else replace(single, other=double)


def _without_values(failure: Failure) -> Failure:
    """A failure that whoever wrote the candidate may read: an error's text, or a wrong shape, could hold the inputs."""
    raised = _RAISED.match(failure.message)
    if raised is None and failure.kind is not FailureKind.CONTRACT:  # in our own words
        return failure
    what = raised.group(1) if raised is not None else "a result that breaks the contract"
    return Failure(failure.kind, f"{what} at inputs that were drawn in secret; what it says is kept back")


def _as_fingerprint(rows: Rows, conditions: Conditions, single: bool) -> Fingerprint:
    values = tuple(tuple(row) for row in rows.values[0].tolist())
    return Fingerprint(values, conditions, tuple(rows.norms[0].tolist()), tuple(rows.levels[0].tolist()), single)


def _one_function(double: Fingerprint, single: Fingerprint) -> bool:
    """Whether both precisions agree in every row that float32 has the range for."""
    a, b = stack([double]), stack([single])
    within = b.isfinite().all(2)[0]
    return float(distances(a[:, within], b[:, within])) < PRECISION if bool(within.any()) else False


def table(
    oracle: LossOracle, scales: Sequence[float], conditions: Conditions, dtype: torch.dtype = torch.float64
) -> Rows:
    """The fingerprint at each scale, from one packed call; (S, R, V) and (S, R) float64."""
    contract = oracle.contract
    asked = calls(contract, conditions).scaled(contract.scale_scalar, scales)
    read = {name: asked.tensors[name].to(dtype) for name in oracle.parameters if name in asked.tensors}
    answer = oracle.evaluate(read, asked.scalars)
    values, norms, levels = _normalise(answer.losses, _of_every_input(answer, oracle))
    shape = (len(scales), asked.rows // len(scales))
    return Rows(values.view(*shape, -1), norms.view(shape), levels.view(shape))


def _uniform_within(width: float) -> Callable[[Generator, tuple[int, ...]], Tensor]:
    return lambda generator, shape: width * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)


def _of_every_input(answer: Answer, oracle: LossOracle) -> Tensor:
    """(R, G, B) gradients to all of the contract's policy inputs, so that fingerprints of one contract have one size."""
    every = [t.name for t in oracle.contract.tensors if t.carries_gradient]
    read = [t.name for t in oracle.contract.tensors_of(oracle.parameters) if t.carries_gradient]
    gradients = answer.gradients.new_zeros(len(answer.losses), len(every), answer.losses.shape[1])
    gradients[:, [every.index(name) for name in read]] = answer.gradients
    return gradients


def _normalise(losses: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per run: the values of `Rows`, the gradient's norm, and the mean loss over it."""
    batch = losses.shape[1]
    losses, gradients = losses.double(), gradients.double().flatten(1)  # (R, B), (R, G * B)
    norms = torch.where(gradients.isfinite(), gradients, 0.0).norm(dim=1)
    divisor = torch.where(norms == 0, 1.0, norms)[:, None]
    good = losses.isfinite()
    mean = torch.where(good, losses, 0.0).sum(1, keepdim=True) / good.sum(1, keepdim=True).clamp(min=1)
    values = torch.cat([(losses - mean) / divisor / batch, gradients / divisor], 1)
    return torch.where(values.isfinite(), values, torch.nan), norms, (mean / divisor).squeeze(1)


def tolerance(*prints: Fingerprint) -> float:
    """Fingerprints nearer to each other than this belong to one loss."""
    return SINGLE_DISTANCE if any(p.single for p in prints) else DUPLICATE_DISTANCE


def distance(a: Fingerprint, b: Fingerprint) -> float:
    """Largest difference between two fingerprints, relative to the largest entry, over the worst row.

    Infinite where they are finite at different points, have different sizes, or were taken under different conditions.
    """
    if a.conditions != b.conditions or [len(r) for r in a.values] != [len(r) for r in b.values]:
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
