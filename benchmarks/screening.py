"""How well `fidelity: screen` of `preference.enumerable` keeps the order of the known objectives.

discovery objectives bench --seeds 20 --archive runs/bench.db
python -m benchmarks.screening runs/bench.db

A screen trains a part of an exact trial's policies, and no policy depends on what is packed beside it, so its scores are
computed from the archive of a bench run. Printed: Kendall's tau between the means over all seeds of exact trials and the
means over the first seeds of screens, and beside it that of exact trials on the same seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from db.archive import Archive
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.scoring import frontier_area

SEEDS = (1, 2, 4)  # that a screen is asked for
Scores = Mapping[str, NDArray[np.float64]]  # of objectives, by seed


def scores(archive: Archive, campaign: str) -> tuple[Scores, Scores]:
    """Exact and screened scores of every ranked objective of a campaign, (seeds,) each."""
    exact, screened = {}, {}
    for entry in archive.entries(campaign):
        if entry.score is None:
            continue
        done = [t for t in archive.trials(entry.candidate.id, campaign) if t.status == "done"]
        arrays = [archive.arrays(t.id) for t in sorted(done, key=lambda t: t.seed)]
        exact[entry.name] = np.array([a["score"].mean() for a in arrays])
        screened[entry.name] = np.array([screen_of(a) for a in arrays])
    fewest = min(len(v) for v in exact.values())
    return tuple({n: v[:fewest] for n, v in found.items()} for found in (exact, screened))  # type: ignore[return-value]


def screen_of(arrays: Mapping[str, NDArray[Any]]) -> float:
    """Score of the part of a trial that a screen trains."""
    options = EnumerableOptions(fidelity="screen")
    kept = [np.isin(np.asarray(arrays[n], float), v) for n, v in _grid(options).items()]
    found = []
    for name, score, kl, reward in zip(
        arrays["worlds"], arrays["score"], arrays["kl.last"], arrays["reward.last"], strict=True
    ):
        if str(name) in {r.name for r in options.used_regimes}:
            limit = frontier_area(kl, reward, d.KL_BUDGET) / score if score else np.inf
            part = np.ix_(*kept)
            found.append(frontier_area(kl[part], reward[part], d.KL_BUDGET) / limit)
    return float(np.mean(found))


def _grid(options: EnumerableOptions) -> dict[str, list[float]]:
    return {"learning_rates": [*options.used_learning_rates], "betas": [*options.used_betas]}


def agreement(truth: Scores, found: Scores, seeds: int) -> float:
    """Kendall's tau between means over all seeds and means over the first ones."""
    pairs = [(v.mean(), found[name][:seeds].mean()) for name, v in truth.items()]
    return float(kendalltau(*zip(*pairs, strict=True)).statistic)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screening", description=__doc__)
    parser.add_argument("archive", help="of `discovery objectives bench --evaluator preference.enumerable`")
    parser.add_argument("--campaign", help="default: the archive's first")
    wanted = parser.parse_args(arguments)
    with Archive(wanted.archive) as archive:
        exact, screened = scores(archive, wanted.campaign or archive.campaigns()[0].name)
    most = len(next(iter(exact.values())))
    print(f"{len(exact)} objectives; exact: mean of {most} seeds\n\n| seeds | screen | exact |\n|--:|--:|--:|")
    for seeds in (*(s for s in SEEDS if s < most), most):
        values = (agreement(exact, found, seeds) for found in (screened, exact))
        print(f"| {seeds} | {' | '.join(f'{v:.2f}' for v in values)} |")


if __name__ == "__main__":
    main()
