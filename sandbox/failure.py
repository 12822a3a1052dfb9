"""Typed failures. A failure is never a number: it has a kind, a message, and somebody whose fault it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sandbox.text import clean_text


class FailureKind(StrEnum):
    """What went wrong, and whose fault it is: the candidate's, the machine's (INFRASTRUCTURE), or a plug-in's (PLUGIN)."""

    STATIC = "STATIC"  # refused by the gate, before anything ran
    CONTRACT = "CONTRACT"  # wrong shape, dtype, or no usable gradient; state, randomness
    NON_FINITE = "NON_FINITE"  # NaN or infinity where a number is due
    TIMEOUT = "TIMEOUT"  # its own CPU time passed the limit
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    CRASH = "CRASH"  # it raised, or its process died
    DUPLICATE = "DUPLICATE"  # behaves like a loss that is already known
    INFRASTRUCTURE = "INFRASTRUCTURE"  # ours or the machine's: retried at once
    PLUGIN = "PLUGIN"  # an evaluator broke its own promises: tried again once the command is run again

    @property
    def candidates_fault(self) -> bool:
        return self not in (FailureKind.INFRASTRUCTURE, FailureKind.PLUGIN)


@dataclass(frozen=True)
class Failure:
    """One failure: `message` is plain text, cut and stripped of control characters, still hostile where shown."""

    kind: FailureKind
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", FailureKind(self.kind))
        object.__setattr__(self, "message", clean_text(self.message))

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class CandidateError(Exception):
    """Raised on the trusted side where a candidate is at fault; carries the Failure. Never crosses from a child."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure

    def __reduce__(self) -> tuple[type[CandidateError], tuple[Failure]]:
        return type(self), (self.failure,)


class InfrastructureError(Exception):
    """Our own fault or the machine's: a lost child server, a busy node, no memory for the parent. Retried."""

    @property
    def failure(self) -> Failure:
        return Failure(FailureKind.INFRASTRUCTURE, str(self))


class PluginError(Exception):
    """An evaluator, proposer, strategy or exporter raised what it should not, or returned something else than it promised.

    The message is plain text with file and line; asking again does not help before the plug-in is mended.
    """

    @property
    def failure(self) -> Failure:
        return Failure(FailureKind.PLUGIN, str(self))


class MappingError(Exception):
    """A loss is not, mapped over the runs of a call, what it is run by run; training without that tells whose fault."""


class NoSandboxError(InfrastructureError):
    """Candidates cannot be confined on this machine, so none is run. `reason`: what the kernel or the container refuses."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this machine cannot confine candidates ({reason}), so none is run; use Linux on x86-64 with seccomp "
            "(docs/security.md), or accept the risk with --unsafe-no-sandbox"
        )
        self.reason = reason

    def __reduce__(self) -> tuple[type[NoSandboxError], tuple[str]]:
        return type(self), (self.reason,)
