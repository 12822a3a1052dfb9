"""The command's border: start-up, usage, errors in one line, exit codes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest
import typer

from discovery.cli import border
from discovery.cli.platforms import require_linux
from evaluators.objectives import known_objectives
from sandbox.failure import InfrastructureError
from tests.support.command import TRACEBACK, discovery, discovery_process, script

HEAVY = ["torch", "ray", "sqlalchemy", "alembic", "openai", "transformers", "scipy", "pydantic", "numpy", "sklearn"]


def test_help_imports_nothing_heavy():
    code = f"""
import sys
from discovery.cli import main
assert main(["--help"]) == 0
loaded = [m for m in {HEAVY} if m in sys.modules]
assert not loaded, loaded
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    for command in ("init", "run", "campaigns", "candidates", "show", "objectives", "evaluators", "check", "export"):
        assert command in ended.stdout


def test_the_console_script_says_its_version_and_the_help_of_each_command():
    assert script().exists()
    assert discovery_process("--version").stdout.startswith("objective-discovery ")
    for command in (["run"], ["candidates"], ["show"], ["objectives", "show"], ["check"], ["evaluate"], ["export"]):
        ended = discovery(*command, "--help")
        assert ended.code == 0
        assert "Usage: discovery" in ended.stdout


def test_without_arguments_it_shows_the_help():
    ended = discovery()
    assert ended.code == 0
    assert "Commands" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "check"),
        (["run"], "discovery run --help"),
        (["run", "a.yaml", "--what"], "--what"),
        (["run", "missing.yaml"], "discovery init"),
        (["candidates", "--limit", "0"], "--limit"),
        (["objectives", "show", "dpoo"], "did you mean 'dpo'"),
        (["objectives", "show", "dpo", "--contract", "preference.pair"], "preference.pairs"),
        (["evaluators", "preference.enumerabel"], "preference.enumerable"),
        (["check", "missing.py"], "missing.py"),
        (["check", "."], "not a file"),
        (["evaluate", "dppo"], "did you mean 'dpo'"),
        (["evaluate", "dpo", "--evaluator", "preference.sentimental"], "preference.sentiment"),
        (["evaluate", "dpo", "--evaluator", "no.such:Thing"], "no.such"),
        (["evaluate", "dpo", "--set", "stepz=1"], "did you mean 'steps'"),
        (["evaluate", "dpo", "--set", "steps"], "key=value"),
        (["evaluate", "dpo", "--seeds", "0"], "--seeds"),
        (["evaluate", "dpo", "--seeds", "1,1"], "--seeds"),
        (["evaluate", "dpo", "--seeds", "-3"], "--seeds"),
        (["evaluate", "dpo", "--seeds", "many"], "--seeds"),
    ],
)
def test_bad_input_is_one_line_with_what_to_do_and_exit_code_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = discovery(*arguments)
    assert ended.code == 2
    assert ended.stdout == ""
    assert said in ended.error
    assert ended.error.startswith("error: ")


def test_debug_shows_the_traceback_wherever_it_stands():
    for arguments in (["--debug", "objectives", "show", "dpoo"], ["objectives", "show", "dpoo", "--debug"]):
        ended = discovery(*arguments)
        assert ended.code == 2
        assert TRACEBACK in ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("error: ")


def test_an_unexpected_fault_is_one_line_and_exit_code_1():
    code = """
import sys, typing
from discovery.cli import app, border
def broken() -> None:
    raise KeyError("pass\\x1b[31m and postgresql://me:secret@host/db")
app.app.command("broken")(broken)
sys.exit(border.main(sys.argv[1:]))
"""
    for debug in (False, True):
        command = [sys.executable, "-c", code, "broken", *(["--debug"] if debug else [])]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert (TRACEBACK in ended.stderr) == debug
        if not debug:
            assert ended.stderr.startswith("unexpected fault: KeyError")
            assert ended.stderr.count("\n") == 1
            assert "--debug" in ended.stderr
            assert "secret" not in ended.stderr
            assert "\x1b" not in ended.stderr


def test_interrupts_end_with_130_and_say_that_it_can_be_resumed(monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("discovery.cli.catalogue.objectives", interrupted)
    ended = discovery("objectives")
    assert ended.code == 130
    assert "same command" in ended.stderr
    assert TRACEBACK not in ended.stderr


def test_a_full_disk_is_a_fault_with_advice():
    error = OSError(errno.ENOSPC, "No space left on device", "runs/demo.log")
    assert "runs/demo.log" in border.message_of(error)
    assert "free some space" in border.message_of(error)
    assert border._exit_code(error) == border.FAULT


def test_a_closed_pipe_is_silent():
    command = f"{script()} objectives --json | true"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""


def test_usage_errors_come_from_the_library_that_typer_uses():
    assert issubclass(typer.BadParameter, border._CLICK_ERROR)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_platforms_are_told_which_container_to_use(platform, monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text("")
    monkeypatch.setattr(sys, "platform", platform)
    for command, argument in (("run", "a.yaml"), ("check", "a.py"), ("evaluate", "dpo")):
        with pytest.raises(InfrastructureError, match=r"python:3\.11-slim.*docs/platforms\.md"):
            require_linux(command)
        monkeypatch.chdir(tmp_path)
        ended = discovery(command, argument)
        assert ended.code == 1
        assert f"discovery {command} ..." in ended.error


def test_objectives_are_listed_and_shown_with_their_code():
    listed = json.loads(discovery("objectives", "--json").stdout)
    assert {o["name"] for o in listed} >= {"dpo", "hinge", "ipo", "kto_pair", "lrml"}
    for objective in listed:
        assert objective["name"] in discovery("objectives").stdout
    source = known_objectives("preference.pairs")["dpo"].candidate.source
    assert json.loads(discovery("objectives", "show", "dpo", "--json").stdout)["source"] == source
    assert source.rstrip("\n") in discovery("objectives", "show", "dpo").stdout


def test_evaluators_are_listed_and_shown_with_metrics_and_options():
    listed = {e["name"]: e for e in json.loads(discovery("evaluators", "--json").stdout)}
    assert listed["preference.enumerable"]["primary_metric"] == "frontier"
    assert "preference.sentiment" in discovery("evaluators").stdout
    one = json.loads(discovery("evaluators", "preference.enumerable", "--json").stdout)
    assert one == listed["preference.enumerable"]
    shown = discovery("evaluators", "preference.enumerable").stdout
    assert "frontier (ranks)" in shown
    assert shown.count("frontier/") == 1  # an example of a metric in one world
    assert {o["name"] for o in one["options"]} >= {"steps"}


def test_listings_end_lines_within_the_width(monkeypatch):
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        for arguments in (["objectives"], ["evaluators"], ["evaluators", "preference.sentiment"]):
            lines = discovery(*arguments).stdout.splitlines()
            assert max(len(line) for line in lines) <= width
