"""What the command writes, but for its consoles' styles: text that cannot act on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO, Any, cast

from sandbox.text import visible


class CleanStream:
    """A text stream that passes on what is visible of each text, and is the stream itself in everything else."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unfiltered(stream: IO[str]) -> IO[str]:
    """The stream below a clean one, for what has cleaned its text and writes the terminal's own sequences."""
    return stream._stream if isinstance(stream, CleanStream) else stream


@contextmanager
def clean_streams(out: IO[str], err: IO[str]) -> Iterator[None]:
    """Within, everything that is printed is clean."""
    with redirect_stdout(cast("IO[str]", CleanStream(out))), redirect_stderr(cast("IO[str]", CleanStream(err))):
        yield
