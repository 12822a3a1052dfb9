"""The log file of a campaign: one line per event, UTC time stamps, nothing secret and no control characters in it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from db.redact import redact_secrets
from discovery.config_errors import ConfigError
from sandbox.text import one_line

MAX_LINE = 2000
MASK = "***"


class _Formatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO message``; a traceback follows as indented lines."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        self._secrets = sorted((s for s in secrets if len(s) >= 4), key=len, reverse=True)  # longest first

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines = [f"{moment} {record.levelname} {self._clean(record.getMessage())}"]
        if record.exc_info and record.exc_info[1] is not None:
            for piece in traceback.format_exception(record.exc_info[1]):
                lines += [f"    {self._clean(line)}" for line in piece.splitlines()]
        return "\n".join(lines)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        # redaction before the cut, so that no half of a key is left at the end of a line
        return one_line(redact_secrets(text), MAX_LINE)


class _Handler(logging.FileHandler):
    """A full disk must stop neither the campaign nor fill the terminal with tracebacks: lines are counted as lost."""

    lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        del record
        self.lost += 1


@contextmanager
def campaign_log(log_dir: str | Path, name: str, secrets: Sequence[str] = ()) -> Iterator[logging.Logger]:
    """A logger that appends to ``<log_dir>/<name>.log`` and nowhere else, closed at the end of the block.

    Args:
        log_dir: made if it is missing.
        name: the campaign's name, checked by the configuration to be a plain file name.
        secrets: values to mask wherever they appear, such as those of the variables that `api_key_env` names; patterns
            of keys and passwords in URLs are masked in any case.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = Path(log_dir) / f"{name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Handler(path, mode="a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"cannot write the log file {str(path)!r}: {error.strerror}; set log_dir") from None
    handler.setFormatter(_Formatter(secrets))
    logger = logging.Logger(name, logging.INFO)  # its own, outside the global tree: two campaigns do not mix
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        if handler.lost:
            logging.getLogger("discovery").warning("%d lines of %s could not be written", handler.lost, path)
        with suppress(OSError):  # what could not be flushed was already counted
            handler.close()
