"""Limits of one candidate's child process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a candidate may use.

    Attributes:
        call_s: wall seconds for one oracle call (all runs of the call together).
        trial_s: wall seconds for all oracle calls of one trial; also caps the child's CPU time.
        memory_mb: private memory on top of what the warm process holds.

    Raises:
        ValueError: a limit that is not positive.
    """

    call_s: float = 5.0
    trial_s: float = 600.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        if min(self.call_s, self.trial_s, self.memory_mb) <= 0:
            raise ValueError("limits must be positive")
