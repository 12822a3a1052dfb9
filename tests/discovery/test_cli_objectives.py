"""`discovery objectives` and `discovery nearest`."""

import json

import pytest

from evaluators.objectives import known_families, known_objectives
from tests.support.command import discovery
from tests.support.losses import expression

EVERY = {name for family in known_families() for name in known_objectives(family)}


def test_every_objective_is_listed_with_what_is_measured(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    text = discovery("objectives").stdout
    for name in EVERY:
        assert f"\n{name} " in text, name
    (dpo,) = [line.split() for line in text.splitlines() if line.startswith("dpo ")]
    assert dpo[1:10] == ["F1", "2023", "yes", "yes", "below", "yes", "no", "inf", "0"]
    listed = json.loads(discovery("objectives", "--json").stdout)
    assert {o["name"] for o in listed} == EVERY
    for o in listed:
        assert o["family"] in ("F1", "F2", "F3")
        assert o["year"] > 2000
        assert o["paper"]
        assert o["equation"]
        assert o["properties"]["inputs_with_gradient"]


@pytest.fixture(scope="module")
def nearly_dpo(tmp_path_factory):
    path = tmp_path_factory.mktemp("losses") / "mine.py"
    path.write_text(expression("F.softplus(-0.5 * beta * d) + 0.02 * torch.relu(1 - beta * d)").source)
    return path


def test_the_nearest_of_a_file(nearly_dpo):
    text = discovery("nearest", nearly_dpo, "--limit", "3").stdout
    assert text.startswith("mine.py (")
    assert "By fingerprint" in text
    assert "By loss curve" in text
    assert "behaves like a known loss" not in text
    found = json.loads(discovery("nearest", nearly_dpo, "--json", "--limit", "3").stdout)
    assert found["copy_of"] is None
    best = found["by_fingerprint"][0]
    assert best["name"] == "dpo"
    assert 0.45 < best["scale"] < 0.6
    assert 0 < best["distance"] < 0.02
    assert len(found["by_fingerprint"]) == len(found["by_curve"]) == 3


def test_a_known_objective_is_its_own_nearest_and_a_rescaled_one_is_named(tmp_path):
    found = json.loads(discovery("nearest", "hinge", "--json").stdout)
    assert found["copy_of"]["name"] in ("hinge", "rso")
    assert found["by_fingerprint"][0]["distance"] < 1e-4
    path = tmp_path / "rescaled.py"
    path.write_text(expression("F.softplus(-3 * beta * d)").source)
    assert (
        "behaves like a known loss: (dpo, beta x 3): a campaign would not train it" in discovery("nearest", path).stdout
    )


@pytest.mark.parametrize(
    ("loss", "says"),
    [("nothing.py", "no file 'nothing.py'"), ("dpoo", "did you mean 'dpo'"), ("dpo --contract x", "no interface 'x'")],
)
def test_bad_input_is_one_line(loss, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = discovery("nearest", *loss.split())
    assert ended.code == 2
    assert says in ended.error


def test_what_the_gate_refuses_is_shown_line_by_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(expression("torch.save(d, 'x')").source)
    ended = discovery("nearest", path)
    assert ended.code == 2
    assert "bad.py:8: `torch.save` is not available" in ended.stdout
