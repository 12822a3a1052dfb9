"""Attacks: each succeeds without isolation, the gate refuses what it must, and none gets anywhere in the cage.

The corpus is in hostile_candidates.jsonl and hostile_extra.jsonl, what is expected of it in hostile_verdicts.txt.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import MAX_VIOLATIONS, check_source
from tests.support.hostile import CANARY, FOLDER, MEMORY_MB, Attack, Control, Places, corpus, succeeded
from tests.support.hostile_cage import RecordingServer, cage, descendants, innocent, innocent_numbers
from tests.support.hostile_trainer import Evaluator, state
from tests.support.losses import KNOWN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="candidates run on Linux only")

_PR_SET_CHILD_SUBREAPER = 36
_SLACK_KB = 48 * 1024  # shared pages that a call touches for the first time
_FATES = {"SIGSYS", "LIMIT", "TIME", "INVALID", "PROBE", "REPLAY", "HARMLESS"}
# entries into the kernel that some kernels do not have: there they are a segmentation fault
_RARE_ENTRIES = ("int 0x80", "vsyscall page")


@dataclass(frozen=True)
class Verdict:
    """One line of hostile_verdicts.txt."""

    fate: str
    shows: str
    accepted: bool  # by the gate
    why: str  # it is accepted


def verdicts() -> dict[str, Verdict]:
    lines = (FOLDER / "hostile_verdicts.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, fate, shows, gate = (part.strip() for part in line.split("|"))
            verdict, _, why = gate.partition(": ")
            assert verdict in ("refused", "accepted")
            assert name not in found
            found[name] = Verdict(fate, shows, verdict == "accepted", why)
    return found


ATTACKS, VERDICTS = corpus(), verdicts()
by_id = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with Places(tmp_path_factory.mktemp("hostile")) as ready:
        yield ready


@pytest.fixture(scope="module")
def control(places: Places) -> Iterator[Control]:
    with Control(places) as running:
        yield running


@pytest.fixture(scope="module")
def server(places: Places) -> Iterator[RecordingServer]:
    """A fork server of a careless owner: a secret in the environment, a file held open, daemons inherited."""
    torch.set_num_threads(1)
    descriptors = set(os.listdir("/proc/self/fd"))
    held = os.open(places.folder / "held", os.O_RDONLY)
    os.set_inheritable(held, True)
    os.environ["SBX_CANARY"] = CANARY
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whatever detaches itself would come to us
    try:
        running = RecordingServer()
        with running:
            yield running
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        del os.environ["SBX_CANARY"]
        os.close(held)
    left = set(os.listdir("/proc/self/fd")) - descriptors
    targets = {}
    for number in left:
        with suppress(OSError):
            targets[number] = os.readlink(f"/proc/self/fd/{number}")
    assert [t for t in targets.values() if t.startswith(("socket:", "pipe:", "/memfd:"))] == []


def test_the_corpus_is_large_and_of_distinct_attacks() -> None:
    given = [a for a in ATTACKS if a.id.startswith("h")]
    assert len(given) == 60
    assert len(ATTACKS) >= 60 + 95
    for key in ("id", "source", "attack"):
        assert len({getattr(a, key) for a in ATTACKS}) == len(ATTACKS)
    assert all(a.observable and a.check and a.category and a.entry in ("call", "import") for a in ATTACKS)


def test_a_verdict_for_each() -> None:
    assert list(VERDICTS) == [a.id for a in ATTACKS]
    assert {v.fate for v in VERDICTS.values()} == _FATES
    for name, verdict in VERDICTS.items():
        assert verdict.accepted == bool(verdict.why), name
        assert verdict.shows or verdict.fate != "HARMLESS", name


@by_id
def test_succeeds_without_isolation(attack: Attack, control: Control) -> None:
    facts = control.run(attack)
    _skip_if_missing(attack, facts)
    assert succeeded(attack, facts), facts


@pytest.mark.parametrize("check", sorted({a.check for a in ATTACKS}))
def test_an_honest_loss_succeeds_at_nothing(check: str, control: Control) -> None:
    honest = Attack("honest", "", KNOWN["dpo"].source, "", "", check, "call")
    facts = control.run(honest, limit_s=60.0)
    assert "error" not in facts
    assert not succeeded(honest, facts), facts


@by_id
def test_gate_alone(attack: Attack) -> None:
    report = check_source(Candidate(PAIRS.name, attack.source), PAIRS)
    assert report.accepted == VERDICTS[attack.id].accepted, [str(v) for v in report.violations]
    assert len(report.violations) <= MAX_VIOLATIONS
    assert all(v.problem and v.instead for v in report.violations)


@by_id
def test_cage_alone(attack: Attack, server: RecordingServer, places: Places, control: Control) -> None:
    verdict = VERDICTS[attack.id]
    if _is_rare(attack):
        _skip_if_missing(attack, control.run(attack))
    server.forget()
    assert torch.equal(innocent(server), innocent_numbers())
    ours, bystander, warm_kb = _ourselves(), places.bystander_state(), server.peak_kb
    known = descendants()

    outcome = cage(server, attack, places, patient=verdict.fate != "TIME")

    assert outcome.leaks == ()
    assert outcome.fate == verdict.fate, outcome
    assert verdict.shows in outcome.traits if outcome.fate == "HARMLESS" else verdict.shows in outcome.message
    assert outcome.peak_kb <= warm_kb + MEMORY_MB * 1024 + _SLACK_KB
    assert _ourselves() == ours
    assert places.bystander_state() == bystander
    assert _strays(server, known) == set()
    assert torch.equal(innocent(server), innocent_numbers())


def _is_rare(attack: Attack) -> bool:
    return any(word in attack.attack for word in _RARE_ENTRIES)


def _skip_if_missing(attack: Attack, facts: dict[str, object]) -> None:
    if _is_rare(attack) and facts.get("signal") == 11:
        pytest.skip("this kernel has no such entry")


def _ourselves() -> tuple[dict[str, str], dict[str, float]]:
    """Settings of this process, and what a campaign's evaluator would say here."""
    model = torch.nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu")  # draws no random numbers
    torch.nn.init.ones_(model.weight)
    return state(), Evaluator().metric(model)


def _strays(server: RecordingServer, known: set[int]) -> set[int]:
    """Processes that an attack has left: children of the warm process, or of ours that we did not start."""
    servers = [server, server._apart] if server._apart is not None else [server]
    warm = {z.pid for s in servers for z in (s._current, s._next, *s._retired) if z is not None}
    found = descendants() - known - warm
    for pid in warm:
        found |= {int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()}
    return found
