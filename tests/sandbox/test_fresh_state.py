"""Each call of a candidate meets a module that no call has seen, and inputs that belong to the caller."""

from __future__ import annotations

import pytest
import torch

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.child import FILENAME, Program
from sandbox.failure import CandidateError, FailureKind
from sandbox.oracle import LossOracle
from sandbox.packed import ContractError
from sandbox.probe import probe
from sandbox.server import OracleServer
from tests.support.losses import HEAD, MARGIN

CALLS = 200
END = "    return -F.logsigmoid(beta * d * (1.0 if seen % 40 != 11 else 2.0))\n"  # another answer in 5 of 200 calls


# the gate aside: ways to remember the calls so far
def module(lines: str, above: str = "", extra: str = "") -> str:
    """A candidate up to the last line, with `seen` bound by these lines."""
    head = HEAD.replace("float)", f"float{extra})").replace("\n\n\ndef", f"\n{above}\n\n\ndef", 1)
    return head + MARGIN + "".join(f"    {line}\n" for line in lines.splitlines())


MEMORIES = {
    "a list of the module": module("K.append(1)\nseen = len(K)", "K = []"),
    "a default": module("k.append(1)\nseen = len(k)", extra=", k=[]"),
    "a global": module("global K\nK += 1\nseen = K", "K = 0"),
    "an iterator": module("seen = [k for k, _ in zip(K, [0])][0]", "K = (k for k in range(1, 999))"),
    "an attribute of a function": module("k.seen = k.__dict__.get('seen', 0) + 1\nseen = k.seen", "k = lambda: 1"),
    "the built-ins": module("b = __builtins__\nb['seen'] = b.get('seen', 0) + 1\nseen = b['seen']"),
    "a list that the entry gives itself": module(
        f"if k:\n    K.append(1)\n    return len(K)\nseen = loss({', '.join(PAIRS.required)}, 1)", "K = []", ", k=0"
    ),
}


def inputs(runs: int = 2, batch: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {n: -20 + 5 * torch.randn(runs, batch, generator=generator) for n in PAIRS.required[:4]}


@pytest.mark.parametrize("name", MEMORIES)
def test_no_call_knows_of_another(name: str, server: OracleServer) -> None:
    """Two runs with equal inputs in every call, and a hundred calls: all alike, to the bit."""
    candidate = Candidate(PAIRS.name, MEMORIES[name] + END)
    asked = {n: t[:1].repeat(2, 1) for n, t in inputs().items()}
    with LossOracle(server, candidate, PAIRS, PAIRS.required) as oracle:
        first = oracle.evaluate(asked, {"beta": [0.1, 0.1]})
        assert torch.equal(first.losses[0], first.losses[1])
        for _ in range(CALLS // 2 - 1):
            assert torch.equal(oracle.evaluate(asked, {"beta": [0.1, 0.1]}).numbers, first.numbers)
        oracle.replay()


@pytest.mark.parametrize(
    "change",
    [
        "reference_chosen_logps.mul_(0.0)",
        "reference_chosen_logps.detach().view(-1)[0] = 1.0",
        "reference_chosen_logps.T.zero_()",
        "with torch.no_grad():\n        policy_chosen_logps.add_(0.0)",
        "torch.add(d, d, out=reference_rejected_logps)",
    ],
)
def test_who_changes_an_input_fails_at_its_first_call(change: str, server: OracleServer) -> None:
    candidate = Candidate(
        PAIRS.name,
        HEAD + MARGIN.rstrip() + f".clone()\n    {change}\n    return d\n".replace("(d, d,", "(d.detach(), 1,"),
    )
    failure = probe(server, candidate, PAIRS, PAIRS.required).failure
    assert failure is not None
    assert failure.kind is FailureKind.CONTRACT
    assert "changed an input in place" in failure.message


def test_a_module_is_run_again_for_each_call_and_ahead_of_it() -> None:
    program = Program("K = []\ndef loss(x):\n    K.append(x)\n    return len(K)\n", "loss")
    assert [program.call(x=1) for _ in range(3)] == [1, 1, 1]
    program.prepare(3)
    assert len(program._ready) == 3
    assert [program.call(x=1) for _ in range(4)] == [1, 1, 1, 1]


def test_what_has_nowhere_to_keep_anything_is_run_once() -> None:
    program = Program("def loss(x):\n    return x\n", "loss", stateless=True)
    program.prepare(9)
    assert len(program._ready) == 1
    assert program.call(x=2) == 2


def test_a_slow_module_is_not_run_far_ahead() -> None:
    program = Program("K = list(range(300000))\ndef loss(x):\n    return len(K)\n", "loss")
    program.prepare(64)
    assert len(program._ready) == 1  # a large one would be held 64 times


def test_a_module_that_fails_when_it_is_run_again_says_so_at_the_call() -> None:
    count = "torch.nn.times = torch.nn.__dict__.get('times', 0) + 1\n"
    source = count + "K = 1 / (2 - min(torch.nn.times, 2))\ndef loss(x):\n    return x\n"
    try:
        program = Program(source, "loss")
        assert program.call(x=1) == 1
        program.prepare(1)
        with pytest.raises(ZeroDivisionError) as caught:
            program.call(x=1)
        assert caught.traceback[-1].frame.code.raw.co_filename == FILENAME
    finally:
        del torch.nn.times


def test_a_module_without_the_function_is_refused() -> None:
    with pytest.raises(ContractError, match="no function 'loss'"):
        Program("x = 1\n", "loss")


def test_an_error_in_a_fresh_module_names_the_line(server: OracleServer) -> None:
    candidate = Candidate(PAIRS.name, HEAD + MARGIN + "    return [][1]\n")
    with LossOracle(server, candidate, PAIRS, PAIRS.required) as oracle, pytest.raises(CandidateError, match="line 8"):
        oracle.evaluate(inputs(), {"beta": [0.1, 0.1]})
