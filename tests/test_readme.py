"""The README's commands exist, its Python runs, and its files are there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
SHELL = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
DISCOVERY = sorted({line.split("  #")[0].strip() for line in SHELL if line.startswith("discovery ")})


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in SHELL if line.startswith("make ")]
    assert targets
    assert all(re.search(rf"^{t}:", makefile, re.MULTILINE) for t in targets)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("line", DISCOVERY)
def test_command_line_is_understood(line: str) -> None:
    """Each option the README uses is one that the command has."""
    words = shlex.split(line)
    command = words[1:3] if words[1] == "objectives" and words[2:] else words[1:2]
    shown = subprocess.run(
        [sys.executable, "-m", "discovery", *command, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    options = [w for w in words[2:] if w.startswith("-")]
    assert [o for o in options if o not in shown] == []


def test_candidate_passes_the_checks(tmp_path: Path) -> None:
    source = next(text for text in PYTHON if "def loss(" in text)
    path = tmp_path / "my_loss.py"
    path.write_text(source, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "discovery", "check", str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    # it is DPO, and `check` says so
    assert "dpo" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_one_trial_without_the_rest() -> None:
    line = next(line for line in SHELL if line.startswith("python -m evaluators"))
    words = [sys.executable, *shlex.split(line)[1:], "--set", "steps=20", "--json"]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert '"frontier"' in ran.stdout


def test_notebook_example_names_what_exists() -> None:
    source = next(text for text in PYTHON if "Campaign(" in text)
    imports = "\n".join(line for line in source.splitlines() if line.startswith(("from ", "import ")))
    subprocess.run([sys.executable, "-c", imports], check=True, cwd=ROOT)
    compile(source, "README.md", "exec")
