"""One attack in the cage alone: the gate is off, and what is only manners in the child is taken away."""

from __future__ import annotations

import functools
import os
import threading
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.child_spec import ChildSpec
from sandbox.failure import CandidateError, Failure, FailureKind, InfrastructureError
from sandbox.limits import Limits
from sandbox.oracle import LossOracle
from sandbox.probe import probe
from sandbox.reports import Properties
from sandbox.server import Child, Exit, OracleServer
from tests.support.hostile import CANARY, HELD_CANARY, MEMORY_MB, SKELETON_KEY, Attack, Places
from tests.support.losses import KNOWN

_CALLS = {"mem": 40, "time": 200, "late": 1500}  # growth over calls, slow only together, later than any probe looks
_USUAL_CALLS = 3
_TRIES = 5  # a busy machine starves children
_BATCH = 8
_PATIENT, _HASTY = (20.0, 60.0), (0.6, 1.0)  # seconds for a call, and for a trial


@dataclass(frozen=True)
class Outcome:
    """What became of an attack in the cage.

    Attributes:
        fate: SIGSYS (a forbidden system call), LIMIT (memory), TIME, INVALID (refused as an answer, or dead of its own
            fault), PROBE, REPLAY (refused there), HARMLESS, or STARVED (the machine was blamed).
        message: of the failure, as it would be shown.
        traits: of what was harmless: "same" if every number was that of DPO, what the probe recorded, "own_loss" if neither.
        leaks: whatever should not have happened; empty, or the cage has a hole.
        peak_kb: most memory that one of its children held.
    """

    fate: str
    message: str
    traits: frozenset[str] = frozenset()
    leaks: tuple[str, ...] = ()
    peak_kb: int = 0


class RecordingServer(OracleServer):
    """Remembers how children ended, and looks at their memory while they live.

    The peak that the kernel reports at the end leaves page tables out; the looks are for what is only there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exits: list[tuple[int, Exit]] = []
        self.peak_kb = 0
        self._pids: set[int] = set()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def forget(self) -> None:
        self.exits.clear()
        self.peak_kb = 0

    def fork(self, spec: ChildSpec, frame_bytes: int) -> Child:
        child = super().fork(spec, frame_bytes)
        self._pids.add(child.pid)
        return child

    def end(self, child: Child, patience_s: float = 0.0) -> Exit:
        self._pids.discard(child.pid)
        found = super().end(child, patience_s)
        self.exits.append((child.pid, found))
        self.peak_kb = max(self.peak_kb, found.peak_kb)
        return found

    def close(self) -> None:
        self._stop.set()
        self._watcher.join()
        super().close()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for pid in list(self._pids):
                self.peak_kb = max(self.peak_kb, footprint_kb(str(pid)))


def footprint_kb(pid: str) -> int:
    """Resident memory and page tables of a process; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "VmPTE:")))


def ordinary_inputs() -> dict[str, Tensor]:
    """(1, B) each, the same every time."""
    generator = torch.Generator().manual_seed(3)
    rows = -30 + 3 * torch.randn(4, 1, _BATCH, generator=generator)
    return {n: r.clone().requires_grad_(n.startswith("policy")) for n, r in zip(PAIRS.required[:4], rows, strict=True)}


def numbers_of(oracle: LossOracle, inputs: dict[str, Tensor]) -> Tensor:
    """Mean, losses and gradients of one call as training gets them, flat."""
    means = oracle(inputs, {"beta": [0.1]})
    gradients = torch.autograd.grad(means.sum(), [inputs[n] for n in PAIRS.required[:2]])
    assert oracle.last_losses is not None
    return torch.cat([means.detach(), oracle.last_losses.flatten(), *(g.flatten() for g in gradients)])


def innocent(server: OracleServer) -> Tensor:
    """What DPO gives in a fresh child."""
    with LossOracle(server, KNOWN["dpo"], PAIRS, PAIRS.required) as oracle:
        return numbers_of(oracle, ordinary_inputs())


