"""A small causal language model in plain torch, with sampling through a key-value cache.

Pre-norm transformer (LayerNorm, squared ReLU, learned positions, tied embeddings), no dropout: one forward pass is a
deterministic function of weights and tokens. At these sizes a training step takes about 0.6 of the time of transformers'
`LlamaForCausalLM` of equal size on a CPU core, and this evaluator spends almost all of its time in such steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


class _TargetLogProbs(torch.autograd.Function):
    """log softmax(hidden @ embedding[FIRST_OUTPUT:]^T + bias) at given outputs.

    Autograd's own chain (log_softmax, gather) passes over the (N, V) array twice as often; it is a third of a step's time.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, bias: Tensor, outputs: Tensor) -> Tensor:
        logps = torch.log_softmax(F.linear(hidden, embedding[FIRST_OUTPUT:], bias), -1)
        index = outputs.unsqueeze(-1)
        ctx.save_for_backward(hidden, embedding, logps, index)
        return logps.gather(-1, index).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        hidden, embedding, logps, index = ctx.saved_tensors
        weight = grad.unsqueeze(-1)
        # d logp_y / d logits = onehot(y) - p, times the upstream gradient; in a fresh buffer, so that saved ones stay valid
        d_logits = torch.exp(logps).mul_(-weight).scatter_add_(-1, index, weight)
        flat, flat_hidden = d_logits.flatten(0, -2), hidden.flatten(0, -2)
        d_embedding = torch.zeros_like(embedding)
        d_embedding[FIRST_OUTPUT:] = flat.t() @ flat_hidden
        return (flat @ embedding[FIRST_OUTPUT:]).view_as(hidden), d_embedding, flat.sum(0), None


class Block(nn.Module):
    """Self-attention and a feed-forward layer of four times the width, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.ff_norm = nn.LayerNorm(width, bias=False)
        self.ff_in = nn.Linear(width, 4 * width)
        self.ff_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        """(N, T, D) -> (N, T, D). `cache` is (2, N, H, context, D / H), filled up to `start`; this call adds T to it."""
        n, t, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(n, t, 3, self.heads, d // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (N, H, T, D / H)
        if cache is not None:
            cache[0, :, :, start : start + t] = key
            cache[1, :, :, start : start + t] = value
            key, value = cache[0, :, :, : start + t], cache[1, :, :, : start + t]
        # a single new token attends to everything cached; several do so only from an empty cache
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=t > 1)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(n, t, d))
        ff: Tensor = self.ff_out(F.relu(self.ff_in(self.ff_norm(x))).square())
        return x + ff


class LanguageModel(nn.Module):
    """Next-token distributions over token ids `FIRST_OUTPUT` and up.

    Args:
        size: shape of the model.
        generator: source of the initial weights (a CPU generator; torch's global one is not touched).
    """

    def __init__(self, size: ModelSize, generator: torch.Generator) -> None:
        super().__init__()
        self.size = size
        # the layers' own initialisers draw from the global generator; theirs are overwritten below, its state is kept
        with torch.random.fork_rng(devices=[]):
            self.tokens = nn.Embedding(size.vocabulary, size.width)
            self.positions = nn.Embedding(size.context, size.width)
            self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.layers))
            self.norm = nn.LayerNorm(size.width, bias=False)
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
                    branch = name.endswith(("attention_out.weight", "ff_out.weight"))
                    std = 0.02 / math.sqrt(2 * self.size.layers) if branch else 0.02
                    weight.normal_(0.0, std, generator=generator)

    @property
    def device(self) -> torch.device:
        return self.tokens.weight.device

    def hidden(self, tokens: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        """(N, T) token ids at positions start.. -> (N, T, D) final hidden states."""
        x = self.tokens(tokens) + self.positions.weight[start : start + tokens.shape[1]]
        for index, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[index], start)
        return self.norm(x)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary - FIRST_OUTPUT): entry i is token id FIRST_OUTPUT + i."""
        return F.linear(hidden, self.tokens.weight[FIRST_OUTPUT:], self.output_bias)

    def empty_cache(self, n: int) -> Tensor:
        """Keys and values of every layer: (layers, 2, N, H, context, D / H)."""
        s = self.size
        shape = (s.layers, 2, n, s.heads, s.context, s.width // s.heads)
        return torch.empty(shape, device=self.device, dtype=self.tokens.weight.dtype)

    def token_logps(self, tokens: Tensor, prompt_length: int) -> Tensor:
        """(N, T) sequences -> (N, T - prompt_length) log-probs of the response tokens; 0 where the response has ended."""
        targets = tokens[:, prompt_length:]
        hidden = self.hidden(tokens[:, :-1])[:, prompt_length - 1 :]
        return self.target_logps(hidden, targets) * (targets != PAD)

    def target_logps(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(..., D) hidden states, (...) next token ids -> (...) log-probs; meaningless at PAD or UNKNOWN."""
        outputs = (targets - FIRST_OUTPUT).clamp_min(0)
        weight, bias = self.tokens.weight, self.output_bias
        return _TargetLogProbs.apply(hidden, weight, bias, outputs)  # type: ignore[no-any-return, no-untyped-call]

    def sequence_logps(self, tokens: Tensor, prompt_length: int) -> Tensor:
        """(N, T) -> (N,): log-prob of each response, summed over its tokens."""
        return self.token_logps(tokens, prompt_length).sum(1)

    @torch.no_grad()
    def sample(self, prompts: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Draw responses at temperature 1, by inversion of the cumulative distribution.

        Args:
            prompts: (N, P) token ids, all of length P.
            uniforms: (N, S) numbers in [0, 1), one per response token: equal numbers and weights give equal responses.

        Returns:
            (N, P + S) token ids, PAD after END; and (N, S) log-probs of the drawn tokens, 0 after END.
        """
        n, steps = uniforms.shape
        cache = self.empty_cache(n)
        alive = torch.ones(n, dtype=torch.bool, device=prompts.device)
        tokens, logps, new, start = [prompts], [], prompts, 0
        for step in range(steps):
            log_p = torch.log_softmax(self.logits(self.hidden(new, cache, start)[:, -1]), -1)  # (N, V)
            cumulative = log_p.exp().cumsum(-1)
            point = uniforms[:, step : step + 1] * cumulative[:, -1:]
            drawn = torch.searchsorted(cumulative, point, right=True).clamp_max(log_p.shape[1] - 1)  # (N, 1)
            logps.append(log_p.gather(1, drawn).squeeze(1) * alive)
            start += new.shape[1]
            new = torch.where(alive.unsqueeze(1), drawn + FIRST_OUTPUT, PAD)
            alive = alive & (new.squeeze(1) != END)
            tokens.append(new)
        return torch.cat(tokens, 1), torch.stack(logps, 1)
