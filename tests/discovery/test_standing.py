"""Where a loss stands is said in the same words everywhere, and "better" of nothing that is not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.archive import Archive
from db.records import CampaignRecord, Ranking
from discovery.cli.board import difference_text, verdict_text
from discovery.dossier import Comparison, Dossier, Measurement
from discovery.effects import effect_of
from discovery.exporters.card import CardExporter
from discovery.exporters.python import PythonExporter
from discovery.exporters.testing import CONTEXT, dossier, measurement
from discovery.statistics import MEANINGS, paired_difference
from discovery.web.overview import live
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from tests.support.command import discovery
from tests.support.small_archive import WINNER, make_archive

ROOT = Path(__file__).parents[2]
BEHIND, WITHIN = {0: -0.004, 1: -0.0047, 2: -0.0067}, {0: 0.001, 1: 0.0012, 2: 0.0011}
BETTER = {0: 0.02, 1: 0.021, 2: 0.0205}
UNCLEAR = {0: -0.1, 1: 0.2}


def measured(gaps: dict[int, float], **how: bool) -> Measurement:
    usual = measurement()
    difference = paired_difference(gaps, dict.fromkeys(gaps, 0.0), True, 0.005)
    return replace(usual, versus=(Comparison("dpo", "a" * 64, 0.375, difference),), **how)


def of(*measurements: Measurement) -> Dossier:
    return replace(dossier(), measurements=measurements)


AGAIN = {"ranks": False, "fresh_seeds": True}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (of(measured(BEHIND)), "not shown to be better than the leading baseline: frontier -0.0051 [-0.0086, "
                              "-0.0017] to dpo, behind"),
        (of(measured(WITHIN)), "not shown to be better than the leading baseline: frontier +0.0011 [+0.0009, +0.0013] to "
                               "dpo, within 0.005"),
        (of(measured(BETTER)), "better than the leading baseline, on the seeds that the search chose by, not confirmed on "
                               "fresh ones: frontier +0.0205 [+0.0193, +0.0217] to dpo, better"),
        (of(measured(BETTER), measured(UNCLEAR, **AGAIN)), "not shown to be better than the leading baseline: frontier "),
        (of(measured(BEHIND), measured(BETTER, **AGAIN)), "better than the leading baseline, measured again: frontier"),
        (of(measured(BETTER), measured(BETTER, **AGAIN), measured(WITHIN, ranks=False)), "not shown to be better"),
    ],
)  # fmt: skip
def test_better_is_said_of_what_is_so_where_it_was_measured_again(made, says):
    assert made.standing.startswith(says)
    text = PythonExporter().export(made, CONTEXT).text
    assert says[1:60] in " ".join(text.split())
    assert says[:60] in CardExporter().export(made, CONTEXT).text


def test_nothing_is_said_of_what_was_not_compared_and_of_baselines():
    assert of().standing == ""
    assert of(replace(measurement(), versus=())).standing == ""
    assert replace(of(measured(BETTER)), entry=replace(dossier().entry, origin="known")).standing == ""


@pytest.mark.parametrize("gaps", [BEHIND, WITHIN, BETTER, UNCLEAR, {0: 0.0, 1: 0.0}, {0: 1.0}])
def test_terminal_file_and_card_say_the_same_of_a_difference(gaps):
    made = of(measured(gaps))
    difference = made.measurements[0].versus[0].difference
    assert verdict_text(difference).plain == difference.says
    assert difference.verdict in MEANINGS
    assert ("[" in difference_text(difference, wide=False)) == (difference.low is not None)
    for text in (PythonExporter().export(made, CONTEXT).text, CardExporter().export(made, CONTEXT).text):
        assert difference.says in text


def test_the_configured_minimum_effect_holds_wherever_a_difference_is_shown(tmp_path):
    archive = make_archive(tmp_path / "small.db", {"objective": {"minimum_effect": 1.0}})
    dpo = known_objectives(PAIRS.name)["dpo"].candidate.short_id
    values = ("--archive", archive, "--json")
    (stage, *_) = json.loads(discovery("leaderboard", "small", *values).stdout)["stages"]
    (beside,) = json.loads(discovery("compare", dpo, WINNER.short_id, *values).stdout)["others"]
    record = json.loads(discovery("export", WINNER.short_id, "--format", "json", "--archive", archive).stdout)
    differences = [
        stage["rows"][0]["difference"],
        beside["measured"][0]["metrics"][0]["difference"],
        next(m for m in record["measurements"] if m["ranks"])["versus"][0]["difference"],
    ]
    assert [(d["verdict"], d["minimum_effect"]) for d in differences] == [("within", 1.0)] * 3
    assert "within 1" in discovery("leaderboard", "small", "--archive", archive).stdout
    assert "to dpo, within 1" in discovery("export", WINNER.short_id, "--archive", archive).stdout
    with Archive(archive) as stored:
        (tile, *_) = live(stored, "small")["tiles"]
    assert tile["note"].endswith("to dpo, within 1")


def test_settings_of_promotions_count_where_they_were_measured():
    objective = {"metric": "score", "minimum_effect": 0.1}
    promotion = {"evaluator": "other", "metric": None, "minimum_effect": 0.3}
    ranking = Ranking("t", "score", True, (0,))
    record = CampaignRecord(
        1, "c", {"objective": objective, "promotions": [promotion]}, "finished", ranking, "first", datetime.now(UTC)
    )
    assert effect_of(record, "first", True, "score", leads=True) == 0.1
    assert effect_of(record, "first", True, "kl", leads=False) == 0
    assert effect_of(record, "preference.enumerable", True, "frontier", leads=False) == 0.005
    assert effect_of(record, "first", True, "frontier", leads=False) == 0  # nobody here knows what it means there
    assert effect_of(record, "preference.sentiment", False, "reward_at_kl", leads=True) == 0.02
    assert effect_of(record, "other", False, "reward", leads=True) == 0.3
    assert effect_of(record, "other", False, "kl", leads=False) == 0
    assert effect_of(record, "first", False, "score", leads=True) == 0


SPEAK = ("anytime", "campaign", "changes", "config", "copies", "dossier", "effects", "ending", "leaderboard", "ledger",
         "measured", "progress", "ranking", "search", "simultaneous", "stages", "starting", "statistics",
         "unfinished")  # fmt: skip
PLACES = [
    *ROOT.glob("db/*.py"),
    *ROOT.glob("discovery/browse/*.py"),
    *ROOT.glob("discovery/cli/*.py"),
    *(ROOT / "discovery" / f"{name}.py" for name in SPEAK),
    *ROOT.glob("discovery/web/**/*.py"),
    *ROOT.glob("discovery/web/**/*.html"),
    *ROOT.glob("discovery/exporters/**/*.*"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("examples/*.yaml"),
    ROOT / "Makefile",
    ROOT / "README.md",
]


def test_best_is_said_of_no_loss_where_people_look():
    """A score that leads is called leading; what is better says so with its interval."""
    found = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in PLACES
        if path.is_file() and path.suffix != ".pyc" and path.name != "objectives.md"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\bbest\b", line, re.IGNORECASE) and "its best factor" not in line
    }
    assert found == set()
