"""How much noise the common pool of `preference.sentiment` leaves in a gain, and in a difference of gains.

    python -m benchmarks.sentiment_pool --objective dpo --objective hinge --seed 0

Trains each objective at one beta, scales it to the KL budget, and prints its gain on the pool and its difference to the
first objective with their standard errors over the pool's prompts; beside them the same by weights of whole responses alone,
and by as many fresh responses of each policy. The preparation is made, or read from `$OBJECTIVE_DISCOVERY_CACHE`. Objectives
are known ones and run in this process.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.preference.sentiment.options import SentimentOptions
from evaluators.preference.sentiment.pool import Estimate, Weights
from evaluators.preference.sentiment.preparation import Prepared
from evaluators.preference.sentiment.sampling import generator, sample
from evaluators.preference.sentiment.steps import Responses, WordValues, steps_of
from evaluators.preference.sentiment.trial import run_trial
from tests.support.inline_oracle import InlineOracle

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Found:
    """One objective's policy at the KL budget: its gain in three ways, and the effective share of the pool."""

    pool: Estimate
    whole: Estimate
    fresh: Estimate
    share: float
    kl: float
    fresh_kl: float


def measured(prepared: Prepared, options: SentimentOptions, name: str, seed: int) -> Found:
    """Train a known objective and measure it."""
    loss = InlineOracle(known_objective(PAIRS.name, name).candidate, PAIRS)
    outcome = run_trial(prepared, options, loss, seed, CPU)
    placed, model, pool = outcome.placed[0], prepared.model(CPU), prepared.pool
    if placed is None:
        raise SystemExit(f"{name} diverged")
    start = model.output_layer
    change = placed.factor * (outcome.trained.layers[0] - start)
    values = WordValues.fitted(prepared.reward, pool.sft_responses(), pool.sft_rewards().flatten())
    (steps,) = steps_of(pool.responses, start, [change], values)
    weights = Weights.of(pool, steps.logps)
    by_pool = weights.gain(steps, values.drawn(pool.responses), pool.gains())
    fresh, fresh_kl = _fresh(prepared, start, change, values, seed)
    return Found(by_pool, weights.mean(pool.gains()), fresh, weights.share(), weights.kl(steps), fresh_kl)


def _fresh(prepared: Prepared, start: Tensor, change: Tensor, values: WordValues, seed: int) -> tuple[Estimate, float]:
    pool, model = prepared.pool, prepared.model(CPU)
    prompts = prepared.eval_prompts.repeat_interleave(pool.rewards.shape[1], 0)
    drawn = sample(model, prompts, generator(seed, "fresh"), pool.sft_logps.shape[1], start + change)
    responses = Responses.drawn(drawn)
    (steps,) = steps_of(responses, start, [change], values)
    gains = prepared.reward(drawn.tokens).view_as(pool.rewards) - pool.baselines[:, -1:]
    weights = Weights.own(steps)
    return weights.gain(steps, values.drawn(responses), gains), weights.kl(steps)


def main() -> None:
    """Print one line for each objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--objective", action="append", required=True, help="a known objective; the first is compared with"
    )
    parser.add_argument("--beta", type=float, default=0.6)
    parser.add_argument("--kl-budget", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    evaluator = SentimentEvaluator({"betas": [given.beta], "kl_budget": given.kl_budget})
    evaluator.prepare()
    assert evaluator._prepared is not None
    first: Found | None = None
    for name in given.objective:
        found = measured(evaluator._prepared, evaluator.options, name, given.seed)
        first = first or found
        print(f"{name}: share {found.share:.2f}, KL {found.kl:.3f}, of fresh responses {found.fresh_kl:.3f}")
        for way in ("pool", "whole", "fresh"):
            own, other = getattr(found, way), getattr(first, way)
            difference = Estimate(own.mean - other.mean, own.parts - other.parts)
            print(
                f"  {way:5} gain {own.mean:+.3f} ± {own.error:.4f}, "
                f"difference to the first {difference.mean:+.3f} ± {difference.error:.4f}"
            )


if __name__ == "__main__":
    main()
