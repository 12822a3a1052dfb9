"""Responses and their log-probs, in parts of bounded size, from generators that nothing else uses."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from evaluators.preference.sentiment.model import PAD, LanguageModel, layer_logits, response_logps

SAMPLE_ROWS = 512  # responses sampled, or sequences read, at once
_SCORED_ROWS = 32  # responses whose next-token distributions are held at once; a core's cache holds them


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for each seed and purpose."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def sample(
    model: LanguageModel, prompts: Tensor, noise: torch.Generator, steps: int, layer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Responses to (N, P) prompts: (N, P + steps) tokens and (N, steps) log-probs of the drawn tokens, on the CPU.

    `layer` is the output layer of a policy, in the place of the model's own.
    """
    uniforms = torch.rand(len(prompts), steps, generator=noise)
    parts = zip(torch.split(prompts, SAMPLE_ROWS), torch.split(uniforms, SAMPLE_ROWS), strict=True)
    drawn = [model.sample(p.to(model.device), u.to(model.device), layer) for p, u in parts]
    return torch.cat([tokens.cpu() for tokens, _ in drawn]), torch.cat([logps.cpu() for _, logps in drawn])


@torch.no_grad()
def states_of(model: LanguageModel, tokens: Tensor, prompt_length: int) -> Tensor:
    """(N, T) sequences -> (N, S, D) final hidden states of their responses, on the CPU."""
    parts = torch.split(tokens, SAMPLE_ROWS)
    return torch.cat([model.response_states(part.to(model.device), prompt_length).cpu() for part in parts])


@torch.no_grad()
def policy_logps(states: Tensor, targets: Tensor, layer: Tensor) -> Tensor:
    """(N, S, D) states, (N, S) tokens -> (N,) float64 log-probs under a policy's output layer, on the CPU."""
    parts = zip(torch.split(states, _SCORED_ROWS), torch.split(targets, _SCORED_ROWS), strict=True)
    scored = [response_logps(s.to(layer.device), t.to(layer.device), layer).cpu() for s, t in parts]
    return torch.cat(scored).double()


@torch.no_grad()
def divergence(model: LanguageModel, layer: Tensor, tokens: Tensor, prompt_length: int) -> Tensor:
    """KL of a policy, the model with another output layer, to the model, along (N, T) sequences that the policy drew.

    Returns:
        (N,) float64 sums over the response of the exact KL between next-token distributions (given the drawn prefix). Their
        mean estimates the KL of the response distributions without bias; averaging out the choice of each next token
        (Rao-Blackwell) leaves less variance than the mean log-ratio has, and it is never negative.
    """
    return torch.cat([_divergence(model, layer, part, prompt_length) for part in torch.split(tokens, _SCORED_ROWS)])


def _divergence(model: LanguageModel, layer: Tensor, tokens: Tensor, prompt_length: int) -> Tensor:
    states = model.response_states(tokens.to(model.device), prompt_length)
    log_p, log_q = torch.log_softmax(layer_logits(states, layer), -1), torch.log_softmax(model.logits(states), -1)
    per_token = (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0.0)
    running = tokens[:, prompt_length:] != PAD  # the end token is a choice of the policy's, too
    return (per_token.cpu() * running).sum(1).double()
