"""One trial: train a policy from the SFT weights for each beta, sample from it, measure reward and KL."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.base import training_progress
from evaluators.preference.frontier import upper_concave_hull, value_at
from evaluators.preference.running import MovingMean, RunningMean
from evaluators.preference.sentiment.model import FIRST_OUTPUT, PAD, LanguageModel
from evaluators.preference.sentiment.options import SentimentOptions
from evaluators.preference.sentiment.preparation import Prepared, generator, sample
from sandbox.failure import CandidateError, Failure, FailureKind

if TYPE_CHECKING:
    from sandbox.oracle import LossOracle

BOOTSTRAP = 400  # resamples of the evaluation prompts behind the standard errors of frontier values
_KL_ROWS = 32  # sequences whose full next-token distributions are held at once

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingSet:
    """The pairs one seed trains on, in the order it takes them; the same for every beta.

    Attributes:
        tokens: (pairs, 2, T) chosen first, then rejected.
        logps: (pairs, 2) their log-probs under the reference.
        rewards: (pairs, 2) their rewards.
        preferred: (pairs,) probability that the labelling prefers the chosen one.
        batches: (steps, batch) row numbers.
        flipped: share of pairs whose chosen response has the lower reward (label noise).
    """

    tokens: Tensor
    logps: Tensor
    rewards: Tensor
    preferred: Tensor
    batches: Tensor
    flipped: float


@dataclass(frozen=True)
class Curves:
    """Per step: mean loss, mean margin, mean change of the chosen response's log-prob against the reference (nats)."""

    loss: list[float]
    margin: list[float]
    chosen_change: list[float]


@dataclass(frozen=True)
class Scores:
    """Per evaluation prompt (one response of the policy each).

    Attributes:
        gain: reward minus the mean reward of the SFT model's responses to the same prompt.
        win: share of the SFT model's responses to the same prompt with a lower reward, ties half.
        kl: exact KL of the next-token distributions to the SFT model's, summed along the policy's response (nats).
        log_ratio: log-prob of the response under the policy minus under the SFT model: a noisier estimate of the same KL.
    """

    gain: Floats
    win: Floats
    kl: Floats
    log_ratio: Floats


@dataclass(frozen=True)
class Clock:
    """Seconds spent in training and in evaluation."""

    train_s: float
    evaluate_s: float


def training_set(prepared: Prepared, options: SentimentOptions, seed: int) -> TrainingSet:
    """Draw a seed's subset of the pool, its Bradley-Terry labels and its order of batches."""
    noise = generator(seed, "pairs")
    rows = torch.randperm(len(prepared.pair_tokens), generator=noise)[: options.train_pairs]
    rewards = prepared.pair_rewards[rows]
    preferred = torch.sigmoid(options.label_sharpness * (rewards[:, 0] - rewards[:, 1]))
    first_wins = torch.rand(len(rows), generator=noise, dtype=preferred.dtype) < preferred
    order = torch.stack([~first_wins, first_wins], 1).long()  # column of the chosen, column of the rejected
    each = torch.arange(len(rows)).unsqueeze(1)
    ordered = rewards.gather(1, order)
    batches, queue = [], torch.zeros(0, dtype=torch.int64)
    for _ in range(options.steps):
        if len(queue) < options.batch:  # the rest of a pass too short for a batch is dropped
            queue = torch.randperm(len(rows), generator=noise)
        batches.append(queue[: options.batch])
        queue = queue[options.batch :]
    return TrainingSet(
        tokens=prepared.pair_tokens[rows][each, order],
        logps=prepared.pair_logps[rows].gather(1, order),
        rewards=ordered,
        preferred=torch.where(first_wins, preferred, 1 - preferred),
        batches=torch.stack(batches),
        flipped=float((ordered[:, 0] < ordered[:, 1]).double().mean()),
    )


def train(
    model: LanguageModel, data: TrainingSet, beta: float, options: SentimentOptions, oracle: LossOracle
) -> Curves:
    """Train the policy in place: Adam, warm-up over a tenth of the steps, then linear decay to nothing.

    Raises:
        CandidateError: the candidate failed, or it drove the policy's weights out of the finite numbers.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=options.lr, betas=(0.9, 0.99))
    curves = Curves([], [], [])
    warm_up, running, moving = max(1, options.steps // 10), RunningMean(), MovingMean()
    for step, rows in enumerate(data.batches):
        rate = min((step + 1) / warm_up, (options.steps - step) / max(1, options.steps - warm_up))
        optimiser.param_groups[0]["lr"] = options.lr * rate
        tokens = data.tokens[rows].transpose(0, 1).flatten(0, 1).to(model.device)  # (2 B, T), chosen ones first
        policy = model.sequence_logps(tokens, options.prompt_tokens).view(2, -1)
        if not bool(torch.isfinite(policy).all()):
            raise _diverged(beta, step)
        reference = data.logps[rows].t().to(model.device)
        inputs = {
            "policy_chosen_logps": policy[0:1],
            "policy_rejected_logps": policy[1:2],
            "reference_chosen_logps": reference[0:1],
            "reference_rejected_logps": reference[1:2],
            **_extras(data, rows, options.prompt_tokens, oracle.parameters, model.device),
        }
        log_ratio = policy.detach() - reference
        scalars = {"beta": [beta], "progress": [training_progress(step, options.steps)]}
        if "running_log_ratio" in oracle.parameters:
            scalars["running_log_ratio"] = running.update(log_ratio.reshape(1, -1))
        if "moving_margin" in oracle.parameters:
            scalars["moving_margin"] = moving.update(log_ratio[0:1] - log_ratio[1:2])
        loss = oracle(inputs, scalars).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimiser.step()
        change = log_ratio.mean(1).tolist()
        curves.loss.append(float(loss.detach()))
        curves.margin.append(change[0] - change[1])
        curves.chosen_change.append(change[0])
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise _diverged(beta, options.steps)
    return curves


def _extras(
    data: TrainingSet, rows: Tensor, prompt_tokens: int, reads: Collection[str], device: torch.device
) -> dict[str, Tensor]:
    """Those of the contract's optional tensors that the loss reads, (1, batch) each."""
    found = {}
    if "preference_probability" in reads:
        found["preference_probability"] = data.preferred[rows]
    for side, name in enumerate(("chosen", "rejected")):
        if f"{name}_length" in reads:
            found[f"{name}_length"] = (data.tokens[rows, side, prompt_tokens:] != PAD).sum(1).clamp(min=1)
        if f"{name}_score" in reads:
            found[f"{name}_score"] = data.rewards[rows, side]
    return {name: values[None].to(device) for name, values in found.items()}


