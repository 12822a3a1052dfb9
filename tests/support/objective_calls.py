"""Known objectives called as they are: their exact source, loaded as the oracle child loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.child import load
from sandbox.contract import Conditions, Contract

CONDITIONS = Conditions()
CONTRACTS = {contract.name: contract for contract in (PAIRS, UNPAIRED)}
NAMES = [(contract, name) for contract in CONTRACTS for name in known_objectives(contract)]


@cache
def function(contract: str, name: str) -> Callable[..., Tensor]:
    """The loss function of a known objective."""
    return load(known_objectives(contract)[name].candidate.source, CONTRACTS[contract].function)


def contract_of(name: str) -> Contract:
    """The contract that an objective is written for; names are unique over contracts."""
    return next(CONTRACTS[contract] for contract, known in NAMES if known == name)


def call(name: str, inputs: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses (B,) and the gradients of their mean to the policy inputs, by contract name.

    Args:
        inputs: at least what the objective reads: arrays of shape (B,) (float64 stays, int64 and bool as the contract has
            them), tensors, and floats. Without beta it is 0.1.
    """
    contract = contract_of(name)
    given: dict[str, Any] = {"beta": 0.1}
    for spec in contract.tensors:
        if spec.name in inputs:
            tensor = torch.as_tensor(
                np.asarray(inputs[spec.name]) if not isinstance(inputs[spec.name], Tensor) else inputs[spec.name]
            )
            if spec.dtype != "float32":
                tensor = tensor.to(getattr(torch, spec.dtype))
            given[spec.name] = tensor.clone().requires_grad_(spec.carries_gradient)
    given |= {s.name: float(inputs[s.name]) for s in contract.scalars if s.name in inputs}
    reads = known_objectives(contract.name)[name].inputs
    losses = function(contract.name, name)(**{n: given[n] for n in reads})
    leaves = {t.name: given[t.name] for t in contract.tensors if t.carries_gradient and t.name in reads}
    found = torch.autograd.grad(losses.mean(), list(leaves.values()), allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves.values(), strict=True)]
    return losses.detach(), dict(zip(leaves, gradients, strict=True))


def losses(name: str, **inputs: Any) -> np.ndarray[Any, Any]:
    """The losses alone, as a float64 array."""
    found: np.ndarray[Any, Any] = call(name, inputs)[0].double().numpy()
    return found
