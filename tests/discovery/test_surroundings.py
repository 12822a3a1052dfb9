"""What stands around a command decides nothing: files beside it, variables, streams, the terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import sleep_evaluator
from discovery.cli.archives import DEFAULT
from discovery.cli.terminal import LEAST_WIDTH, PIPED_WIDTH, stderr_console, stdout_console
from discovery.config import load_config
from discovery.ray_session import _environment, _own_token, _python_path, _temp_dir, hides_library
from sandbox.failure import InfrastructureError
from tests.support.campaigns import kept
from tests.support.clusters import foreign_traces
from tests.support.command import TRACEBACK, discovery, script
from tests.support.command_runs import ROOT

# names of the standard library, of dependencies, and of our own packages
SHADOWS = (
    "random", "types", "typing", "json", "logging", "queue", "socket", "copy", "enum", "abc", "asyncio", "signal", "string",
    "torch", "numpy", "ray", "pydantic", "rich", "yaml", "db", "sandbox", "evaluators", "discovery", "tests",
)  # fmt: skip
ODD = {
    "HOME": "/proc/nowhere", "OMP_NUM_THREADS": "odd", "PYTHONOPTIMIZE": "1", "PYTHONHASHSEED": "7", "COLUMNS": "0",
    "NO_COLOR": "1", "LC_ALL": "C", "LANG": "de_DE", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "TZ": "Mars/Olympus",
    "PYTHONWARNINGS": "error", "PYTHONSTARTUP": "random.py", "PYTHONBREAKPOINT": "nowhere.at_all",
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "",
}  # fmt: skip


def campaign_in(folder: Path) -> Path:
    shutil.copy(Path(sleep_evaluator.__file__), folder / "sleeper.py")
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')\n")
    plan = {
        "name": "around",
        "archive": str(folder / "archive.db"),
        "log_dir": str(folder),
        "objective": {"evaluator": "sleeper:SleepEvaluator", "options": {"seconds": 0.0}, "seeds": 1},
        "baselines": ["dpo"],
        "budget": {"candidates": 0},
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(plan))
    return folder / "campaign.yaml"


@pytest.mark.parametrize("by_module", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["script", "python -m"])
def test_a_campaign_among_everything_that_can_stand_around_it(tmp_path: Path, by_module: bool) -> None:
    """All at once: a run takes ten seconds. What a variable or a file breaks, it breaks in any company."""
    path = campaign_in(tmp_path)
    long = tmp_path / ("t" * 120)  # no socket's path can be so long
    long.mkdir()
    command = [sys.executable, "-m", "discovery"] if by_module else [str(script())]
    if by_module:
        (tmp_path / "discovery.py").unlink()  # `python -m` looks here before anything of ours can run
    with foreign_traces() as traces:
        environment = {**os.environ, **ODD, **traces, "TMPDIR": str(long), "RAY_TMPDIR": str(long)}
        ended = subprocess.run(
            [*command, "run", path.name], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=300, check=False, preexec_fn=lambda: os.umask(0o077),
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode() + ended.stdout.decode()
    out = ended.stdout.decode("ascii")  # what cannot be shown has been replaced
    assert "Campaign around: finished." in out
    assert "leading baseline" in out
    assert TRACEBACK not in ended.stderr.decode()
    assert [t.status for t in kept(tmp_path / "archive.db", "around").trials.values()] == ["done"]


LISTINGS = [
    ["campaigns"], ["leaderboard", "small"], ["candidates"], ["stats", "small"], ["show", "dpo"], ["lineage", "dpo"],
    ["objectives"], ["objectives", "show", "dpo"], ["evaluators"], ["evaluators", "preference.enumerable"], ["proposers"],
]  # fmt: skip


@pytest.mark.parametrize("command", LISTINGS, ids=" ".join)
def test_a_terminal_that_is_not_utf8_costs_no_listing(tmp_path: Path, command: list[str]) -> None:
    """In this process, through a stream that can hold nothing but ASCII."""
    code = (
        "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='ascii', errors='strict')\n"
        "from discovery.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    archive = tmp_path / DEFAULT
    ended = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert b"Unicode" not in ended.stderr
    assert b"unexpected fault" not in ended.stderr
    assert ended.returncode == (0 if ended.stdout else 2), ended.stderr
    assert not archive.exists()


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_closed_streams_are_nowhere(tmp_path: Path, closed: str) -> None:
    redirections = " ".join({"0": "<&-", "1": ">&-", "2": "2>&-"}[c] for c in closed.split())
    ended = subprocess.run(f"{script()} objectives {redirections}", shell=True, cwd=tmp_path, timeout=120, check=False)
    assert ended.returncode == 0


def test_a_deleted_folder_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ended = subprocess.run(
        f"rmdir {gone} && exec {script()} campaigns", shell=True, cwd=gone, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == ["error: the current folder has been deleted; change into another one"]


@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide", "9" * 12, ""])
def test_a_width_that_nothing_can_be_read_at_does_not_count(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert stdout_console().width in (PIPED_WIDTH, 80)
    monkeypatch.setenv("COLUMNS", str(LEAST_WIDTH + 41))
    assert stderr_console().width == LEAST_WIDTH + 41


@pytest.mark.parametrize("package", ["db", "sandbox", "evaluators"])
def test_a_file_that_hides_one_of_our_packages_is_named(tmp_path: Path, package: str) -> None:
    """Beside a notebook; a command finds its own packages all the same."""
    (tmp_path / f"{package}.py").write_text("")

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    imported = python("-c", "import discovery.config")
    assert imported.returncode == 1
    assert imported.stderr.splitlines()[-1] == (
        f"ImportError: {tmp_path / package}.py hides the package `{package}` of objective-discovery: rename it, or start "
        "from another folder"
    )
    assert python("-m", "discovery", "objectives").returncode == 0


def test_packages_in_folders_of_their_own_hide_nothing(tmp_path: Path) -> None:
    """As Ray sends them to the nodes of a cluster."""
    folders = []
    for package in ("sandbox", "evaluators", "db", "discovery"):
        shutil.copytree(ROOT / package, tmp_path / package / package, ignore=shutil.ignore_patterns("__pycache__"))
        folders.append(str(tmp_path / package))
    code = "import discovery.workers, sandbox.contract, db.records; print(discovery.__file__, sandbox.__file__)"
    imported = subprocess.run(
        [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )  # fmt: skip
    assert imported.stdout.split() == [
        f"{f}/{p}/__init__.py" for p, f in (("discovery", folders[3]), ("sandbox", folders[0]))
    ]


@pytest.mark.parametrize("archive", [":memory:", "sqlite:///:memory:", "file:x?mode=memory&uri=true", "a" * 253])
def test_an_archive_that_would_keep_nothing_is_refused(tmp_path: Path, archive: str) -> None:
    loss = tmp_path / "loss.py"
    loss.write_text("def loss(beta): return beta\n")
    ended = discovery("import", loss, "--archive", archive)
    assert ended.code == 2
    assert "names no file" in ended.error or "too long" in ended.error


def test_long_file_names_are_good_names(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 248}.yaml"
    path.write_text("objective: {evaluator: preference.enumerable}\n")
    assert load_config(path).name == "n" * 100
    assert discovery("export", "dpo", "-o", tmp_path / f"{'o' * 250}.py").code == 0
    ended = discovery("import", tmp_path, "--as", "a" * 253, "--archive", tmp_path / "a.db")
    assert (ended.code, ended.error) == (2, "error: --as takes a name of 1 to 100 characters")


def test_rays_processes_inherit_no_path_that_hides_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, bad, package = tmp_path / "clean", tmp_path / "bad", tmp_path / "package"
    for folder in (clean, bad, package / "json"):
        folder.mkdir(parents=True)
    (bad / "types.py").touch()
    (package / "json" / "__init__.py").touch()
    assert hides_library(str(bad)) == str(bad / "types.py")
    assert hides_library(str(package)) == str(package / "json")
    assert hides_library(str(clean)) is None
    assert hides_library(str(ROOT)) is None
    given = os.pathsep.join(["", ".", str(bad), str(clean), "relative", str(package)])
    assert _python_path(given).split(os.pathsep)[0] == str(clean)
    assert str(bad) not in _python_path(given)
    for name, value in {
        "PYTHONPATH": given,
        "PYTHONWARNINGS": "error",
        "SOME_API_KEY": "x",
        "RAY_AUTH_TOKEN": "t",
    }.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with _environment(["OTHER"]):
        assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(clean)
        assert "PYTHONWARNINGS" not in os.environ
        assert "SOME_API_KEY" not in os.environ
        assert os.environ["RAY_AUTH_TOKEN"] == "t"
    assert dict(os.environ) == before


def test_ray_writes_nothing_into_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    _own_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 32
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("theirs")
    _own_token()
    assert os.environ["RAY_AUTH_TOKEN"] == ""


def test_rays_sockets_are_put_where_their_paths_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 60)))
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    assert _temp_dir() == "/tmp/ray"
    monkeypatch.setattr(os, "makedirs", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(InfrastructureError, match="set RAY_TMPDIR to one whose path is short"):
        _temp_dir()
