"""Finished trials a second, stored one by one with their metrics and arrays: `python -m benchmarks.archive_writes`.

Each trial is what a campaign does: make it, start an attempt, finish it; every call is its own committed transaction.
"Finishes a second" counts the finishing call alone, "trials a second" all three calls.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from db.archive import Archive
from db.testing_values import TASK, proposal
from evaluators.base import Metric, Timings, TrialReport

METRICS = 20
SEEDS = 2


def one_report(seed: int, generator: np.random.Generator) -> TrialReport:
    """Twenty metrics, a value per world and beta, and two training curves."""
    values = generator.random(METRICS)
    metrics = tuple(Metric("score" if i == 0 else f"metric {i}", float(v), True, "") for i, v in enumerate(values))
    arrays = {
        "points": generator.random((6, 8, 2)).astype("f4"),
        "loss": generator.random(200).astype("f4"),
        "kl": generator.random(200).astype("f4"),
    }
    return TrialReport(seed, metrics, arrays, Timings(0.1, 4.0, 0.5, 0.2), "cpu", 2, {"torch": "2"}, 500.0, 200)


def measure(archive: Archive, reports: list[TrialReport]) -> tuple[list[float], float]:
    """Seconds of each finishing call, and of all calls together."""
    ranks = range(SEEDS)
    campaign = archive.start_campaign("benchmark", {}, task=TASK, metric="score", higher_is_better=True, seeds=ranks).id
    finishing, total = [], 0.0
    for index, report in enumerate(reports):
        made = proposal(index // SEEDS)
        assert made.candidate is not None
        if index % SEEDS == 0:
            archive.record_known(campaign, made)
        start = time.perf_counter()
        trial = archive.ensure_trial(campaign, made.candidate.id, TASK.id, report.seed)
        attempt = archive.start_attempt(trial.id, "slot 0")
        middle = time.perf_counter()
        archive.finish_trial(trial.id, attempt, report)
        end = time.perf_counter()
        finishing.append(end - middle)
        total += end - start
    assert archive.totals(campaign).trials == {"done": len(reports)}
    return finishing, total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--archive", help="URL of an empty database; a temporary SQLite file by default")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        Archive(arguments.archive or Path(folder) / "archive.db", create=True) as archive,
    ):
        finishing, total = measure(archive, [one_report(i % SEEDS, generator) for i in range(arguments.trials)])
    median = float(np.median(finishing))
    print(f"{arguments.trials} trials, {METRICS} metrics and 3 arrays each")
    print(f"finishes a second: {len(finishing) / sum(finishing):.0f} (median call {1e3 * median:.2f} ms)")
    print(f"trials a second:   {arguments.trials / total:.0f} (make, start and finish)")


if __name__ == "__main__":
    main()
