"""Where candidates can run, and where plug-ins are looked for."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from rich.text import Text

RECIPE = (
    'docker run --rm -it -v "$PWD:/campaign" -w /campaign python:3.11-slim '
    "sh -c 'pip install \"objective-discovery[imdb]\" && discovery COMMAND'"
)


NO_SANDBOX = Text("No sandbox: candidates run with this account's rights (--unsafe-no-sandbox).", style="bold red")


def runs_candidates() -> bool:
    """Whether this platform can confine a candidate's process."""
    return sys.platform == "linux"


def require_linux(command: str) -> None:
    """Raises InfrastructureError with the container recipe where candidates cannot run."""
    from sandbox.failure import InfrastructureError

    if not runs_candidates():
        recipe = RECIPE.replace("COMMAND", f"{command} ...")
        raise InfrastructureError(
            f"`discovery {command}` runs candidates, which needs Linux; use a container: {recipe} (docs/platforms.md)"
        )


def allow_local_plugins(configuration: Path | None = None) -> None:
    """Let `module:attr` name a plug-in beside the configuration or in the current folder; those folders come last."""
    with suppress(OSError):  # the current folder has been deleted
        for folder in (str(configuration.resolve().parent) if configuration is not None else "", os.getcwd()):
            if folder and folder not in sys.path and "" not in sys.path:
                sys.path.append(folder)
