import json
import subprocess
import sys

import pytest

from evaluators.cli import main

QUICK = ["--set", "steps=8", "--set", "betas=[0.1,0.4]"]
DPO = """
import torch.nn.functional as F

def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return -F.logsigmoid(beta * margin)
"""


def run(*arguments: str) -> int:
    return main(["run", "preference.enumerable", *arguments])


def test_metrics_are_an_aligned_table_with_the_ranking_one_first(capsys):
    assert run("--objective", "dpo", *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("preference.enumerable  objective dpo  seed 0")
    assert lines[2].split()[0] == "frontier"
    columns = {len(line) - len(line.split("  ")[-1]) for line in lines[1:-1]}
    assert len(columns) == 1


def test_json_of_a_file_equals_the_known_objective(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(DPO)
    assert run("--objective", str(path), "--json", "--seed", "2", *QUICK) == 0
    mine = json.loads(capsys.readouterr().out)
    assert run("--objective", "dpo", "--json", "--seed", "2", "--device", "cpu", *QUICK) == 0
    known = json.loads(capsys.readouterr().out)
    assert mine["metrics"] == known["metrics"]
    assert mine["task"] == known["task"]
    assert mine["candidate"] != known["candidate"]
    assert mine["options"]["betas"] == [0.1, 0.4]
    assert mine["seed"] == 2


def test_a_loss_that_is_told_more_than_labels_says_so(capsys):
    assert run("--objective", "odpo", *QUICK) == 0
    assert "\nprivileged: it reads chosen_score, rejected_score, so" in capsys.readouterr().out
    assert run("--objective", "dpo", "--json", *QUICK) == 0
    assert json.loads(capsys.readouterr().out)["privileged"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "dpoo"], "did you mean 'dpo'"),
        (["--objective", "missing.py"], "cannot read the objective missing.py"),
        (["--objective", "dpo", "--set", "step=3"], "did you mean 'steps'"),
        (["--objective", "dpo", "--set", "steps"], "--set takes KEY=VALUE"),
        (["--objective", "dpo", "--set", "steps=many"], "steps takes a whole number"),
        (["--objective", "dpo", "--device", "tpu"], "device must be one of"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_unknown_evaluator_is_bad_input(capsys):
    assert main(["run", "preference.enumerabel", "--objective", "dpo"]) == 2
    assert "did you mean 'preference.enumerable'" in capsys.readouterr().err


def test_text_that_is_not_utf8_is_bad_input(tmp_path, capsys):
    path = tmp_path / "latin.py"
    path.write_bytes(b"# \xe9\n")
    assert run("--objective", str(path)) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_negative_seed_is_bad_input():
    with pytest.raises(SystemExit) as caught:
        run("--objective", "dpo", "--seed", "-1")
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import os\n" + DPO, "STATIC"),
        (DPO.replace("-F.logsigmoid(beta * margin)", "(0 * margin).log() * beta"), "NON_FINITE"),
    ],
)
def test_refused_objective_is_a_fault_in_one_line(source, kind, tmp_path, capsys):
    path = tmp_path / "bad.py"
    path.write_text(source)
    assert run("--objective", str(path), *QUICK) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"the objective failed: {kind}" in error


def test_list_names_evaluators_and_objectives(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "preference.enumerable" in out
    assert "dpo" in out
    assert main(["list", "--json"]) == 0
    assert "preference.enumerable" in {e["name"] for e in json.loads(capsys.readouterr().out)}


def test_one_trial_needs_none_of_the_campaigns_dependencies():
    blocked = [
        "ray",
        "sqlalchemy",
        "alembic",
        "openai",
        "pydantic",
        "rich",
        "typer",
        "yaml",
        "jinja2",
        "scipy",
        "sklearn",
    ]
    script = (
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"  # an import of any of them raises
        "from evaluators.cli import main\n"
        f"sys.exit(main(['run', 'preference.enumerable', '--objective', 'dpo', '--json', *{QUICK}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "frontier" in json.loads(done.stdout)["metrics"][0]["name"]
