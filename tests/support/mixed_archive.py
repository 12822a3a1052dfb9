"""Archives of campaigns in which losses that see labels alone stand beside losses that are told more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from db.archive import Archive
from db.records import Proposal
from evaluators.base import Metric, Timings, TrialReport
from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from tests.support.small_archive import TASK

SEEDS = (0, 1, 2)
FRESH = (1000, 1001)


def reading(inputs: Sequence[str], scale: float) -> Candidate:
    """An exponential loss of its own scale, with these optional inputs among its parameters."""
    used = "".join(f" + 0 * {name}" for name in inputs)
    return Candidate(
        PAIRS.name,
        f"""import torch


def loss({", ".join([*PAIRS.required, *inputs])}):
    margin = policy_chosen_logps - reference_chosen_logps - policy_rejected_logps + reference_rejected_logps
    return torch.exp(-{scale} * beta * margin){used}
""",
    )


PLAIN = reading((), 1.5)
PLAIN_TOO = reading((), 2.5)
TOLD = reading(("chosen_score", "rejected_score"), 1.5)
TOLD_TOO = reading(("preference_probability",), 1.5)
LOSSES = {"plain_one": PLAIN, "plain_two": PLAIN_TOO, "told_scores": TOLD, "told_softly": TOLD_TOO}
SCORES = {
    "dpo": 0.75, "ipo": 0.5, "odpo": 0.875, "mappo": 0.8125,
    "plain_one": 0.78125, "plain_two": 0.625, "told_scores": 0.9375, "told_softly": 0.84375,
}  # fmt: skip


def make_mixed(
    path: Path, baselines: Sequence[str] = ("dpo", "ipo", "odpo", "mappo"), losses: Sequence[str] = tuple(LOSSES)
) -> Path:
    """A finished campaign `mixed` with these baselines and proposals, each measured on the search's seeds and fresh ones."""
    with Archive(path, create=True) as archive:
        campaign = archive.start_campaign(
            "mixed", {}, task=TASK, metric="frontier", higher_is_better=True, seeds=SEEDS
        ).id
        for index, name in enumerate((*baselines, *losses)):
            known = name in baselines
            candidate = known_objective(PAIRS.name, name).candidate if known else LOSSES[name]
            made = Proposal(
                index, "known" if known else "proposed", "library" if known else "openai", name, f"idea of {name}",
                candidate=candidate, gate=check_source(candidate, PAIRS),
            )  # fmt: skip
            archive.record_known(campaign, made)
            _train(
                archive, campaign, candidate, {s: SCORES[name] + s / 64 + (index % 3) * (s % 2) / 256 for s in SEEDS}
            )
            _train(archive, campaign, candidate, {s: SCORES[name] + (s % 2) / 64 for s in FRESH})
        archive.finish_campaign(campaign)
    return path


def _train(archive: Archive, campaign: int, candidate: Candidate, scores: Mapping[int, float]) -> None:
    for seed, score in scores.items():
        worlds = {"base": score + 1 / 128, "noisy": score - 1 / 128}
        metrics = [Metric("frontier", score, True, "ratio"), Metric("final_kl", 2 - score, False, "nats")]
        metrics += [Metric(f"frontier/{name}", value, True, "ratio") for name, value in worlds.items()]
        trial = archive.ensure_trial(campaign, candidate.id, TASK.id, seed)
        timings = Timings(0.1, 1.5, 0.2, 0.3)
        report = TrialReport(seed, tuple(metrics), {}, timings, "cpu", 1, {"torch": "2.13.0"}, 512.0, 200)
        archive.finish_trial(trial.id, archive.start_attempt(trial.id, "slot 0"), report)
