"""Where a loss stands is said in the same words everywhere, and "better" of nothing that is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from discovery.cli.board import difference_text, verdict_text
from discovery.dossier import Comparison, Dossier, Measurement
from discovery.exporters.card import CardExporter
from discovery.exporters.python import PythonExporter
from discovery.exporters.testing import CONTEXT, dossier, measurement
from discovery.statistics import MEANINGS, paired_difference

ROOT = Path(__file__).parents[2]
BEHIND, WITHIN = {0: -0.004, 1: -0.0047, 2: -0.0067}, {0: 0.001, 1: 0.0012, 2: 0.0011}
BETTER = {0: 0.02, 1: 0.021, 2: 0.0205}
UNCLEAR = {0: -0.1, 1: 0.2}


def measured(gaps: dict[int, float], **how: bool) -> Measurement:
    usual = measurement()
    difference = paired_difference(gaps, dict.fromkeys(gaps, 0.0), True)
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


PLACES = [
    *ROOT.glob("discovery/cli/*.py"),
    *ROOT.glob("discovery/web/**/*.py"),
    *ROOT.glob("discovery/web/**/*.html"),
    *ROOT.glob("discovery/exporters/**/*.*"),
    *ROOT.glob("docs/*.md"),
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
