"""Random inputs of a contract, for the probe and for fingerprints."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator, Tensor

from sandbox.contract import Conditions, Contract, ScalarInput, TensorInput

LogRatio = Callable[[Generator, tuple[int, ...]], Tensor]

SCALES = 3  # different values of the scale scalar in the rows of a draw; row r has number r % SCALES
_EDGE = 0.02  # of a scalar's range: the first and the last of its rows lie this near to the ends
_NATS_A_TOKEN = (0.3, 5.0)  # between a confident language model and a bad one


def draw(contract: Contract, shape: tuple[int, ...], seed: int, log_ratio: LogRatio) -> dict[str, Tensor]:
    """One float64 tensor for every tensor input of a contract, whether it is read or not.

    Required inputs come from one generator in contract order; each optional input has a generator of its own. So the values
    of an input depend neither on which inputs a candidate reads nor on which optional inputs the contract has.

    Where a policy input has a bound, the greater of it and its reference is drawn from the ordinary range and the other lies
    below: every log-ratio can be had, and no value comes near the bound.

    Args:
        shape: of each tensor.
        seed: of all generators.
        log_ratio: draws what a policy input is above its reference, from a generator, in that shape.
    """
    common = generator_for(seed)
    drawn: dict[str, Tensor] = {}
    for optional in (False, True):
        specs = [t for t in contract.tensors if t.optional == optional]
        generators = {t.name: generator_for(seed, t.name) if optional else common for t in specs}
        for spec in specs:
            drawn[spec.name] = _uniform(spec, shape, generators[spec.name])
        for spec in specs:
            if spec.reference is not None:
                ratio = log_ratio(generators[spec.name], shape)
                above = ratio.clamp(min=0) if spec.below is not None else torch.zeros_like(ratio)
                drawn[spec.name] = drawn[spec.reference] + (ratio - above)
                drawn[spec.reference] = drawn[spec.reference] - above
    for spec in contract.tensors:
        if spec.tokens_of is not None:
            drawn[spec.name] = _tokens(spec, drawn[spec.name], drawn[spec.tokens_of])
    return drawn


def generator_for(seed: int, purpose: str = "") -> Generator:
    """Random numbers of their own for each purpose: who knows some of them knows nothing of others, or of the seed.

    A generator of torch has 32 bits to start from, which can be found out by trying all.
    """
    key = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(key, "little"))


def _uniform(spec: TensorInput, shape: tuple[int, ...], generator: Generator) -> Tensor:
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
    values = spec.low + (spec.high - spec.low) * unit
    return values if spec.dtype == "float32" else values.round()


def _tokens(spec: TensorInput, uniform: Tensor, summed: Tensor) -> Tensor:
    """Lengths that go with these sums over tokens: an ordinary number of nats for each token."""
    unit = (uniform - spec.low) / (spec.high - spec.low)
    low, high = _NATS_A_TOKEN
    return (summed.abs() / (low * (high / low) ** unit)).round().clamp(spec.low, spec.high)


def draw_scalars(contract: Contract, conditions: Conditions, rows: int) -> dict[str, list[float]]:
    """`rows` values of every scalar, drawn so that no two rows of equal number share one, but for the scale scalar.

    The scale scalar takes `SCALES` of its values in training, a low, a middle and a high one; without such, values drawn
    between its probe values. Of the others, each row has one from its own part of the range between the least and the
    largest probe value, in random order, the first and the last near the ends. Each scalar has a generator of its own.
    """
    found = {}
    for scalar in contract.scalars:
        generator = generator_for(conditions.seed, scalar.name)
        if scalar.name == contract.scale_scalar:
            values = list(_of_training(conditions.scales, generator) or _between(scalar, SCALES, generator))
            found[scalar.name] = [values[row % SCALES] for row in range(rows)]
        else:
            values = list(_between(scalar, rows, generator))
            found[scalar.name] = [values[i] for i in torch.randperm(rows, generator=generator).tolist()]
    return found


def _of_training(scales: Sequence[float], generator: Generator) -> list[float]:
    """One of each third of the values."""
    ordered, picked = sorted(scales), []
    for third in range(SCALES if ordered else 0):
        first = third * len(ordered) // SCALES
        count = max(1, (third + 1) * len(ordered) // SCALES - first)
        picked.append(ordered[first + int(torch.randint(count, (1,), generator=generator))])
    return picked


def _between(scalar: ScalarInput, count: int, generator: Generator) -> Iterator[float]:
    """Rising values, one of each part of the range; evenly in log where the range is positive."""
    low, high = min(scalar.probe_values), max(scalar.probe_values)
    for part, unit in enumerate(torch.rand(count, generator=generator, dtype=torch.float64).tolist()):
        edge = _EDGE if part in (0, count - 1) and count > 1 else 1.0 / count
        share = unit * edge if part == 0 else 1 - unit * edge if part == count - 1 else (part + unit) / count
        yield low * (high / low) ** share if low > 0 and math.isfinite(high / low) else low + (high - low) * share


def log_prob_inputs(contract: Contract) -> list[str]:
    """The policy inputs and their references."""
    policy = [t for t in contract.tensors if t.carries_gradient]
    return [*(t.name for t in policy), *(t.reference for t in policy if t.reference is not None)]


def directions(contract: Contract, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """1 where a good loss raises a required policy input and -1 where it lowers it, of those whose way the contract says."""
    found = {}
    for spec in contract.tensors:
        if spec.carries_gradient and not spec.optional and spec.wanted is not None:
            found[spec.name] = _signs(contract, spec, tensors)
    return found


def _signs(contract: Contract, spec: TensorInput, tensors: dict[str, Tensor]) -> Tensor:
    """In the input's shape."""
    if spec.wanted == "by_label":
        assert contract.label is not None
        return 2 * tensors[contract.label] - 1
    return torch.full_like(tensors[spec.name], 1.0 if spec.wanted == "up" else -1.0)
