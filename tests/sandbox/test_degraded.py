"""The cage where a machine offers less: it holds, or nothing runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from sandbox import landlock
from tests.support.restricted import (
    CONTAINER,
    LANDLOCK,
    NAMESPACES,
    NEW_CALLS,
    ROOT,
    SECCOMP,
    denied,
    run_as_nobody,
    run_restricted,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="candidates run on Linux only")

# what an innocent loss and a guilty one see: is the answer right to the bit, and is everything forbidden stopped?
_SCRIPT = """
import json, os, sys
import torch
from evaluators.preference.contract import PAIRS
from sandbox.child import load
from sandbox.oracle import LossOracle
from sandbox.self_test import self_test
from sandbox.server import OracleServer
from tests.support.losses import KNOWN
inputs = {n: torch.linspace(-40, -3, 64).roll(7 * i).unsqueeze(0) for i, n in enumerate(PAIRS.required[:4])}
expected = load(KNOWN["lrml"].source, PAIRS.function)(**{n: t[0] for n, t in inputs.items()}, beta=0.1)
with OracleServer() as server:
    with LossOracle(server, KNOWN["lrml"], PAIRS, PAIRS.required) as oracle:
        found = oracle.evaluate(inputs, {"beta": [0.1]}).losses[0]
    attempts = self_test(server)
    print(json.dumps({"uid": os.getuid(), "cage": server.cage, "exact": torch.equal(found, expected),
                      "through": [a.name + ": " + a.how for a in attempts if not a.stopped]}))
"""


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exact"]
    assert found["through"] == []
    return found


@pytest.mark.parametrize(
    ("calls", "cage"),
    [
        pytest.param(denied(missing=LANDLOCK), "seccomp", id="no Landlock"),
        pytest.param(denied(LANDLOCK), "seccomp", id="Landlock refused"),
        pytest.param(denied(NAMESPACES, missing=NEW_CALLS), None, id="no user namespaces"),
        pytest.param(denied(CONTAINER, missing=NEW_CALLS), None, id="a container's default filter"),
        pytest.param(denied(CONTAINER, missing=(*NEW_CALLS, *LANDLOCK)), "seccomp", id="an older container"),
    ],
)
def test_the_cage_holds_with_less(calls: dict[int, int], cage: str | None) -> None:
    full = f"seccomp, landlock {landlock.abi()}" if landlock.abi() else "seccomp"
    assert outcome(run_restricted(["-c", _SCRIPT], calls))["cage"] == (cage or full)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_cage_holds_for_an_ordinary_user() -> None:
    found = outcome(run_as_nobody(["-c", _SCRIPT]))
    assert found["uid"] != 0
    assert found["cage"].startswith("seccomp")


def test_the_cage_holds_for_whoever_runs_this() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert outcome(done)["uid"] == os.getuid()


_DISCOVERY = ["-c", "import sys; from discovery.cli import main; sys.exit(main())"]


@pytest.fixture
def loss_file(tmp_path: Any) -> str:
    from tests.support.losses import expression

    path = tmp_path / "mine.py"
    path.write_text(expression("F.softplus(-beta * d) + 0.01 * (beta * d).tanh()").source, encoding="utf-8")
    return str(path)


def test_without_seccomp_nothing_runs(loss_file: str) -> None:
    for command in (
        [*_DISCOVERY, "check", loss_file],
        ["-m", "evaluators", "run", "preference.enumerable", "--objective", "dpo"],
    ):
        done = run_restricted(command, denied(SECCOMP))
        assert done.returncode == 1, done.stdout
        (line,) = done.stderr.splitlines()
        assert "cannot confine candidates (seccomp: Operation not permitted), so none is run" in line
        assert "--unsafe-no-sandbox" in line
        assert done.stdout == ""


def test_without_seccomp_the_risk_can_be_taken(loss_file: str) -> None:
    done = run_restricted([*_DISCOVERY, "check", loss_file, "--unsafe-no-sandbox", "--json"], denied(SECCOMP))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"]


def test_without_seccomp_the_doctor_says_so() -> None:
    done = run_restricted([*_DISCOVERY, "doctor", "--json"], denied(SECCOMP))
    assert done.returncode == 1, done.stderr
    found = {f["what"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["seccomp"]["state"] == "bad"
    assert "cannot confine" in found["self-test"]["text"]
