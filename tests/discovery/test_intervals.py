"""Intervals of means: within what a metric can be, by world where worlds are strata, and shown for each regime."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from db.archive import Archive
from db.records import TrialRecord
from discovery.browse.intervals import by_world, limits_of, metric_interval
from discovery.cli import consent, evaluate
from discovery.cli.board import interval_text
from discovery.config import make_config
from discovery.measured import measured
from discovery.statistics import mean_interval
from evaluators.base import Metric, Timings, TrialReport
from evaluators.options import OptionsError
from evaluators.plugins import load_plugin, plugin_names
from tests.support.command import discovery
from tests.support.small_archive import TASK, WINNER, make_archive

WORLDS = ("base", "little_data", "off_policy")


def trials(values: dict[int, dict[str, float]]) -> list[TrialRecord]:
    """Finished trials of `frontier` by seed, the mean of its worlds."""
    found = []
    for seed, worlds in values.items():
        mean = math.fsum(worlds.values()) / len(worlds)
        metrics = (
            Metric("frontier", mean, True, ""),
            *(Metric(f"frontier/{w}", v, True, "") for w, v in worlds.items()),
        )
        found.append(TrialRecord(seed, "c", "t", "preference.enumerable", seed, "done", 1, metrics))
    return found


def test_an_interval_ends_where_the_metric_ends() -> None:
    wild = mean_interval({0: 0.5, 1: 0.98}, (0.0, 1.0))
    assert (wild.mean, wild.low, wild.high) == (0.74, 0.0, 1.0)
    assert mean_interval({0: 0.5, 1: 0.98}).high > 1.3  # type: ignore[operator]
    kl = mean_interval({0: 0.1, 1: 3.0}, (0.0, math.inf))
    assert kl.low == 0.0
    assert kl.high is not None
    assert kl.high > 3.0
    assert mean_interval({0: 0.5}, (0.0, 1.0)).low is None
    outside = mean_interval({0: 1.1, 1: 1.2}, (0.0, 1.0))  # an evaluator that breaks its word: the mean is still inside
    assert outside.low is not None
    assert outside.high is not None
    assert outside.low <= outside.mean <= outside.high


def test_an_interval_of_everything_says_that_the_seeds_are_too_few() -> None:
    assert interval_text(mean_interval({0: 0.5, 1: 0.98}, (0.0, 1.0)), (0.0, 1.0)) == "too few seeds"
    assert interval_text(mean_interval({0: 0.5, 1: 0.51}, (0.0, 1.0)), (0.0, 1.0)) == "0.4415 to 0.5685"
    assert interval_text(mean_interval({0: 0.5}, (0.0, 1.0)), (0.0, 1.0)) == "one seed"


def test_worlds_say_more_than_two_numbers_and_cover_as_promised() -> None:
    """1,000 draws of two seeds in six worlds with different spreads: about 95 in 100 intervals hold the truth."""
    draw, held, narrower = random.Random(7), 0, 0
    means = {f"w{i}": 0.5 + 0.05 * i for i in range(6)}
    truth = math.fsum(means.values()) / 6
    for _ in range(1_000):
        values = {(s, w): m + draw.gauss(0, 0.02 + 0.02 * i) for s in (0, 1) for i, (w, m) in enumerate(means.items())}
        by_seed = {s: math.fsum(values[s, w] for w in means) / 6 for s in (0, 1)}
        fine, coarse = mean_interval(values), mean_interval(by_seed)
        assert fine.mean == pytest.approx(coarse.mean)
        assert fine.low is not None
        assert fine.high is not None
        assert coarse.low is not None
        assert coarse.high is not None
        held += fine.low <= truth <= fine.high
        narrower += fine.high - fine.low < coarse.high - coarse.low
    assert 920 <= held <= 995
    assert narrower > 600


def test_worlds_count_only_where_the_metric_is_their_mean() -> None:
    made = trials({0: {"a": 0.2, "b": 0.4}, 1: {"a": 0.3, "b": 0.45}})
    assert metric_interval(made, "frontier", {}).high < mean_interval({0: 0.3, 1: 0.375}).high  # type: ignore[operator]
    other = [t.metrics[0] for t in made]
    shifted = [
        TrialRecord(t.id, "c", "t", "e", t.seed, "done", 1, (Metric("frontier", m.value + 1, True, ""), *t.metrics[1:]))
        for t, m in zip(made, other, strict=True)
    ]
    assert metric_interval(shifted, "frontier", {}) == mean_interval({0: 1.3, 1: 1.375})
    assert by_world(made, "frontier", {})["a"].mean == pytest.approx(0.25)


@pytest.mark.parametrize("name", plugin_names("evaluators"))
def test_evaluators_declare_limits_that_make_sense(name: str) -> None:
    for metric in load_plugin("evaluators", name).metrics:
        if metric.unit in ("share", "ratio"):
            assert (metric.lower, metric.upper) == (0.0, 1.0), metric.name
        if metric.name.startswith("final_kl"):
            assert metric.lower == 0.0
    assert limits_of("nowhere.to_be_found") == {}
    assert limits_of("os:system") == {}  # an archive never chooses what is imported


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small archive, and a campaign whose trials report three regimes."""
    path = make_archive(tmp_path_factory.mktemp("archive") / "small.db")
    with Archive(path) as stored:
        started = {"task": TASK, "metric": "frontier", "higher_is_better": True, "seeds": (7, 8)}
        stored.finish_campaign(campaign := stored.start_campaign("small", {"seed": 1}, **started).id)
        stored.start_campaign("small", {"seed": 1}, **started)
        for candidate in (WINNER, stored.entry("dpo").candidate):
            for seed in (7, 8):
                values = {w: 0.5 + 0.1 * i + 0.01 * seed + 0.05 * (candidate == WINNER) for i, w in enumerate(WORLDS)}
                (made,) = trials({seed: values})
                report = TrialReport(seed, made.metrics, {}, Timings(0, 0, 0, 0), "cpu", 1, {}, 1.0, 1)
                trial = stored.ensure_trial(campaign, candidate.id, TASK.id, seed)
                stored.finish_trial(trial.id, stored.start_attempt(trial.id, "w"), report)
        stored.finish_campaign(campaign)
    return path


