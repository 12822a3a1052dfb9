"""What a policy does along responses, token by token: the quantities that its KL and its reward are summed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluators.preference.sentiment.model import FIRST_OUTPUT, PAD, Drawn, LanguageModel
from evaluators.preference.sentiment.output_layer import parts, picked, with_ones
from evaluators.preference.sentiment.reward import SentimentReward
from evaluators.preference.sentiment.sampling import states_of


@dataclass(frozen=True)
class Responses:
    """N responses of at most S tokens, PAD after the end.

    Attributes:
        states: (N, S, D) final hidden states of the transformer, which no policy changes.
        targets: (N, S) tokens.
        previous: (N, S) the token before each of them.
    """

    states: Tensor
    targets: Tensor
    previous: Tensor

    @classmethod
    def of(cls, model: LanguageModel, tokens: Tensor, prompt_length: int) -> Responses:
        """Of (N, T) sequences of prompt and response."""
        states = states_of(model, tokens, prompt_length)
        return cls(states, tokens[:, prompt_length:].contiguous(), tokens[:, prompt_length - 1 : -1].contiguous())

    @classmethod
    def drawn(cls, drawn: Drawn) -> Responses:
        """Of responses that were just sampled."""
        length = drawn.logps.shape[1]
        return cls(drawn.states, drawn.tokens[:, -length:].contiguous(), drawn.tokens[:, -length - 1 : -1].contiguous())

    def __getitem__(self, rows: Tensor) -> Responses:
        return Responses(self.states[rows], self.targets[rows], self.previous[rows])


@dataclass(frozen=True)
class WordValues:
    """What a word adds to the reward, about: a part of the reward whose mean over the next word can be computed.

    Attributes:
        table: (words, outputs) float32: of each output after each word.
    """

    table: Tensor

    @classmethod
    def fitted(cls, reward: SentimentReward, responses: Responses, rewards: Tensor) -> WordValues:
        """Coefficient times idf of the word and of the bigram, by one common factor: the best for (N,) `rewards`.

        What the reward has beyond, its division by the length of the vector of counts, stays out.
        """
        weighted = (reward.coef * reward.idf).float()
        table = weighted[: reward.words].expand(reward.words, -1).clone()
        table[reward.bigrams // reward.words, reward.bigrams % reward.words] += weighted[reward.words :]
        values = cls(table[:, FIRST_OUTPUT:].contiguous())
        values.table[:, 0] = 0.0  # the end token is no word
        sums = values.drawn(responses).sum(1)
        slope = ((sums - sums.mean()) * rewards).sum() / (sums - sums.mean()).square().sum().clamp_min(1e-12)
        return cls(values.table * slope.float())

    def drawn(self, responses: Responses) -> Tensor:
        """(N, S) float64 values of the responses' own words, 0 where they have ended."""
        own = self.table[responses.previous, (responses.targets - FIRST_OUTPUT).clamp_min(0)]
        return own.double() * (responses.targets != PAD)


@dataclass(frozen=True)
class Steps:
    """(N, S) float64 each, 0 where a response has ended.

    Attributes:
        logps: log-prob of the token under the policy.
        divergence: KL of the policy's next-token distribution to the SFT model's, nats.
        expected: mean value of the next word under the policy.
    """

    logps: Tensor
    divergence: Tensor
    expected: Tensor


@torch.no_grad()
def steps_of(responses: Responses, start: Tensor, changes: Sequence[Tensor], values: WordValues) -> list[Steps]:
    """Steps of the policies with the output layers `start + change`; that of the SFT model is `start`."""
    found: list[list[Tensor]] = [[] for _ in changes]
    table, layers = values.table.to(start.device), [change.t() for change in changes]
    for part in parts(len(responses.targets)):
        targets = responses.targets[part].to(start.device)
        hidden = with_ones(responses.states[part].to(start.device)).flatten(0, 1)
        value = table[responses.previous[part].to(start.device).flatten()]
        sft = hidden @ start.t()
        sft_scale = sft.logsumexp(1)
        for layer, steps in zip(layers, found, strict=True):
            shift = hidden @ layer
            logits = sft + shift
            highest = logits.amax(1, keepdim=True)
            own = picked(logits, targets.flatten())
            powers = logits.sub_(highest).exp_()
            total = powers.sum(1)
            scale = total.log() + highest.squeeze(1)  # log of the sum of the logits' powers
            divergence = shift.mul_(powers).sum(1) / total - scale + sft_scale
            expected = powers.mul_(value).sum(1) / total
            steps.append(torch.stack([own - scale, divergence.clamp_min(0.0), expected]).view(3, *targets.shape).cpu())
    running = responses.targets != PAD  # the end token is a choice of the policy's, too
    return [Steps(*(torch.cat(steps, 1).double() * running).unbind()) for steps in found]
