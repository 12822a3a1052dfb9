"""How much of the noise of `preference.sentiment` the common pool takes away.

    python -m benchmarks.sentiment_pool --objective dpo --objective hinge --seed 0

Trains each objective at one beta, scales it to the KL budget, and prints its gain, its difference to the first objective,
and the standard errors over the pool's prompts; beside them the standard error that as many fresh responses of each policy
leave. The preparation is made, or read from `$OBJECTIVE_DISCOVERY_CACHE`. Objectives are known ones and run in this process.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.preference.sentiment.options import SentimentOptions
from evaluators.preference.sentiment.pool import Weights
from evaluators.preference.sentiment.preparation import Prepared
from evaluators.preference.sentiment.trial import run_trial
from tests.support.inline_oracle import InlineOracle


def placed(prepared: Prepared, options: SentimentOptions, name: str, seed: int) -> tuple[Weights, Tensor]:
    """Weights of a known objective's policy at the KL budget, and the gains of the pool's responses."""
    loss = InlineOracle(known_objective(PAIRS.name, name).candidate, PAIRS)
    outcome = run_trial(prepared, options, loss, seed, torch.device("cpu"))
    found, start = outcome.placed[0], prepared.model(torch.device("cpu")).output_layer
    if found is None:
        raise SystemExit(f"{name} diverged")
    layer = start + found.factor * (outcome.trained.layers[0] - start)
    return Weights.of(prepared.pool, prepared.pool.logps(layer)), prepared.pool.gains()


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
    first: Tensor | None = None
    for name in given.objective:
        weights, gains = placed(evaluator._prepared, evaluator.options, name, given.seed)
        mean, _ = weights.mean(gains)
        parts = (weights.policy * (gains - mean)).sum(1) / weights.policy.sum()  # what each prompt adds to the error
        first = parts if first is None else first
        spread = weights.mean((gains - mean).square())[0] ** 0.5
        print(
            f"{name}: gain {mean:.3f} ± {float(parts.norm()):.4f}, share {weights.share():.2f}; difference to the first "
            f"± {float((parts - first).norm()):.4f}, by as many fresh responses ± {spread * (2 / gains.numel()) ** 0.5:.4f}"
        )


if __name__ == "__main__":
    main()
