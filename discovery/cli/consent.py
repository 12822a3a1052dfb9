"""Asking before a command takes much longer than its words suggest."""

from __future__ import annotations

import sys

import typer

from evaluators.options import OptionsError

ASK_FROM_S = 600.0  # a trial by itself takes seconds to minutes: who waits ten minutes wants to know
ASK_FROM_TRIALS = 2_000  # all known objectives on 20 seeds are 840


def require_consent(what: str, yes: bool) -> None:
    """Go on if `yes` was given or a person at a terminal says so.

    Args:
        what: what would be done and what it takes, one line.
        yes: whether `--yes` was given.

    Raises:
        OptionsError: nobody can be asked, or the answer is no.
    """
    if yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise OptionsError(f"{what}; give --yes to do it, or fewer --seeds")
    if not typer.confirm(f"{what}. Go on?", default=False, err=True):
        raise OptionsError("not done; give fewer --seeds")
