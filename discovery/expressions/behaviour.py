"""What a tree does, measured in numpy in well under a millisecond: a sieve before the real probe, not instead of it.

The grid has the shape of the sandbox probe's: log-ratios near zero where training happens, wide ones, extremes, and the
start of training, where policy and reference agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from discovery.expressions.trees import BETA, OPS, Array, Node

BETAS = (0.05, 0.2, 0.8)
POINTS = 24
MODERATE, WIDE, EXTREME = 2.5, 50.0, 1e3  # half-widths of the log-ratios
SAME = 1e-3  # largest relative difference of two losses that count as one; stricter than the archive's 1e-4
_SCALES = np.exp(np.linspace(-math.log(16.0), math.log(16.0), 65))
_NEAR = 0.3  # neighbours in the table of scales differ by less than this
_ROUNDS, _FINE = 6, 9
_SHRINKING = 0.7
_SMALLEST_SLOPE, _LARGEST_SLOPE = 1e-4, 1e3  # of the margin, at the start of training
_LARGEST_LOSS = 1e9  # an exponential that is clamped at 20 stays below

Dual = tuple[Any, Any, Any]  # value, derivative along the chosen policy input, along the rejected one


@lru_cache(maxsize=4)
def _grid(width: float) -> dict[str, Array]:
    """(POINTS,) values of the four log-probs; width 0 is the start of training."""
    rng = np.random.default_rng(20240612)
    reference = {side: rng.uniform(-80.0, -5.0, POINTS) for side in ("chosen", "rejected")}
    inputs = {f"reference_{side}_logps": values for side, values in reference.items()}
    inputs |= {
        f"policy_{side}_logps": values + rng.uniform(-width, width, POINTS) for side, values in reference.items()
    }
    return inputs


def evaluate(tree: Node, width: float, betas: Array) -> tuple[Array, Array, Array]:
    """Losses, and their derivatives as all chosen, or all rejected, policy log-probs rise together.

    Args:
        tree: the loss.
        width: half-width of the log-ratios.
        betas: (R,) settings of beta.

    Returns:
        three (R, POINTS) arrays; non-finite where the tree is.
    """
    shape = (len(betas), POINTS)
    known: dict[Node, Dual] = {}
    with np.errstate(all="ignore"):
        value = _dual(tree, _grid(width), betas[:, None], known)
    loss, chosen, rejected = (np.broadcast_to(np.asarray(v, dtype=np.float64), shape) for v in value)
    return loss, chosen, rejected


def _dual(node: Node, inputs: dict[str, Array], betas: Array, known: dict[Node, Dual]) -> Dual:
    found = known.get(node)
    if found is not None:
        return found
    result: Dual
    if node.op == "const":
        result = (node.value, 0.0, 0.0)
    elif node.op == "input":
        is_chosen, is_rejected = node.name == "policy_chosen_logps", node.name == "policy_rejected_logps"
        value = inputs.get(node.name, betas if node.name == "beta" else 0.5)  # 0.5: other scalars, such as progress
        result = (value, float(is_chosen), float(is_rejected))
    else:
        parts = [_dual(a, inputs, betas, known) for a in node.args]
        op = OPS[node.op]
        value = op.value(*(p[0] for p in parts))
        partials = op.partials(*(p[0] for p in parts), value)
        slopes = [sum(_times(partial, part[i]) for partial, part in zip(partials, parts, strict=True)) for i in (1, 2)]
        result = (value, slopes[0], slopes[1])
        if node.op == "mean":
            rows = [np.broadcast_to(r, (len(betas), POINTS)) for r in result]
            result = (rows[0].mean(1, keepdims=True), rows[1].mean(1, keepdims=True), rows[2].mean(1, keepdims=True))
    known[node] = result
    return result


def _times(partial: Any, slope: Any) -> Any:
    """A zero slope stays zero beside an infinite partial derivative, as autograd does not visit it."""
    return 0.0 if isinstance(slope, float) and slope == 0.0 else partial * slope


def defect(tree: Node) -> str | None:
    """Why this tree is not worth a trial, or None: not finite, no gradient, wrong direction, absurd size."""
    if not tree.batched:
        return "no value per example"
    if BETA not in tree.walk():
        return "beta has no effect"
    betas = np.array(BETAS)
    for width in (MODERATE, 0.0, WIDE, EXTREME):
        loss, chosen, rejected = evaluate(tree, width, betas)
        if not all(np.isfinite(a).all() for a in (loss, chosen, rejected)):
            return f"not finite at log-ratios of {width:g}"
        if width == EXTREME:
            break
        if np.abs(loss).max() > _LARGEST_LOSS:
            return f"losses beyond {_LARGEST_LOSS:g}"
        slope = (chosen - rejected).mean(1)  # along the margin
        if width != WIDE and (slope >= 0).any():
            return "descent does not raise the margin"
        if width == 0.0 and not (-slope.max() > _SMALLEST_SLOPE and -slope.min() < _LARGEST_SLOPE):
            return "no usable gradient at the start of training"
    return None


def profile(tree: Node, betas: Array, width: float) -> Array:
    """(R, 3 * POINTS) centred losses and derivatives, each row divided by the norm of its derivatives."""
    loss, chosen, rejected = evaluate(tree, width, betas)
    slopes = np.concatenate([chosen, rejected], axis=1)
    norm = np.sqrt(np.square(slopes).sum(1, keepdims=True)) + 1e-300
    centred = (loss - loss.mean(1, keepdims=True)) / POINTS
    rows: Array = np.concatenate([centred, slopes], axis=1) / norm
    return rows


@lru_cache(maxsize=256)
def _table(tree: Node) -> Array:
    """(scales, betas, values) profiles of a tree at beta * c for all c."""
    betas = (_SCALES[:, None] * np.array(BETAS)[None, :]).reshape(-1)
    return profile(tree, betas, MODERATE).reshape(len(_SCALES), len(BETAS), -1)


def _gaps(rows: Array, table: Array) -> Array:
    scale = np.maximum(np.abs(rows).max(-1), np.abs(table).max(-1)) + 1e-300
    gaps: Array = (np.abs(rows - table).max(-1) / scale).max(-1)
    return np.nan_to_num(gaps, nan=np.inf)


def copies(tree: Node, others: Iterable[Node]) -> bool:
    """Whether `tree` behaves like one of `others` at some multiple of beta (1 included)."""
    rows = profile(tree, np.array(BETAS), MODERATE)[None]
    return any(_is_rescaled(rows, other) for other in others)


def _is_rescaled(rows: Array, other: Node) -> bool:
    gaps = _gaps(rows, _table(other))
    best = int(gaps.argmin())
    closest = float(gaps[best])
    if not closest < _NEAR:
        return False
    low, high = _SCALES[max(best - 1, 0)], _SCALES[min(best + 1, len(_SCALES) - 1)]
    for _ in range(_ROUNDS):
        if closest < SAME:
            return True
        scales = np.geomspace(low, high, _FINE)
        betas = (scales[:, None] * np.array(BETAS)[None, :]).reshape(-1)
        gaps = _gaps(rows, profile(other, betas, MODERATE).reshape(_FINE, len(BETAS), -1))
        at = int(gaps.argmin())
        if float(gaps[at]) > _SHRINKING * closest:
            return False  # around a true match the distance falls with the bracket, four times a round
        closest = float(gaps[at])
        low, high = scales[max(at - 1, 0)], scales[min(at + 1, _FINE - 1)]
    return closest < SAME
