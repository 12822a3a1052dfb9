"""Running the command in this process or in its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from discovery.cli import main

TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line on stderr."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert TRACEBACK not in self.stderr
        return lines[0]


def discovery(*arguments: object) -> Ended:
    """The command line in this process, up to its exit code."""
    out, err = io.StringIO(), io.StringIO()
    hook = sys.excepthook
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(a) for a in arguments])
    finally:
        sys.excepthook = hook
    return Ended(code, out.getvalue(), err.getvalue())


def script() -> Path:
    """The installed console script."""
    return Path(sys.executable).with_name("discovery")


def discovery_process(
    *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None, timeout_s: float = 120
) -> Ended:
    """The installed console script."""
    ended = subprocess.run(
        [script(), *(str(a) for a in arguments)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
