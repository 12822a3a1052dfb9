"""One trial: train on a seed's pairs, scale every policy to the KL budget, measure it there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluators.preference.sentiment.options import SentimentOptions
from evaluators.preference.sentiment.preparation import Prepared
from evaluators.preference.sentiment.sampling import generator
from evaluators.preference.sentiment.scoring import Placed, Scorer, best_over_betas, height_at
from evaluators.preference.sentiment.training import PairLoss, Trained, train, training_set

Arrays = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Outcome:
    """What one trial found. `placed` has None for a policy that diverged."""

    trained: Trained
    placed: tuple[Placed | None, ...]
    flipped: float
    train_s: float
    evaluate_s: float


def run_trial(
    prepared: Prepared, options: SentimentOptions, loss: PairLoss, seed: int, device: torch.device
) -> Outcome:
    """Train and measure. Raises CandidateError as `train` does."""
    begin = time.monotonic()
    sft = prepared.model(device)
    noise = generator(seed, "pairs")
    data = training_set(sft, prepared.train_prompts, prepared.reward, options.plan, noise)
    trained = train(sft.output_layer, data, options.plan, loss)
    middle = time.monotonic()
    scorer = Scorer(
        sft,
        prepared.pool,
        prepared.reward,
        options.kl_budget,
        options.smallest_share,
        options.samples,
        prepared.eval_prompts,
    )
    placed = scorer.place(trained.layers, trained.alive.tolist(), seed)
    return Outcome(trained, tuple(placed), data.flipped, middle - begin, time.monotonic() - middle)


def metrics_and_arrays(
    outcome: Outcome, options: SentimentOptions
) -> tuple[dict[str, tuple[float, float | None]], Arrays]:
    """Metrics by name, each with its standard error or None, and arrays by name."""
    arrays = _arrays(outcome, options)
    curves, last = arrays["curve_chosen"], max(1, options.steps // 10)  # the end of training: one batch alone is noisy
    reward = _best(arrays["reward"], arrays["reward_stderr"], arrays, options)
    win, win_error = _best(arrays["win_rate"] - 0.5, arrays["win_rate_stderr"], arrays, options)
    sampled = _best(arrays["reward_sampled"], arrays["reward_sampled_stderr"], arrays, options)
    return {
        "reward_at_kl": reward,
        "win_rate_at_kl": (0.5 + win, win_error),
        "reward_at_kl_sampled": sampled,
        "effective_share": (float(np.nanmean(arrays["effective_share"])), None),
        "refused": (float(np.nanmean(arrays["refused"])), None),
        "diverged": (1 - float(outcome.trained.alive.double().mean()), None),
        "chosen_logp_change": (float(np.nanmean(curves[:, -last:])), None),
    }, arrays


def _best(
    gains: NDArray[np.float64], errors: NDArray[np.float64], arrays: Arrays, options: SentimentOptions
) -> tuple[float, float]:
    """Top over betas of gains brought to the budget, and the standard error of the highest."""
    heights = np.array([height_at(options.kl_budget, k, g) for k, g in zip(arrays["kl"], gains, strict=True)])
    heights[np.isnan(arrays["factor"])] = math.nan  # diverged
    error = errors[int(np.nanargmax(heights))]
    return best_over_betas(options.betas, heights), float(np.nan_to_num(error))


def _arrays(outcome: Outcome, options: SentimentOptions) -> Arrays:
    def of_used(name: str) -> NDArray[np.float64]:
        return np.array([getattr(p.used, name) if p else math.nan for p in outcome.placed])

    def of_sampled(name: str) -> NDArray[np.float64]:
        return np.array([getattr(p.sampled, name) if p else math.nan for p in outcome.placed])

    trained = outcome.trained
    return {
        "beta": np.array(options.betas),
        "factor": np.array([p.factor if p else math.nan for p in outcome.placed]),
        "reward": of_used("gain"),
        "reward_stderr": of_used("gain_error"),
        "kl": of_used("kl"),
        "win_rate": of_used("win"),
        "win_rate_stderr": of_used("win_error"),
        "effective_share": np.array([p.share if p else math.nan for p in outcome.placed]),
        "refused": np.array([float(p.refused) if p else math.nan for p in outcome.placed]),
        "reward_sampled": of_sampled("gain"),
        "reward_sampled_stderr": of_sampled("gain_error"),
        "kl_sampled": of_sampled("kl"),
        "curve_loss": trained.loss.double().numpy(),
        "curve_margin": trained.margin.double().numpy(),
        "curve_chosen": trained.chosen_change.double().numpy(),
        "flipped": np.array([outcome.flipped]),
    }
