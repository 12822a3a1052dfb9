"""Where candidates can run."""

from __future__ import annotations

import sys

RECIPE = (
    'docker run --rm -it -v "$PWD:/campaign" -w /campaign python:3.11-slim '
    "sh -c 'pip install \"objective-discovery[imdb]\" && discovery COMMAND'"
)


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
