"""`discovery objectives bench`: stored, resumed and ranked like a campaign that proposes nothing."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import sleep_evaluator
from tests.support.command import discovery, discovery_process

QUICK = ("objectives", "bench", "--evaluator", "sleeper:SleepEvaluator", "--set", "seconds=0.01", "--archive", "b.db")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("bench")
    shutil.copy(Path(sleep_evaluator.__file__), made / "sleeper.py")
    return made


def test_it_ranks_with_intervals_and_goes_on(folder):
    first = discovery_process(
        *QUICK, "--seeds", "3", "--only", "dpo", "--only", "ipo", "--json", cwd=folder, timeout_s=240
    )
    assert first.code == 0, first.stderr
    found = json.loads(first.stdout)
    assert found["references"] == ["dpo"]
    assert found["seeds"] == [0, 1, 2]
    assert {line["name"] for line in found["objectives"]} == {"dpo", "ipo"}
    means = [line["mean"] for line in found["objectives"]]
    assert means == sorted(means, reverse=True)
    for line in found["objectives"]:
        low, high = line["interval"]
        assert low < line["mean"] < high
        assert (line["against"] is None) == (line["name"] == "dpo")
    more = ("--seeds", "3", "--only", "dpo", "--only", "ipo", "--only", "hinge", "--markdown")
    again = discovery_process(*QUICK, *more, cwd=folder, timeout_s=240)
    assert again.code == 0, again.stderr
    assert again.stderr.count(" trial ") == 3, "what is stored is not measured again"
    rows = again.stdout.strip().splitlines()
    assert rows[0].startswith("| # | objective | score |")
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["1", "2", "3"]
    assert f"{means[0]:.4f}" in again.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--only", "dpoo"), "no known objective 'dpoo' for preference.pairs; did you mean 'dpo'"),
        (("--evaluator", "preference.enumerabel"), "did you mean 'preference.enumerable'"),
        (("--seeds", "0"), "--seeds"),
        (("--set", "stepz=3"), "no option 'stepz'; did you mean 'steps'"),
    ],
)
def test_bad_input_is_one_line(options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = discovery("objectives", "bench", *options)
    assert ended.code == 2
    assert says in ended.error
    assert not (tmp_path / "runs").exists()


def test_objectives_of_single_responses_are_measured_too(tmp_path):
    options = (
        "--set",
        "steps=20",
        "--set",
        "max_length=5",
        "--set",
        "betas=[0.1, 0.4]",
        "--seeds",
        "1",
        "--only",
        "kto",
        "--only",
        "bco",
    )
    done = discovery_process(
        "objectives",
        "bench",
        "--evaluator",
        "preference.enumerable_unpaired",
        *options,
        "--json",
        cwd=tmp_path,
        timeout_s=240,
    )
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["references"] == ["kto"]
    assert {line["name"] for line in found["objectives"]} == {"kto", "bco"}
