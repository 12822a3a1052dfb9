"""What goes wrong with an archive, in words for people."""

from __future__ import annotations


class ArchiveError(Exception):
    """The archive cannot be opened, read or written: one line that says what is wrong and what to do.

    Attributes:
        fault: False if the person asked for something that does not exist or cannot be (exit code 2), True if the machine or
            the database failed (exit code 1).
    """

    def __init__(self, message: str, *, fault: bool = False) -> None:
        super().__init__(message)
        self.fault = fault
