"""A small but real configuration of `preference.sentiment`: real reviews, a real classifier, a tiny model, few steps."""

from collections.abc import Iterator
from contextlib import contextmanager

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer

SMALL = {
    "max_texts": 2000,
    "vocabulary": 400,
    "bigrams": 200,
    "prompt_tokens": 2,
    "response_tokens": 6,
    "width": 16,
    "layers": 1,
    "heads": 2,
    "sft_steps": 100,
    "sft_batch": 16,
    "pool_prompts": 40,
    "pool_samples": 4,
    "pool_pairs": 256,
    "betas": [0.1, 0.4, 1.6],
    "train_pairs": 512,
    "steps": 32,
    "batch": 16,
    "kl_budget": 0.2,
    "pool_kl": 0.2,
    "samples": 32,
    "prepare_threads": 1,
}


@contextmanager
def oracle_of(server: OracleServer, objective: str) -> Iterator[LossOracle]:
    """An oracle of a known objective."""
    candidate = known_objective(PAIRS.name, objective).candidate
    with LossOracle(server, candidate, PAIRS, PAIRS.required) as oracle:
        yield oracle