def test_regimes_are_shown_with_intervals(archive: Path) -> None:
    text = discovery("show", "winner", "--archive", archive).stdout
    assert "frontier by world" in text
    assert all(any(line.startswith(w) and " to " in line for line in text.splitlines()) for w in WORLDS)
    board = discovery("leaderboard", "small", "--regimes", "--archive", archive).stdout
    searched = board.split("search: frontier by world")[1].split("promotion")[0]
    for world in WORLDS:
        assert sum(world in line.split() for line in searched.splitlines()) == 2
    assert "+0.0500 [+0.0500, +0.0500]" in board
    values = json.loads(discovery("leaderboard", "small", "--archive", archive, "--json").stdout)
    worlds = values["stages"][0]["rows"][0]["worlds"]
    assert [w["world"] for w in worlds] == list(WORLDS)
    assert worlds[0]["difference"]["mean"] == pytest.approx(0.05)
    assert "by world" not in discovery("leaderboard", "small", "--archive", archive).stdout
    said = " ".join(discovery("evaluators", "preference.enumerable").stdout.split())
    assert "frontier/base" in said
    assert "few_pairs, flips" in said


def test_the_dashboard_shows_regimes(archive: Path) -> None:
    from discovery.web import candidate
    from discovery.web.rendering import page

    with Archive(archive) as stored:
        values = candidate.candidate(stored, "winner", None)
        common = {"archive": "a", "version": "1", "plotly": "1", "style_ids": ()}
        assert "little_data" in page("candidate.html", common | values)


