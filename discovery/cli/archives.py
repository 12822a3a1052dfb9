"""Opening the archive that a command is about."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from evaluators.options import OptionsError

if TYPE_CHECKING:
    from db.archive import Archive

VARIABLE = "DISCOVERY_ARCHIVE"
DEFAULT = "runs/discovery.db"
_FROM_ENVIRONMENT = "env:"
READ_LIMIT_S = 60.0  # what a hundred thousand candidates take is two


def archive_url(given: str | None) -> str:
    """What `--archive` says, else $DISCOVERY_ARCHIVE, else the default file. Raises OptionsError for an unset env:NAME."""
    if given is None:
        return os.environ.get(VARIABLE) or DEFAULT
    if not given.startswith(_FROM_ENVIRONMENT):
        return given
    name = given.removeprefix(_FROM_ENVIRONMENT)
    if not os.environ.get(name):
        raise OptionsError(f"--archive names the environment variable {name!r}, which is not set")
    return os.environ[name]


def opened(given: str | None) -> Archive:
    """The archive, for reading in bounded time; a context manager. Raises OptionsError, ArchiveError."""
    from db.archive import Archive

    return Archive(archive_url(given), read_limit_s=READ_LIMIT_S)


def option_for(url: str, shown: str) -> str:
    """The `--archive` to type for an archive, `` --archive runs/a.db``; empty for the one that is taken without it.

    Args:
        url: where it is.
        shown: the same without a password. Where the two differ, the environment variable is named instead.
    """
    import shlex

    if url == archive_url(None):
        return ""
    if url == shown:
        return f" --archive {shlex.quote(shown)}"
    return f" --archive {_FROM_ENVIRONMENT}{VARIABLE}  # which is to hold the whole URL"