def evaluate(policy: LanguageModel, reference: LanguageModel, prepared: Prepared, seed: int) -> Scores:
    """Sample one response per held-out prompt and score it. The sampling noise is a function of the seed alone."""
    steps = prepared.size.context - prepared.eval_prompts.shape[1]
    tokens, _ = sample(policy, prepared.eval_prompts, generator(seed, "evaluation"), steps)
    rewards = prepared.reward(tokens).unsqueeze(1)  # (prompts, 1)
    baseline = prepared.eval_rewards
    win = ((rewards > baseline).double() + 0.5 * (rewards == baseline).double()).mean(1)
    prompt_length = prepared.eval_prompts.shape[1]
    chunks = torch.split(tokens.to(policy.device), _KL_ROWS)
    parts = [divergence(policy, reference, chunk, prompt_length) for chunk in chunks]
    kl, log_ratio = torch.cat([k for k, _ in parts]), torch.cat([r for _, r in parts])
    return Scores(*((x.double().cpu().numpy()) for x in ((rewards - baseline).mean(1), win, kl, log_ratio)))


@torch.no_grad()
def divergence(
    policy: LanguageModel, reference: LanguageModel, tokens: Tensor, prompt_length: int
) -> tuple[Tensor, Tensor]:
    """KL of the policy to the reference along (N, T) sequences that the policy drew.

    Returns:
        (N,) sums over the response of the exact KL between next-token distributions (given the drawn prefix), and (N,)
        log-ratios of the drawn responses. Both estimate the KL of the response distributions without bias; the first
        averages out the choice of each next token (Rao-Blackwell), so its variance is lower, and it is never negative.
    """
    targets = tokens[:, prompt_length:]
    running = targets != PAD  # the end token is a choice of the policy's, too
    log_p, log_q = (
        torch.log_softmax(m.logits(m.hidden(tokens[:, :-1])[:, prompt_length - 1 :]), -1) for m in (policy, reference)
    )
    log_ratio = log_p - log_q  # (N, S, V)
    per_token = (log_p.exp() * log_ratio).sum(-1).clamp_min(0.0)
    drawn = (targets - FIRST_OUTPUT).clamp_min(0).unsqueeze(-1)
    return (per_token * running).sum(1), (log_ratio.gather(-1, drawn).squeeze(-1) * running).sum(1)


def run_betas(
    prepared: Prepared, options: SentimentOptions, oracle: LossOracle, seed: int, device: torch.device
) -> Iterator[tuple[Curves, Scores, Clock, float]]:
    """For each beta: training curves, scores, time, and share of flipped labels."""
    data = training_set(prepared, options, seed)
    reference = prepared.model(device)
    for beta in options.betas:
        begin = time.monotonic()
        policy = prepared.model(device)
        curves = train(policy, data, beta, options, oracle)
        middle = time.monotonic()
        scores = evaluate(policy, reference, prepared, seed)
        yield curves, scores, Clock(middle - begin, time.monotonic() - middle), data.flipped


def frontier_value(kl: Floats, height: Floats, budget: float) -> float:
    """Height of the upper concave hull of (mean KL, mean height) over betas and (0, 0), at a KL budget.

    Args:
        kl, height: (betas, prompts); height is relative to the SFT model.
    """
    points = np.stack([kl.mean(1), height.mean(1)], 1)
    return float(value_at(upper_concave_hull(points), budget))


def frontier_stderr(kl: Floats, height: Floats, budget: float, seed: int) -> float:
    """Standard error of `frontier_value` by bootstrap over evaluation prompts, all betas resampled alike."""
    rng = np.random.default_rng(abs(seed))
    prompts = kl.shape[1]
    picks = rng.integers(0, prompts, (BOOTSTRAP, prompts))
    return float(np.std([frontier_value(kl[:, p], height[:, p], budget) for p in picks], ddof=1))


def standard_error(values: Floats) -> Floats:
    """(..., N) -> (...): standard error of the mean over the last axis."""
    return np.asarray(values.std(-1, ddof=1) / np.sqrt(values.shape[-1]))


def _diverged(beta: float, step: int) -> CandidateError:
    message = f"training with beta {beta:g} drove the policy's log-probs to infinity or NaN by step {step}"
    return CandidateError(Failure(FailureKind.NON_FINITE, message))
