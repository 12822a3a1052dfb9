"""K policies in each of W worlds: one product serves all, and no value of one enters another.

What a policy emits depends on features of the context, made once by a frozen random recurrent network (a gated recurrent
unit, Cho et al. 2014, arXiv:1406.1078, in the form that applies the reset gate after the product), which reads the prompt
and then the response's tokens:

    r, z = sigmoid(x + h U)[r, z],  n = tanh(x_n + r * (h U_n)),  h' = n + z * (h - n),  features = (h', position, 1)

Logits of the two tokens and EOS are linear in them; these weights, shared by all prompts, are what training moves.
W worlds, C contexts of a prompt, F features, K runs of a world, R = W * K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.responses import Tree

Floats = NDArray[np.float32]


def features(random: np.random.Generator, tree: Tree) -> Floats:
    """(12 * C, F) features of every context of every prompt, prompt-major."""
    reads = random.standard_normal((d.VOCABULARY + d.PROMPTS, 3 * d.WIDTH)).astype(np.float32)
    recurs = random.standard_normal((d.WIDTH, 3 * d.WIDTH)).astype(np.float32)
    recurs *= d.RECURRENT_GAIN / np.sqrt(d.WIDTH)
    states = [_advance(np.zeros((d.PROMPTS, d.WIDTH), np.float32), reads[d.VOCABULARY :], recurs)[:, None]]
    for _ in range(tree.max_length - 1):
        before = np.repeat(states[-1], d.VOCABULARY, 1)  # (12, V^t, H)
        tokens = np.tile(np.arange(d.VOCABULARY), before.shape[1] // d.VOCABULARY)
        states.append(_advance(before, reads[tokens], recurs))
    position = np.zeros((tree.context_count, tree.max_length + 1), np.float32)
    position[np.arange(tree.context_count), tree.lengths[: tree.context_count]] = d.POSITION_FEATURE
    position[:, -1] = d.POSITION_FEATURE
    shared = np.broadcast_to(position, (d.PROMPTS, *position.shape))
    found = np.concatenate([np.concatenate(states, 1), shared], 2)
    return np.ascontiguousarray(found.reshape(-1, found.shape[2]))


def _advance(state: Floats, token: Floats, recurs: Floats) -> Floats:
    """Next state (..., H) after reading tokens whose contributions to the gates are `token` (..., 3H)."""
    from_state = (state.reshape(-1, d.WIDTH) @ recurs).reshape(*state.shape[:-1], 3 * d.WIDTH)
    gates = 1 / (1 + np.exp(-(token + from_state)[..., : 2 * d.WIDTH]))
    new = np.tanh(token[..., 2 * d.WIDTH :] + gates[..., : d.WIDTH] * from_state[..., 2 * d.WIDTH :])
    return np.asarray(new + gates[..., d.WIDTH :] * (state - new), np.float32)


def output_layer(random: np.random.Generator, tree: Tree) -> Floats:
    """(F, 3) weights of a reference or of another source of responses."""
    weights = random.standard_normal((d.WIDTH + tree.max_length + 1, d.SYMBOLS)) * d.OUTPUT_SCALE
    weights[: d.WIDTH, d.EOS] *= d.OUTPUT_SCALE_EOS / d.OUTPUT_SCALE
    offsets = np.linspace(*d.EOS_LOGIT, tree.max_length) / d.POSITION_FEATURE
    weights[d.WIDTH : d.WIDTH + tree.max_length, d.EOS] += offsets
    return weights.astype(np.float32)


@dataclass(frozen=True)
class Batch:
    """M (prompt, response) pairs per world, as the symbols that they emit.

    Attributes:
        contexts: (W, M * T) of each symbol, among those of all prompts.
        symbols: (W, M * T).
        emitted: (W, M * T) 1, or 0 where there is none.
    """

    contexts: Tensor
    symbols: Tensor
    emitted: Tensor

    @classmethod
    def of(cls, prompts: NDArray[np.int64], answers: NDArray[np.int64], tree: Tree, device: torch.device) -> Batch:
        """From indices of shape (W, M)."""
        contexts = prompts[..., None] * tree.context_count + tree.contexts[answers]
        rows = (contexts, tree.symbols[answers], tree.emitted[answers].astype(np.float32))
        return cls(*(torch.from_numpy(r.reshape(len(prompts), -1)).to(device) for r in rows))


def response_logps(features: Tensor, weights: Tensor, batch: Batch, max_length: int) -> Tensor:
    """(R, M) log-probs of responses, each the sum over its emitted symbols.

    Args:
        features: (W, 12 * C, F).
        weights: (W, F, 3, K).
        batch: M responses per world.
        max_length: T.
    """
    worlds, _, _, runs = weights.shape
    rows = features[torch.arange(worlds, device=features.device)[:, None], batch.contexts]  # (W, M * T, F)
    logits = torch.bmm(rows, weights.flatten(2)).view(worlds, -1, d.SYMBOLS, runs)
    emitted = logits.gather(2, batch.symbols[..., None, None].expand(-1, -1, 1, runs)).squeeze(2)
    logps = (emitted - logits.logsumexp(2)) * batch.emitted[..., None]
    by_response = logps.view(worlds, -1, max_length, runs).sum(2)
    return by_response.mT.reshape(worlds * runs, -1)


def all_logps(features: Tensor, weights: Tensor, tree: Tree) -> Tensor:
    """(K, 12, Y) float64 log-probs of every response in one world, by one pass over the tree of contexts.

    Args:
        features: (12 * C, F).
        weights: (F, 3, K). Logits have their precision; normalisation and sums are float64.
    """
    logits = (features @ weights.flatten(1)).view(d.PROMPTS, tree.context_count, d.SYMBOLS, -1).double()
    symbols = torch.log_softmax(logits, 2).permute(3, 0, 1, 2)  # (K, 12, C, 3)
    so_far = symbols.new_zeros(*symbols.shape[:2], 1)  # of contexts
    ends = []
    for length in range(tree.max_length):
        here = symbols[:, :, tree.starts[length] : tree.starts[length + 1]]
        ends.append(so_far + here[..., d.EOS])
        so_far = (so_far.unsqueeze(-1) + here[..., : d.VOCABULARY]).flatten(2)
    return torch.cat([*ends, so_far], 2)
