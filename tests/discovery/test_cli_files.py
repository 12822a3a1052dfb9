"""`init`, `check` and `evaluate` on files."""

from __future__ import annotations

import json

import pytest

from discovery.cli.evaluate import Trials
from discovery.config import load_config
from evaluators.objectives import known_objectives
from evaluators.options import OptionsError
from tests.support.command import discovery

PAIRS = "preference.pairs"
ARGUMENTS = "policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta"
SLEEPER = ["--evaluator", "benchmarks.sleep_evaluator:SleepEvaluator", "--set", "seconds=0.01"]


def loss_file(folder, body: str, name: str = "mine.py"):
    path = folder / name
    path.write_text(f"import torch\n\n\ndef loss({ARGUMENTS}):\n{body}\n", encoding="utf-8")
    return path


def test_init_writes_a_configuration_that_loads(tmp_path):
    path = tmp_path / "mine.yaml"
    ended = discovery("init", path)
    assert ended.code == 0
    assert f"discovery run {path}" in ended.stdout
    assert load_config(path).objective.evaluator == "preference.enumerable"


def test_init_overwrites_only_when_told_to(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    ended = discovery("init", path)
    assert ended.code == 2
    assert "--force" in ended.error
    assert path.read_text() == "precious"
    assert discovery("init", path, "--force").code == 0
    assert "objective" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]


def test_init_says_what_is_wrong_with_the_place(tmp_path):
    assert "directory" in discovery("init", tmp_path).error
    assert "make it first" in discovery("init", tmp_path / "none" / "a.yaml").error
    (tmp_path / "file").write_text("")
    assert discovery("init", tmp_path / "file" / "a.yaml").code == 2


def test_check_accepts_a_new_loss_and_prints_its_properties(tmp_path):
    body = """    d = policy_chosen_logps - policy_rejected_logps
    return torch.exp(-beta * d).clamp(max=50) + 0.3 * (beta * d) ** 2"""
    path = loss_file(tmp_path, body)
    ended = discovery("check", path)
    assert ended.code == 0
    assert "accepted" in ended.stdout
    assert "gradient to" in ended.stdout
    assert "uses the reference" in ended.stdout
    assert "loss tends to inf upwards" in " ".join(ended.stdout.split())
    assert "computes" not in ended.stdout
    values = json.loads(discovery("check", path, "--json").stdout)
    assert values["accepted"] is True
    assert values["properties"]["inputs_with_gradient"] == ["policy_chosen_logps", "policy_rejected_logps"]


def test_check_recognises_a_known_loss_at_another_beta(tmp_path):
    body = """    d = policy_chosen_logps - policy_rejected_logps - reference_chosen_logps + reference_rejected_logps
    return torch.nn.functional.softplus(-2 * beta * d)"""
    path = loss_file(tmp_path, body)
    ended = discovery("check", path)
    assert ended.code == 2
    assert "refused" in ended.stdout
    assert "DUPLICATE: behaves like a known loss: (dpo, beta x 2)" in ended.stdout
    assert "gradient to" in ended.stdout
    values = json.loads(discovery("check", path, "--json").stdout)
    assert values["known"] == "dpo, beta x 2"
    assert values["accepted"] is False
    assert values["failure"]["kind"] == "DUPLICATE"


