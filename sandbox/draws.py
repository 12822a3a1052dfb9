"""Random inputs of a contract, for the probe and for fingerprints."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from sandbox.contract import Contract, TensorInput


def draw(
    contract: Contract, shape: tuple[int, ...], seed: int, log_ratio: Callable[[Generator], Tensor]
) -> dict[str, Tensor]:
    """One float64 tensor for every tensor input of a contract, whether it is read or not.

    Required inputs come from one generator in contract order; each optional input has a generator of its own. So the values
    of an input depend neither on which inputs a candidate reads nor on which optional inputs the contract has.

    Args:
        shape: of each tensor.
        seed: of all generators.
        log_ratio: draws what a policy input is above its reference, in that shape.
    """
    common = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for optional in (False, True):
        specs = [t for t in contract.tensors if t.optional == optional]
        generators = {t.name: _own(t, seed) if optional else common for t in specs}
        for spec in specs:
            drawn[spec.name] = _uniform(spec, shape, generators[spec.name])
        for spec in specs:
            anchor = anchor_of(contract, spec)
            if anchor is not None:
                drawn[spec.name] = drawn[anchor] + log_ratio(generators[spec.name])
    return drawn


def _own(spec: TensorInput, seed: int) -> Generator:
    return torch.Generator().manual_seed(seed + zlib.crc32(spec.name.encode()))


def _uniform(spec: TensorInput, shape: tuple[int, ...], generator: Generator) -> Tensor:
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
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


def log_prob_inputs(contract: Contract) -> list[str]:
    """The policy inputs and their references."""
    policy = [t for t in contract.tensors if t.carries_gradient]
    anchors = (anchor_of(contract, t) for t in policy)
    return [*(t.name for t in policy), *(a for a in anchors if a is not None)]


def directions(contract: Contract, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """For each required policy input, 1 where a good loss raises it and -1 where it lowers it; in the inputs' shape.

    By the contract's label if it has one; otherwise the first input is raised, the second lowered, and nothing is said of
    others.
    """
    required = [t.name for t in contract.tensors if t.carries_gradient and not t.optional]
    if contract.label is not None:
        return {required[0]: 2 * tensors[contract.label] - 1}
    return {name: torch.full_like(tensors[name], sign) for name, sign in zip(required, (1.0, -1.0), strict=False)}