def test_long_measurements_ask_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "ASK_FROM_S", 0.0)
    fast = ("--set", "steps=8", "--set", "betas=[0.1]")
    refused = discovery("evaluate", "dpo", "--seeds", "3", *fast)
    assert refused.code == 2
    assert "2 more seeds take about" in refused.error
    assert "--yes" in refused.error
    assert refused.stdout.count("seed 0") == 1
    assert "seed 1 " not in refused.stdout
    assert discovery("evaluate", "dpo", "--seeds", "2", "--yes", *fast).code == 0
    monkeypatch.undo()
    asked = discovery("objectives", "bench", "--seeds", "3000", "--only", "dpo")
    assert asked.code == 2
    assert "1 objective on 3,000 seeds: 3,000 trials; give --yes" in asked.error


CAMPAIGN = {"budget": {"candidates": 3}, "baselines": ["dpo", "ipo"], "proposer": {"kind": "none"}}
PROMOTION = {"evaluator": "preference.enumerable", "baselines": ["dpo"], "top": 2, "seeds": 900}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"evaluator": "preference.enumerable", "seeds": 3000}}, "5 losses on 3,000 seeds each in the search"),
        ({"promotions": [PROMOTION]}, "3 losses on 900 seeds each in promotion 1 are 2,700 trials"),
        ({"objective": {"evaluator": "preference.enumerable", "seeds": 2001}, "baselines": [],
          "budget": {"candidates": None, "proposals": 9}},
         "2,001 seeds in the search are as many trials for each loss"),
    ],
    ids=["search", "promotion", "nobody says how many losses"],
)  # fmt: skip
def test_a_campaign_of_thousands_of_seeds_asks_first(changes, said: str, tmp_path: Path) -> None:
    settings = {"objective": {"evaluator": "preference.enumerable"}, **CAMPAIGN, **changes, "name": "long"}
    (tmp_path / "c.json").write_text(json.dumps(settings))
    refused = discovery("run", tmp_path / "c.json", "--archive", tmp_path / "a.db")
    assert refused.code == 2
    assert said in refused.error
    assert "give --yes to do it, or fewer seeds" in refused.error
    assert not (tmp_path / "a.db").exists()


def test_nobody_is_asked_about_many_losses_on_few_seeds_or_a_second_time(tmp_path: Path) -> None:
    where = {"archive": str(tmp_path / "a.db"), "objective": {"evaluator": "preference.enumerable", "seeds": 2}}
    consent.require_consent_to_run(make_config({**CAMPAIGN, **where, "budget": {"candidates": 5000}}), 2, yes=False)
    many = make_config({**CAMPAIGN, **where, "objective": {"evaluator": "preference.enumerable", "seeds": 3000}})
    consent.require_consent_to_run(many, 2, yes=True)
    with pytest.raises(OptionsError, match="15,000 trials"):
        consent.require_consent_to_run(many, 2, yes=False)
    (stage,) = (m.stage for m in measured(many))
    with Archive(many.archive, create=True) as archive:
        archive.start_campaign(
            many.name, many.public(), task=stage.task, metric=stage.metric, higher_is_better=True, seeds=stage.seeds
        )
    consent.require_consent_to_run(many, 2, yes=False)
    more = many.model_copy(update={"budget": many.budget.model_copy(update={"candidates": 9})})
    with pytest.raises(OptionsError, match="33,000 trials"):
        consent.require_consent_to_run(more, 2, yes=False)


@pytest.mark.parametrize(("answer", "goes_on"), [(True, True), (False, False)])
def test_a_person_at_a_terminal_is_asked(answer: bool, goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(consent.typer, "confirm", lambda *_, **__: answer)
    if goes_on:
        consent.require_consent("a day of work", yes=False)
    else:
        with pytest.raises(OptionsError, match="fewer"):
            consent.require_consent("a day of work", yes=False)
