"""After training, a fresh child is asked a few of the calls again: what trained must be the function in the archive."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from evaluators.preference.contract import PAIRS
from evaluators.trial import run_trial
from sandbox.candidate import Candidate
from sandbox.failure import CandidateError, FailureKind
from sandbox.oracle import LossOracle
from sandbox.replay import KEPT, Recorder
from sandbox.server import OracleServer
from tests.support.losses import HEAD, KNOWN, MARGIN

BETA = {"beta": [0.1, 0.4]}


def inputs(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {n: -20 + 5 * torch.randn(2, 16, generator=generator) for n in PAIRS.required[:4]}


def counting(after: int) -> Candidate:
    """DPO for so many calls of one run each, then something else: more patient than any probe.

    It counts on a module of torch, as the gate lets nobody: a module of its own is new in every call.
    """
    body = (
        "    known = [name for name in torch.__dict__ if name == 'seen']\n"
        "    torch.seen = torch.seen + 1 if known else 1\n"
        f"    return -F.logsigmoid(beta * d if torch.seen <= {after} else 3 * beta * d)\n"
    )
    return Candidate(PAIRS.name, HEAD + MARGIN + body)


def train(server: OracleServer, candidate: Candidate, steps: int) -> None:
    with LossOracle(server, candidate, PAIRS, PAIRS.required) as oracle:
        for step in range(steps):
            oracle.evaluate(inputs(step), BETA)
        oracle.replay()


@pytest.mark.parametrize("name", KNOWN)
def test_an_honest_loss_is_replayed_without_a_word(name: str, server: OracleServer) -> None:
    train(server, KNOWN[name], 30)


def test_one_that_changes_during_training_voids_the_trial(server: OracleServer) -> None:
    with pytest.raises(CandidateError) as caught:
        train(server, counting(after=20), 100)
    assert caught.value.failure.kind is FailureKind.CONTRACT
    assert "made again in a fresh process, gives other losses or gradients" in caught.value.failure.message


def test_a_trial_ends_with_the_replay(server: OracleServer) -> None:
    from evaluators.preference.enumerable import EnumerableEvaluator

    evaluator = EnumerableEvaluator({"steps": 20, "betas": [0.1, 0.4], "learning_rates": [0.01], "max_length": 5})
    evaluator.prepare()
    report = run_trial(server, evaluator, KNOWN["dpo"], PAIRS.required, seed=0)
    assert report.sandbox == server.cage
    with pytest.raises(CandidateError, match="in a fresh process"):
        run_trial(server, evaluator, counting(after=20), PAIRS.required, seed=0)


def test_the_sample_is_uniform_and_unpredictable() -> None:
    counts: Counter[int] = Counter()
    for _ in range(2000):
        recorder = Recorder()
        for number in range(1, 21):
            recorder.offer(torch.tensor([float(number)]), (), torch.zeros(1))
        kept = [call.number for call in recorder.shuffled()]
        assert len(set(kept)) == KEPT
        counts.update(kept)
    assert min(counts.values()) > 0.7 * max(counts.values())
    assert set(counts) == set(range(1, 21))


def test_kept_inputs_are_copies() -> None:
    recorder, shared = Recorder(), torch.ones(3)
    recorder.offer(shared, (), torch.zeros(1))
    shared.zero_()
    assert recorder.shuffled()[0].inputs.tolist() == [1, 1, 1]
