"""R tiny recurrent language models in stacked tensors: one forward serves all, and no value of one enters another.

A gated recurrent unit (Cho et al. 2014, arXiv:1406.1078, in the form that applies the reset gate after the product) reads
the prompt's two tokens and the response; every parameter is shared by all prompts.

    r, z = sigmoid(x W_rz + h U_rz),  n = tanh(x W_n + r * (h U_n)),  h' = n + z * (h - n),  logits = h' V + b

A token has its own row of W, so W needs no bias. Index r below is the run, p the prompt, b the response in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.preference.enumerable import responses
from evaluators.preference.enumerable.definition import HIDDEN, INIT_SCALE, MAX_LENGTH, PROMPTS, VOCABULARY


@dataclass(frozen=True)
class Parameters:
    """Weights of R models.

    Attributes:
        reads: (R, 4, 3H) what a token adds to the gates, in the order r, z, n.
        recurs: (R, H, 3H) what the state adds to the gates.
        writes: (R, H, 5) state to logits of the four tokens and EOS.
        bias: (R, 5, 1) of the logits.
    """

    reads: Tensor
    recurs: Tensor
    writes: Tensor
    bias: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.reads, self.recurs, self.writes, self.bias]

    def repeat(self, times: int) -> Parameters:
        """Each model `times` times in a row, as new leaves that carry gradient."""
        return Parameters(*(t.detach().repeat_interleave(times, 0).requires_grad_(True) for t in self.tensors()))

    def to(self, device: torch.device) -> Parameters:
        return Parameters(*(t.detach().to(device) for t in self.tensors()))


def initial_parameters(generators: list[np.random.Generator]) -> Parameters:
    """One model per generator, normal weights of deviation INIT_SCALE, no bias."""

    def draw(rows: int, columns: int) -> Tensor:
        weights = [g.standard_normal((rows, columns)) * INIT_SCALE for g in generators]
        return torch.from_numpy(np.stack(weights)).float().requires_grad_(True)

    reads, recurs, writes = draw(VOCABULARY, 3 * HIDDEN), draw(HIDDEN, 3 * HIDDEN), draw(HIDDEN, VOCABULARY + 1)
    bias = torch.zeros(len(generators), VOCABULARY + 1, 1, requires_grad=True)
    return Parameters(reads, recurs, writes, bias)


def _advance(state: Tensor, from_state: Tensor, from_token: Tensor) -> Tensor:
    """Next state (..., H); `from_state` and `from_token` are the two contributions to the gates, (..., 3H)."""
    state_gates, state_new = torch.split_with_sizes(from_state, (2 * HIDDEN, HIDDEN), -1)
    token_gates, token_new = torch.split_with_sizes(from_token, (2 * HIDDEN, HIDDEN), -1)
    reset, keep = torch.sigmoid(state_gates + token_gates).chunk(2, -1)
    return torch.lerp(torch.tanh(torch.addcmul(token_new, reset, state_new)), state, keep)


def _prompt_states(parameters: Parameters) -> Tensor:
    """(R, 12, H) states after the prompt."""
    runs = parameters.reads.shape[0]
    tokens = torch.from_numpy(responses.prompt_one_hot()).to(parameters.reads)  # (2, 12, 4)
    state = parameters.reads.new_zeros(runs, len(PROMPTS), HIDDEN)
    for one_hot in tokens:
        state = _advance(state, torch.bmm(state, parameters.recurs), torch.matmul(one_hot, parameters.reads))
    return state


@dataclass(frozen=True)
class Batch:
    """N (prompt, response) pairs per run as one-hot tensors.

    Attributes:
        prompts: (R, N, 12).
        tokens: (R, 3 * N, 4), position-major.
        targets: (R, 5, 4 * N), position-major.
    """

    prompts: Tensor
    tokens: Tensor
    targets: Tensor

    @classmethod
    def of(cls, prompts: NDArray[np.int64], chosen: NDArray[np.int64], device: torch.device, repeat: int = 1) -> Batch:
        """From indices of shape (R, N); each row is used for `repeat` runs."""
        rows = [
            np.eye(len(PROMPTS), dtype=np.float32)[prompts],
            _position_major(responses.token_one_hot()[chosen]),
            np.ascontiguousarray(_position_major(responses.target_one_hot()[chosen]).swapaxes(1, 2)),
        ]
        return cls(*(torch.from_numpy(row).to(device).repeat_interleave(repeat, 0) for row in rows))


def _position_major(table: NDArray[np.float32]) -> NDArray[np.float32]:
    runs, count, positions, width = table.shape
    return np.ascontiguousarray(table.swapaxes(1, 2)).reshape(runs, positions * count, width)


def response_logps(parameters: Parameters, batch: Batch) -> Tensor:
    """(R, N) log-probs of responses, each the sum over its emitted symbols."""
    runs, count, _ = batch.prompts.shape
    state = torch.bmm(batch.prompts, _prompt_states(parameters))  # (R, N, H)
    from_tokens = torch.bmm(batch.tokens, parameters.reads).chunk(MAX_LENGTH - 1, 1)  # 3 x (R, N, 3H)
    writes = parameters.writes.mT
    logits = [torch.bmm(writes, state.mT)]
    for from_token in from_tokens:
        state = _advance(state, torch.bmm(state, parameters.recurs), from_token)
        logits.append(torch.bmm(writes, state.mT))
    # symbols come before examples so that the softmax over 5 of them runs along contiguous memory: twice as fast
    by_symbol = torch.log_softmax(torch.cat(logits, 2) + parameters.bias, 1)  # (R, 5, 4N)
    return (by_symbol * batch.targets).sum(1).view(runs, MAX_LENGTH, count).sum(1)


def all_logps(parameters: Parameters) -> Tensor:
    """(R, 12, 341) float64 log-probs of every response, by one pass over the tree of prefixes.

    States and logits have the parameters' precision; normalisation and sums are float64.
    """
    runs = parameters.reads.shape[0]
    state = _prompt_states(parameters)  # (R, 12 * 4^level, H)
    so_far = torch.zeros(runs, len(PROMPTS), 1, dtype=torch.float64, device=state.device)  # of prefixes, by prompt
    ends = []
    for level in range(MAX_LENGTH):
        logits = torch.baddbmm(parameters.bias.mT, state, parameters.writes).double()
        symbols = torch.log_softmax(logits, -1).view(runs, len(PROMPTS), -1, VOCABULARY + 1)
        ends.append(so_far + symbols[..., VOCABULARY])
        so_far = (so_far.unsqueeze(-1) + symbols[..., :VOCABULARY]).flatten(2)
        if level < MAX_LENGTH - 1:
            from_state = torch.bmm(state, parameters.recurs).unsqueeze(2)  # (R, n, 1, 3H)
            children = _advance(state.unsqueeze(2), from_state, parameters.reads.unsqueeze(1))  # (R, n, 4, H)
            state = children.flatten(1, 2)
    return torch.cat([*ends, so_far], 2)
