"""A difference has one interval, wherever it is shown: that which holds for all losses that were compared, shown or not."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.archive import Archive
from db.records import Proposal
from discovery.browse.standing import board
from discovery.effects import metrics_of, own_effect
from discovery.leaderboard import TOP
from discovery.web.candidate import candidate
from discovery.web.overview import live
from discovery.web.rendering import page
from evaluators.base import Metric, MetricSpec, Provenance, Task, Timings, TrialReport
from evaluators.objectives import known_objective
from evaluators.plugins import load_plugin, plugin_names
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from tests.support.command import discovery

TASK = Task("preference.enumerable", 1, {}, Provenance("planted", "Apache-2.0", "ab" * 32))
WORLDS = ("base", "little_data", "off_policy")
CANDIDATE = {"archive": "a", "version": "1", "plotly": "1", "style_ids": ()}
LOSSES, SEEDS, FRESH = TOP + 4, (0, 1, 2, 3), (1000, 1001, 1002, 1003)


def report(seed: int, values: dict[str, float], shift: float = 0.0) -> TrialReport:
    mean = sum(values.values()) / len(values) + shift
    parts = (Metric(f"frontier/{w}", v, True, "ratio") for w, v in values.items())
    metrics = (Metric("frontier", mean, True, "ratio"), Metric("final_kl", 1.0 + 0.01 * seed, False, "nats"), *parts)
    return TrialReport(seed, metrics, {}, Timings(0, 1, 0, 0), "cpu", 1, {}, 1.0, 1)


def make(path: Path, shift: float = 0.0) -> Path:
    """Many losses that are about as good as dpo, two of them promoted. `shift`: the metric is not the mean of its worlds."""
    draw = random.Random(0)
    with Archive(path, create=True) as archive:
        settings = {"promotions": [{"evaluator": TASK.evaluator}]}
        campaign = archive.start_campaign(
            "many", settings, task=TASK, metric="frontier", higher_is_better=True, seeds=SEEDS
        ).id
        shared = {(s, w): draw.gauss(0.7, 0.05) for s in (*SEEDS, *FRESH) for w in WORLDS}

        def train(candidate: Candidate, seeds: tuple[int, ...], level: float) -> None:
            for seed in seeds:
                values = {w: shared[seed, w] + level + draw.gauss(0, 0.01) for w in WORLDS}
                trial = archive.ensure_trial(campaign, candidate.id, TASK.id, seed)
                found = report(seed, values, shift * (seed + 1))
                archive.finish_trial(trial.id, archive.start_attempt(trial.id, "w"), found)

        for index, (name, level) in enumerate({"dpo": 0.0, "ipo": -0.05}.items()):
            one = known_objective(PAIRS.name, name)
            archive.record_known(campaign, Proposal(index, "known", "library", name, "", candidate=one.candidate))
            train(one.candidate, (*SEEDS, *FRESH) if name == "dpo" else SEEDS, level)
        source = known_objective(PAIRS.name, "dpo").candidate.source
        for index in range(LOSSES):
            one_of = Candidate(PAIRS.name, f"{source}\n# {index}\n")
            made = Proposal(index + 2, "proposed", "evolve", f"m{index}", "", candidate=one_of)
            made = replace(made, gate=check_source(one_of, PAIRS))
            archive.record_verdict(archive.record_reply(campaign, replace(made, candidate=None, gate=None)), made)
            train(one_of, (*SEEDS, *FRESH) if index < 2 else SEEDS, 0.002 * index)
        archive.finish_campaign(campaign)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("boards") / "many.db")


def stages(archive: Path) -> list[dict[str, Any]]:
    found = discovery("leaderboard", "many", "--archive", archive, "--json")
    assert found.code == 0, found.error
    values: list[dict[str, Any]] = json.loads(found.stdout)["stages"]
    return values


def test_the_intervals_of_a_board_hold_for_all_that_was_compared_also_for_what_is_not_shown(archive: Path) -> None:
    search, promotion = stages(archive)
    families = [row["difference"]["family"] for row in search["rows"] if row["difference"]]
    assert len(families) == TOP + 1
    assert {(f["size"], f["method"], f["draws"]) for f in families} == {(LOSSES + 1, "max-T", 2048)}
    assert all(0.05 / (LOSSES + 1) < f["error"] < 0.05 for f in families)
    again = [row["difference"] for row in promotion["rows"] if row["difference"]]
    assert [(d["family"]["size"], d["family"]["method"]) for d in again] == [(2, "Holm")] * 2
    assert all(0 <= d["p"] <= 1 for d in again)


def test_terminal_compare_export_and_dashboard_show_the_interval_of_the_board(archive: Path) -> None:
    search, promotion = stages(archive)
    leading = next(r for r in search["rows"] if r["difference"] and not r["is_baseline"])
    name, at = leading["name"], ("--archive", archive)
    (other,) = json.loads(discovery("compare", "dpo", name, *at, "--json").stdout)["others"]
    compared = {m["metric"]: m["difference"] for m in other["measured"][0]["metrics"]}
    assert compared["frontier"] | {"p": None} == leading["difference"] | {"p": None}
    assert compared["final_kl"]["family"]["method"] == "alone"
    exported = json.loads(discovery("export", name, "--format", "json", *at).stdout)
    versus = {v["name"]: v["difference"] for v in exported["measurements"][0]["versus"]}
    assert versus["dpo"] | {"p": None} == leading["difference"] | {"p": None}
    low, high = (leading["difference"][end] for end in ("low", "high"))
    assert f"95% simultaneous interval [{low:.4g}, {high:.4g}]" in discovery("export", name, *at).stdout
    with Archive(archive) as stored:
        (tile, *_) = live(stored, "many")["tiles"]
    assert f"[{low:+.4f}, {high:+.4f}]" in tile["note"]
    promoted = next(r for r in promotion["rows"] if r["difference"])
    (beside,) = json.loads(discovery("compare", "dpo", promoted["name"], *at, "--json").stdout)["others"]
    again = next(m for m in beside["measured"] if not m["ranks"])
    assert again["metrics"][0]["difference"] | {"p": None} == promoted["difference"] | {"p": None}


def test_of_too_many_losses_to_wait_for_their_dependence_bonferroni_is_said(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("ranking", "leaderboard"):
        monkeypatch.setattr(f"discovery.{module}.MOST", LOSSES)
    search, promotion = stages(archive)
    found = [row["difference"] for row in search["rows"] if row["difference"]]
    assert len(found) == TOP + 1
    family = {"size": LOSSES + 1, "method": "Bonferroni", "error": 0.05 / (LOSSES + 1), "draws": 0}
    assert all(d["family"] == family for d in found)
    assert all(d["n"] == len(SEEDS) * len(WORLDS) for d in found)
    leading = next(r for r in search["rows"] if r["difference"] and not r["is_baseline"])
    at = ("--archive", archive, "--json")
    (other,) = json.loads(discovery("compare", "dpo", leading["name"], *at).stdout)["others"]
    assert other["measured"][0]["metrics"][0]["difference"] | {"p": None} == leading["difference"] | {"p": None}
    assert {r["difference"]["family"]["method"] for r in promotion["rows"] if r["difference"]} == {"Holm"}


def test_the_confidence_is_called_simultaneous_where_it_is(archive: Path) -> None:
    text = discovery("leaderboard", "many", "--archive", archive, "--regimes").stdout
    assert "vs dpo [95% simultaneous]" in text
    said = " ".join(text.split())
    assert f"all of a table hold at once, {LOSSES + 1} (by max-T), then 2 (by Holm)" in said
    assert "search: frontier by world, each 95% interval by itself" in said
    worlds = stages(archive)[0]["rows"][0]["worlds"]
    assert {w["difference"]["family"]["method"] for w in worlds if w["difference"]} == {"alone"}
    shown = " ".join(discovery("show", "m0", "--archive", archive).stdout.split())
    assert "by world, each interval by itself" in shown
    assert "95% interval vs dpo [95%]" in shown
    (regimes, _) = json.loads(discovery("show", "m0", "--archive", archive, "--json").stdout)["regimes"]
    assert [r["world"] for r in regimes["rows"]] == list(WORLDS)
    of_board = [w["difference"] for r in stages(archive)[0]["rows"] if r["name"] == "dpo" for w in r["worlds"]]
    assert of_board == [None] * 3
    assert all(r["difference"]["n"] == len(SEEDS) and r["difference"]["family"]["size"] == 1 for r in regimes["rows"])
    with Archive(archive) as stored:
        page_of = page("candidate.html", CANDIDATE | candidate(stored, "m0", None))
    assert page_of.count("minus dpo, each by itself") == 2


def test_worlds_pair_only_where_the_metric_is_their_mean(tmp_path: Path) -> None:
    """Else the interval would be of another mean than the one that ranks."""
    other = make(tmp_path / "shifted.db", shift=0.01)
    with Archive(other) as stored:
        search = board(stored, "many").stages[0]
    leading = next(r for r in search.rows if r.is_baseline and r.difference is None)
    for row in search.rows:
        if row.difference is not None:
            assert row.difference.n == len(SEEDS)
            assert row.difference.mean == pytest.approx(row.mean - leading.mean)
    (beside,) = json.loads(discovery("compare", "dpo", "m0", "--archive", other, "--json").stdout)["others"]
    assert beside["measured"][0]["metrics"][0]["difference"]["n"] == len(SEEDS)


@pytest.mark.parametrize("name", plugin_names("evaluators"))
def test_what_ranks_has_a_minimum_effect_of_its_own(name: str) -> None:
    kind = load_plugin("evaluators", name)
    effects = {m.name: m.minimum_effect for m in metrics_of(name).values()}
    assert effects.keys() == {m.name for m in kind.metrics}
    assert effects[kind.primary_metric] > 0
    for metric in kind.metrics:
        assert metric.minimum_effect == effects[metric.name.partition("/")[0]], metric.name
    said = " ".join(discovery("evaluators", name).stdout.split())
    assert f"minimum effect {effects[kind.primary_metric]:g}" in said
    assert metrics_of("os:system") == {}  # an archive never chooses what is imported


def test_minimum_effects_of_the_shipped_metrics() -> None:
    assert own_effect("preference.enumerable", "frontier") == 0.005
    assert own_effect("preference.sentiment", "reward_at_kl") == 0.02
    for odd in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="minimum effect"):
            MetricSpec("m", True, "", "d", minimum_effect=odd)