def test_check_takes_a_known_objective_for_what_it_is(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(known_objectives(PAIRS)["dpo"].candidate.source, encoding="utf-8")
    ended = discovery("check", path)
    assert ended.code == 0
    assert "this is the known objective dpo" in ended.stdout
    assert json.loads(discovery("check", path, "--json").stdout)["accepted"] is True


def test_check_points_at_each_line_that_the_gate_refuses(tmp_path):
    path = loss_file(tmp_path, "    import os\n    while True:\n        pass\n    return policy_chosen_logps")
    ended = discovery("check", path)
    assert ended.code == 2
    assert f"{path}:5: " in ended.stdout
    assert f"{path}:6: " in ended.stdout
    values = json.loads(discovery("check", path, "--json").stdout)
    assert [v["line"] for v in values["violations"]] == [5, 6]
    assert values["accepted"] is False


def test_check_refuses_what_the_probe_refuses(tmp_path):
    path = loss_file(tmp_path, "    return reference_chosen_logps * beta")
    ended = discovery("check", path)
    assert ended.code == 2
    assert "CONTRACT" in ended.stdout
    assert json.loads(discovery("check", path, "--json").stdout)["failure"]["kind"] == "CONTRACT"


def test_what_a_loss_says_cannot_touch_the_terminal(tmp_path):
    path = loss_file(tmp_path, '    raise ValueError("[bold]x[/bold]\\x1b[2J\\u202e" + "\\n" * 3)')
    ended = discovery("check", path)
    assert ended.code == 2
    assert "[bold]x[/bold]" in ended.stdout
    assert not set(ended.stdout) & {"\x1b", "\u202e"}


def test_binary_and_huge_files_are_refused(tmp_path):
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in discovery("check", tmp_path / "binary.py").error
    (tmp_path / "huge.py").write_text("#" * 2_000_000)
    assert "too large" in discovery("check", tmp_path / "huge.py").error


def test_evaluate_a_known_loss_on_the_real_task_and_on_two_seeds():
    ended = discovery("evaluate", "dpo", "--seeds", "2", "--set", "steps=8", "--json")
    assert ended.code == 0, ended.stderr
    values = json.loads(ended.stdout)
    assert [t["seed"] for t in values["trials"]] == [0, 1]
    by_seed = [m["value"] for t in values["trials"] for m in t["metrics"] if m["name"] == "frontier"]
    mean = values["means"]["frontier"]
    assert mean["mean"] == pytest.approx(sum(by_seed) / 2)
    assert mean["low"] < min(by_seed) < max(by_seed) < mean["high"]
    assert values["candidate"] == known_objectives(PAIRS)["dpo"].candidate.id
    assert "seed 1" in ended.stderr


def test_evaluate_a_file_prints_each_seed_and_the_mean(tmp_path):
    path = loss_file(tmp_path, "    return -beta * policy_chosen_logps")
    ended = discovery("evaluate", path, "--seeds", "7,8", *SLEEPER)
    assert ended.code == 0, ended.stderr
    assert "seed 7" in ended.stdout
    assert "seed 8" in ended.stdout
    assert "95% interval" in ended.stdout


def test_evaluate_says_when_there_is_one_seed_only():
    assert "one seed" in discovery("evaluate", "dpo", *SLEEPER).stdout


def test_evaluate_refuses_what_a_campaign_refuses(tmp_path):
    ended = discovery("evaluate", loss_file(tmp_path, "    return beta"), *SLEEPER)
    assert ended.code == 2
    assert "mine.py is refused: CONTRACT" in ended.error


def test_evaluate_lists_what_the_gate_refuses(tmp_path):
    path = loss_file(tmp_path, "    import os\n    while True:\n        pass\n    return policy_chosen_logps")
    ended = discovery("evaluate", path, *SLEEPER)
    assert ended.code == 2
    assert [line.split(": ")[0] for line in ended.stdout.splitlines()] == ["mine.py:5", "mine.py:6"]
    assert "listed above" in ended.error


def test_evaluate_names_the_seed_that_failed(tmp_path):
    # one of the ten values of progress in training, which the probe has no reason to try
    path = tmp_path / "late.py"
    path.write_text(f"""import torch


def loss({ARGUMENTS}, progress):
    d = policy_chosen_logps - reference_chosen_logps
    return -beta * d / (0.0 if abs(progress - 4 / 7) < 1e-6 else 1.0)
""")
    ended = discovery("evaluate", path, "--set", "steps=8")
    assert ended.code == 2
    assert "seed 0: NON_FINITE" in ended.stderr.splitlines()[-1]


def test_seeds_are_a_count_or_a_list():
    assert Trials("e", "3").seed_list == (0, 1, 2)
    assert Trials("e", "1000,1001").seed_list == (1000, 1001)
    assert Trials("e", "7,").seed_list == (7,)
    for wrong in ("", ",", "a", "1;2", "99999999999", "²"):
        with pytest.raises(OptionsError):
            _ = Trials("e", wrong).seed_list
