"""The gate against programs that nobody wrote: no crash, no hang, and nothing accepted that Python reads differently."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluators.preference.contract import PAIRS
from sandbox import allowlist
from sandbox.candidate import Candidate
from sandbox.failure import CandidateError, FailureKind
from sandbox.gate import MAX_VIOLATIONS, check_source
from sandbox.limits import Limits
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.bytecode import leaks
from tests.support.honest import HONEST
from tests.support.losses import KNOWN
from tests.support.programs import Programs

CPU_LIMIT_S = 0.05
QUICK = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
AFTER_A_DOT = (
    frozenset(part for name in allowlist.DOTTED | allowlist.TENSOR_TYPES for part in name.split("."))
    | allowlist.ATTRIBUTES
    | allowlist.TYPING
    | {"abc"}
)
SYSTEM = re.compile("system call|died|ended itself|INTERNAL|import of")  # what no honest mistake is reported as
SEEDS = st.integers(0, 2**48)  # ten times as fast as letting Hypothesis make every choice; a failure prints the program
SOURCES = sorted(c.source for c in HONEST.values())


def examine(source: str) -> bool:
    """What must hold for any text; whether it was accepted."""
    candidate = Candidate(PAIRS.name, source)
    for attempt in range(4):  # only because a busy machine's caches are counted as our time
        started = time.thread_time()
        report = check_source(candidate, PAIRS)
        cpu_s = time.thread_time() - started
        if cpu_s < CPU_LIMIT_S:
            break
        assert attempt < 3, f"{cpu_s:.3f} s"
    assert len(report.violations) <= MAX_VIOLATIONS
    for violation in report.violations:
        assert 0 <= violation.line <= candidate.source.count("\n") + 1
        text = str(violation)
        assert text.isprintable(), text
        assert len(text) < 700
        assert violation.problem
        assert violation.instead
    if report.accepted:
        assert leaks(candidate.source, AFTER_A_DOT) == []
        assert set(PAIRS.required) <= set(report.parameters)
    return report.accepted


@st.composite
def programs(draw: st.DrawFn) -> str:
    return Programs(Random(draw(SEEDS))).program()


PIECES = [
    *"()[]{}'\"#:,=-~*@%\n\t\\", '"""', "'''", "\\\n", "\n    ", "lambda ", "f'{", 'f"{', "}'", "rb'", "not ", "**",
    "await ", "if ", " else ", "elif ", "for a in b ", "yield ", "@a\n", ".os", ".__class__", "__import__", "os", "open(",
    "torch", "torch.load(", "out=x", "device='cuda'", "\x0c", "\x00", "\r", "\ufeff", "\u202e", "\u00a0", "ｏｓ", "ﬁ", "é",
    "\ud800", "# coding: utf-7\n", "import os\n", "global x\n", "return ", "class A: pass\n", "0x", "1_", "1e", "1if 1else",
    "\\N{DIGIT ONE}", "\\x",
]  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """An honest loss with pieces cut, repeated, moved or put in; sometimes one piece very often."""
    random = Random(draw(SEEDS))
    source = random.choice(SOURCES)
    for _ in range(random.randint(1, 5)):
        start = random.randint(0, len(source))
        end = min(len(source), start + random.randint(0, 40))
        one = random.choice(PIECES)
        several = "".join(random.choice(PIECES) for _ in range(random.randint(2, 12)))
        piece = random.choice(
            ["", source[start:end] * random.choice([2, 3, 30]), one, one * random.choice([5, 25, 900]), several]
        )
        source = source[:start] + piece + source[end:]
    return source


@st.composite
def dense(draw: st.DrawFn) -> str:
    """One or two short units repeated up to the limits: what takes the parser or the gate longest."""
    random = Random(draw(SEEDS))
    unit = "".join(
        random.choice([*PIECES, "a", "x=a;", "a.b;", "f(a=1);", "x+=a;", "1", " ", "#\n", "N=N;"])
        for _ in range(random.randint(1, 5))
    )
    line = random.choice([1, 5, 40, 200, 4000])
    rows = random.choice([1, 20, 590])
    text = ("    " + unit * line + "\n") * rows
    count = iter(range(100_000))
    text = "".join(f"n{next(count)}" if c == "N" else c for c in text[:19_000])
    head = SOURCES[0].split("\n\n")[0] if random.random() < 0.3 else ""
    return head + "def loss(" + ", ".join(PAIRS.required) + "):\n" + text + "    return beta\n"


@given(programs())
@QUICK
def test_programs(source: str) -> None:
    examine(source)


@given(mutants())
@QUICK
def test_mutants_of_honest_losses(source: str) -> None:
    examine(source)


@given(dense())
@settings(QUICK, max_examples=150)
def test_dense_texts(source: str) -> None:
    examine(source)


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(lambda b: b.decode("utf-8", "surrogateescape")),
                 st.binary(max_size=300).map(lambda b: b.decode("latin-1"))))  # fmt: skip
@settings(QUICK, max_examples=150)
def test_any_text_is_refused_politely(source: str) -> None:
    assert not examine(source)


@pytest.mark.slow
@given(st.one_of(programs(), mutants(), dense()))
@LONG
def test_many_programs(source: str) -> None:
    examine(source)


def run_accepted(server: OracleServer, seeds: range) -> Counter[str]:
    """How programs that the gate accepts end in a child, in both precisions; none may look like an attack or be lost."""
    ends: Counter[str] = Counter()
    for seed in seeds:
        candidate = Candidate(PAIRS.name, Programs(Random(seed)).program())
        report = check_source(candidate, PAIRS)
        for dtype in (torch.float32, torch.float64) if report.accepted else ():
            inputs = {t.name: torch.linspace(-30, -10, 32, dtype=dtype).view(1, 32) for t in PAIRS.tensors}
            with LossOracle(server, candidate, PAIRS, report.parameters, Limits(call_s=3.0)) as oracle:
                failure = None
                try:
                    oracle.evaluate(inputs, {"beta": [0.1], "progress": [0.5]})
                except CandidateError as error:
                    failure = error.failure
            ends["ran" if failure is None else failure.kind] += 1
            assert failure is None or not SYSTEM.search(failure.message), (seed, failure)
    return ends


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="candidates run on Linux only")
def test_accepted_programs_run_or_fail_as_honest_mistakes(server: OracleServer) -> None:
    ends = run_accepted(server, range(120))
    assert ends["ran"] >= 3
    assert ends[FailureKind.CRASH] >= 3


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="candidates run on Linux only")
def test_many_accepted_programs_run_or_fail_as_honest_mistakes(server: OracleServer) -> None:
    assert run_accepted(server, range(1000, 5000))["ran"] >= 100


def test_the_grammar_reaches_both_verdicts() -> None:
    """Otherwise the fuzz would prove nothing about what is accepted."""
    verdicts = [examine(Programs(Random(seed)).program()) for seed in range(400)]
    assert 3 <= sum(verdicts) < 390


@pytest.mark.parametrize("source", [*SOURCES, *(c.source for c in KNOWN.values())])
def test_python_reads_honest_losses_as_the_gate_does(source: str) -> None:
    assert examine(source)
