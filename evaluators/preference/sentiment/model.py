"""A small causal language model: transformers' Llama with tied embeddings, an output bias, and sampling from given noise.

No dropout: one forward pass is a deterministic function of weights and tokens. All sequences of a batch have one length
and PAD stands only after the last token that counts, so causal attention needs no padding mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaModel

PAD, UNKNOWN, END = 0, 1, 2
FIRST_OUTPUT = END  # the model never emits PAD or UNKNOWN: its outputs are the token ids from here on


@dataclass(frozen=True)
class ModelSize:
    """Shape of the model. `vocabulary` counts all token ids, special ones included; `context` is in tokens."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    context: int

    @property
    def feed_forward(self) -> int:
        """Width of the gated feed-forward layers: 8/3 of `width` (Shazeer 2020, arXiv:2002.05202), a multiple of 8."""
        return -(-self.width // 3) * 8


class Drawn(NamedTuple):
    """Responses that were sampled.

    Attributes:
        tokens: (N, P + S) token ids of prompts and responses, PAD after END.
        logps: (N, S) log-probs of the response tokens, 0 after END.
        states: (N, S, D) final hidden states that they were drawn from.
    """

    tokens: Tensor
    logps: Tensor
    states: Tensor


class LanguageModel(nn.Module):
    """Next-token distributions over token ids `FIRST_OUTPUT` and up.

    Args:
        size: shape of the model.
        generator: source of the initial weights (a CPU generator; torch's global one is not touched).
    """

    def __init__(self, size: ModelSize, generator: torch.Generator) -> None:
        super().__init__()
        self.size = size
        config = LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.feed_forward,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=size.context,
            attn_implementation="sdpa",
        )
        # the library's own initialiser draws from the global generator; its values are overwritten below, the state is kept
        with torch.random.fork_rng(devices=[]):
            self.transformer = LlamaModel(config)
        self.output_bias = nn.Parameter(torch.empty(size.vocabulary - FIRST_OUTPUT))
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        """Normal(0, 0.02), branch outputs scaled down by the depth (Radford et al. 2019); norms one, biases zero."""
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith("norm.weight"):
                    weight.fill_(1.0)
                elif name.endswith("bias"):
                    weight.zero_()
                else:
                    branch = name.endswith(("o_proj.weight", "down_proj.weight"))
                    std = 0.02 / math.sqrt(2 * self.size.layers) if branch else 0.02
                    weight.normal_(0.0, std, generator=generator)

    @property
    def embedding(self) -> Tensor:
        """(vocabulary, D): word vectors, at the input and at the output."""
        return self.transformer.embed_tokens.weight  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    def hidden(self, tokens: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """(N, T) token ids -> (N, T, D) final hidden states. They follow on what `cache` holds, and are added to it."""
        out = self.transformer(input_ids=tokens, past_key_values=cache, use_cache=cache is not None)
        return out.last_hidden_state  # type: ignore[no-any-return]

    @property
    def output_layer(self) -> Tensor:
        """(outputs, D + 1): a copy. Row i is of token id FIRST_OUTPUT + i, the last column are the biases."""
        return torch.cat([self.embedding[FIRST_OUTPUT:], self.output_bias[:, None]], 1).detach().clone()

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary - FIRST_OUTPUT): entry i is token id FIRST_OUTPUT + i."""
        return F.linear(hidden, self.embedding[FIRST_OUTPUT:], self.output_bias)

    def response_states(self, tokens: Tensor, prompt_length: int) -> Tensor:
        """(N, T) sequences -> (N, T - prompt_length, D): the final hidden states that response tokens are drawn from."""
        return self.hidden(tokens[:, :-1])[:, prompt_length - 1 :]

    def token_logps(self, tokens: Tensor, prompt_length: int) -> Tensor:
        """(N, T) sequences -> (N, T - prompt_length) log-probs of the response tokens; 0 where the response has ended."""
        targets = tokens[:, prompt_length:]
        return self.target_logps(self.response_states(tokens, prompt_length), targets) * (targets != PAD)

    def target_logps(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(..., D) hidden states, (...) next token ids -> (...) log-probs; meaningless at PAD or UNKNOWN."""
        return target_logps(self.logits(hidden), targets)

    @torch.no_grad()
    def sample(self, prompts: Tensor, uniforms: Tensor, layer: Tensor | None = None) -> Drawn:
        """Draw responses at temperature 1, by inversion of the cumulative distribution.

        Args:
            prompts: (N, P) token ids, all of length P.
            uniforms: (N, S) numbers in [0, 1), one per response token: equal numbers and weights give equal responses.
            layer: the output layer of a policy, in the place of the model's own.
        """
        n, steps = uniforms.shape
        cache = DynamicCache(config=self.transformer.config)
        alive = torch.ones(n, dtype=torch.bool, device=prompts.device)
        tokens, logps, states, new = [prompts], [], [], prompts
        for step in range(steps):
            hidden = self.hidden(new, cache)[:, -1]
            states.append(hidden)
            log_p = torch.log_softmax(
                self.logits(hidden) if layer is None else layer_logits(hidden, layer), -1
            )  # (N, V)
            cumulative = log_p.exp().cumsum(-1)
            point = uniforms[:, step : step + 1] * cumulative[:, -1:]
            drawn = torch.searchsorted(cumulative, point, right=True).clamp_max(log_p.shape[1] - 1)  # (N, 1)
            logps.append(log_p.gather(1, drawn).squeeze(1) * alive)
            new = torch.where(alive.unsqueeze(1), drawn + FIRST_OUTPUT, PAD)
            alive = alive & (new.squeeze(1) != END)
            tokens.append(new)
        return Drawn(torch.cat(tokens, 1), torch.stack(logps, 1), torch.stack(states, 1))


def layer_logits(hidden: Tensor, layer: Tensor) -> Tensor:
    """(..., D) final hidden states, an (outputs, D + 1) output layer -> (..., outputs)."""
    return F.linear(hidden, layer[:, :-1], layer[:, -1])


def target_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """(..., outputs) logits, (...) token ids -> (...) log-probs; meaningless at PAD or UNKNOWN."""
    outputs = (targets - FIRST_OUTPUT).clamp_min(0)
    return -F.cross_entropy(logits.flatten(0, -2), outputs.flatten(), reduction="none").view_as(outputs)