def cage(server: RecordingServer, attack: Attack, places: Places, patient: bool) -> Outcome:
    """Run one attack with the gate off. `patient`: it is not expected to take all the time there is."""
    source = places.fill(attack, "cage")
    if "@VICTIM@" in source:
        source = source.replace("@VICTIM@", str(places.bystander))
    candidate = Candidate(PAIRS.name, SKELETON_KEY + source)
    limits = Limits(*(_PATIENT if patient else _HASTY), MEMORY_MB)
    server.forget()
    for _ in range(_TRIES):
        fate, message, traits, leaks = _train(server, candidate, limits, _CALLS.get(attack.check, _USUAL_CALLS))
        if fate != "STARVED":
            break
    leaks += places.reached(attack, "cage") + _spoken(message)
    leaks += [f"child {pid} is still there" for pid, _ in server.exits if Path(f"/proc/{pid}").exists()]
    return Outcome(fate, message, traits, tuple(leaks), server.peak_kb)


def _train(
    server: OracleServer, candidate: Candidate, limits: Limits, calls: int
) -> tuple[str, str, frozenset[str], list[str]]:
    """As a campaign would, except that the probe comes last: some calls, the probe, the replay."""
    honest, same, leaks = innocent_numbers(), True, []
    with LossOracle(server, candidate, PAIRS, PAIRS.required, limits) as oracle:
        try:
            for _ in range(calls):
                inputs = ordinary_inputs()
                found = numbers_of(oracle, inputs)
                if oracle.last_losses is None or not torch.equal(oracle.last_losses.flatten(), found[1 : 1 + _BATCH]):
                    leaks.append("numbers change after they were accepted")
                same &= torch.equal(found, honest)
                leaks += [] if bool(found.isfinite().all()) else ["numbers that are not finite were accepted"]
                untouched = all(torch.equal(t, inputs[n]) for n, t in ordinary_inputs().items())
                leaks += [] if untouched else ["the inputs of the trainer have changed"]
            report = probe(server, candidate, PAIRS, PAIRS.required, limits)
            if report.failure is not None:
                return _fate_of(report.failure, "PROBE"), report.failure.message, frozenset(), leaks
            assert report.properties is not None
            oracle.replay()
        except CandidateError as error:
            stage = "REPLAY" if "of the training, made again" in error.failure.message else "INVALID"
            return _fate_of(error.failure, stage), error.failure.message, frozenset(), leaks
        except InfrastructureError as error:
            return "STARVED", str(error), frozenset(), leaks
    return "HARMLESS", "", _traits(report.properties, same), leaks


def _fate_of(failure: Failure, otherwise: str) -> str:
    if "SIGSYS" in failure.message:
        return "SIGSYS"
    return {FailureKind.OUT_OF_MEMORY: "LIMIT", FailureKind.TIMEOUT: "TIME"}.get(failure.kind, otherwise)


def _traits(properties: Properties, same: bool) -> frozenset[str]:
    found = {
        "same": same,
        "batch_coupled": properties.batch_coupled,
        "unbounded_below": not properties.bounded_below,
        "infinite_at_extremes": not properties.finite_at_extremes,
        "not_decreasing": not properties.monotone_decreasing,
        "detached_parts": properties.detached_parts,
    }
    return frozenset(name for name, holds in found.items() if holds) or frozenset({"own_loss"})


def _spoken(message: str) -> list[str]:
    """What an error text must not tell."""
    found = [f"the message says {word}" for word in (CANARY, HELD_CANARY, "OPENED", "REACHED") if word in message]
    if any(unicodedata.category(c)[0] == "C" and c not in "\n\t" for c in message):
        found.append("control characters in the message")
    if len(message) > 2000:
        found.append(f"a message of {len(message)} characters")
    return found


@functools.cache
def innocent_numbers() -> Tensor:
    """DPO's numbers computed in this process, without any oracle."""
    inputs = {n: t.detach()[0].requires_grad_(t.requires_grad) for n, t in ordinary_inputs().items()}
    namespace: dict[str, Any] = {}
    exec(KNOWN["dpo"].source, namespace)
    losses = namespace[PAIRS.function](**inputs, beta=0.1)
    gradients = torch.autograd.grad(losses.mean(), [inputs[n] for n in PAIRS.required[:2]])
    return torch.cat([losses.mean().detach().view(1), losses.detach(), *gradients])


def descendants() -> set[int]:
    """Direct children of this process."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError):
            text = Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii")
            found |= {int(p) for p in text.split()}
    return found
