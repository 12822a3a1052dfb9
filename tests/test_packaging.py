"""The wheel: four packages and their data, nothing else; it installs beside nothing and its names resolve to ours."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"discovery", "sandbox", "evaluators", "db"}
DATA = {".j2", ".mako", ".yaml", ".typed", ".json", ".html", ".css", ".js", ".svg"}


def run(command: Sequence[object], cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files: a build folder left in the tree would leak into it."""
    work = tmp_path_factory.mktemp("wheel")
    tracked = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (work / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--quiet",
        "--wheel-dir",
        work / "dist",
        work / "source",
    ]
    if importlib.util.find_spec("setuptools"):
        command.insert(4, "--no-build-isolation")
    run(command, work)
    (found,) = (work / "dist").glob("*.whl")
    return found


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    assert wheel.name.startswith("objective_discovery-")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if not n.endswith("/")}
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == PACKAGES
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", *DATA} and "__pycache__" not in path.parts
    }
    assert {n for n in names if ".dist-info/" not in n} == expected
    assert {f"{p}/py.typed" for p in PACKAGES} <= names
    assert any(n.endswith(".j2") for n in names)


def test_an_installed_wheel_resolves_to_ours(wheel: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "venv", tmp_path / "venv"], tmp_path)
    binaries = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python = binaries / "python"
    run([python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel], tmp_path)
    code = "import json, db, sandbox, discovery; print(json.dumps([m.__file__ for m in (db, sandbox, discovery)]))"
    files = json.loads(run([python, "-I", "-c", code], tmp_path))
    assert all(Path(f).is_relative_to(tmp_path / "venv") for f in files)
    assert (binaries / "discovery").exists()
    group = "group='objective_discovery.evaluators'"
    points = f"from importlib.metadata import entry_points as e; print(*(p.name for p in e({group})))"
    assert "preference.enumerable" in run([python, "-I", "-c", points], tmp_path).split()
