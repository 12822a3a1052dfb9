"""The file that somebody meant who misspelt its name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def meant(path: Path) -> str:
    """``; did you mean 'dpo.py'?`` where a file of the same kind with nearly that name is there; else nothing."""
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix == path.suffix]
    except OSError:
        return ""
    close = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean {str(path.with_name(close[0]))!r}?" if close else ""
