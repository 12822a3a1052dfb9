"""Responses and their hidden states, in parts of bounded size, from generators that nothing else uses."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from evaluators.preference.sentiment.model import Drawn, LanguageModel

SAMPLE_ROWS = 512  # responses sampled, or sequences read, at once


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for each seed and purpose."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def sample(
    model: LanguageModel, prompts: Tensor, noise: torch.Generator, steps: int, layer: Tensor | None = None
) -> Drawn:
    """Responses to (N, P) prompts, on the CPU. `layer` is the output layer of a policy, in the place of the model's own."""
    uniforms = torch.rand(len(prompts), steps, generator=noise)
    parts = zip(torch.split(prompts, SAMPLE_ROWS), torch.split(uniforms, SAMPLE_ROWS), strict=True)
    drawn = [model.sample(p.to(model.device), u.to(model.device), layer) for p, u in parts]
    return Drawn(*(torch.cat([part.cpu() for part in field]) for field in zip(*drawn, strict=True)))


@torch.no_grad()
def states_of(model: LanguageModel, tokens: Tensor, prompt_length: int) -> Tensor:
    """(N, T) sequences -> (N, S, D) final hidden states of their responses, on the CPU."""
    parts = torch.split(tokens, SAMPLE_ROWS)
    return torch.cat([model.response_states(part.to(model.device), prompt_length).cpu() for part in parts])
