"""Output layers of policies: log-probs of responses, with gradients where a policy trains.

A layer has V = outputs rows of D + 1 numbers; row i is of token id FIRST_OUTPUT + i, the last column are the biases.
N responses, S response tokens. Next-token distributions are large: where no gradient is needed, they are held in parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from evaluators.preference.sentiment.model import FIRST_OUTPUT, PAD, layer_logits, target_logps

_ROWS = 16  # responses whose distributions are held at once; a core's cache holds them


def parts(count: int) -> Iterator[slice]:
    """Slices of responses to work on at once."""
    return (slice(begin, min(begin + _ROWS, count)) for begin in range(0, count, _ROWS))


@torch.no_grad()
def token_logps(states: Tensor, targets: Tensor, layer: Tensor) -> Tensor:
    """(N, S, D) states, (N, S) tokens -> (N, S) float64 log-probs of the tokens, on the CPU; 0 after the end."""
    scored = []
    for part in parts(len(states)):
        logits = layer_logits(states[part].to(layer.device), layer)
        scored.append(target_logps(logits, targets[part].to(layer.device)).cpu())
    return torch.cat(scored).double() * (targets != PAD)


def picked(values: Tensor, targets: Tensor) -> Tensor:
    """(..., outputs) values, (...) tokens -> (...): that of each token; any where the response has ended."""
    return values.gather(-1, (targets - FIRST_OUTPUT).clamp_min(0).unsqueeze(-1)).squeeze(-1)


def with_ones(states: Tensor) -> Tensor:
    """(..., D) hidden states -> (..., D + 1): what an output layer with its biases is multiplied with."""
    return torch.cat([states, states.new_ones(*states.shape[:-1], 1)], -1)


def response_logps(states: Tensor, targets: Tensor, layer: Tensor) -> Tensor:
    """(N, S, D) states, (N, S) response tokens, an output layer -> (N,) log-probs of the responses, with gradients."""
    return (target_logps(layer_logits(states, layer), targets) * (targets != PAD)).sum(1)
