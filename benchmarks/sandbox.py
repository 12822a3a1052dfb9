"""What the sandbox costs: a caged child against a cold start, gate and probe of each loss, and one training step.

    python -m benchmarks.sandbox [--repeats 30] [--json]

All figures of a table are taken in turns in one run, so that they see the same noise; medians. The cold start is what
isolation by a new process costs without a warm one to fork from: `python -c "import torch"`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from benchmarks import oracle
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.probe import probe
from sandbox.self_test import self_test
from sandbox.server import OracleServer

CHILD_TARGET_MS, GATE_TARGET_MS, PROBE_TARGET_MS, SELF_TEST_TARGET_MS = 25.0, 1.0, 80.0, 100.0
_COLD_STARTS = 5


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - started)


@dataclass(frozen=True)
class Start:
    """A candidate ready to be called, without and with a warm process; and the sandbox's test of itself."""

    cold_ms: float
    child_ms: float
    cold_over_child: float
    self_test_ms: float


def starts(repeats: int, server: OracleServer) -> Start:
    """Cold starts of Python with torch between fresh children that load DPO."""
    candidate = known_objectives(PAIRS.name)["dpo"].candidate
    inputs = {t.name: torch.full((1, 8), -20.0) for t in PAIRS.tensors}
    cold, child, tests = [], [], []
    for _ in range(_COLD_STARTS):
        cold.append(milliseconds(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True)))
        tests.append(milliseconds(lambda: self_test(server)))
        for _ in range(max(2, repeats // _COLD_STARTS)):
            with LossOracle(server, candidate, PAIRS, PAIRS.required) as fresh:
                started = time.perf_counter()
                fresh.start(1, 8)
                child.append(1e3 * (time.perf_counter() - started))
                fresh.evaluate(inputs, {"beta": [0.1]})
    a, b = statistics.median(cold), statistics.median(child)
    return Start(a, b, a / b, statistics.median(tests))


def checks(candidate: Candidate, repeats: int, server: OracleServer) -> dict[str, float]:
    """Medians in milliseconds of gate, one fresh child that answers a call, and the probe."""
    inputs = {t.name: torch.full((1, 8), -20.0) for t in PAIRS.tensors}
    scalars = {s.name: [s.default] for s in PAIRS.scalars}
    parameters = check_source(candidate, PAIRS).parameters

    def fresh_child() -> None:
        with LossOracle(server, candidate, PAIRS, parameters) as fresh:
            fresh.evaluate(inputs, scalars)

    actions: dict[str, Callable[[], object]] = {
        "gate_ms": lambda: check_source(candidate, PAIRS),
        "child_ms": fresh_child,
        "probe_ms": lambda: probe(server, candidate, PAIRS, parameters),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats + 2):
        for name, action in actions.items():
            times[name].append(milliseconds(action))
    row = {name: statistics.median(values[2:]) for name, values in times.items()}
    return {**row, "probe_over_child": row["probe_ms"] / row["child_ms"]}


def _verdict(value: float, target: float) -> str:
    return f"{value:.4g} (target {target:g}: {'met' if value <= target else 'MISSED'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    losses = {name: o.candidate for name, o in known_objectives(PAIRS.name).items()}
    losses["long"] = Candidate(PAIRS.name, oracle.LONG)
    with OracleServer() as server:
        server.start()
        start = starts(options.repeats, server)
        rows = {name: checks(candidate, options.repeats, server) for name, candidate in losses.items()}
        steps = [oracle.measure("dpo", losses["dpo"], batch, 300, server) for batch in oracle.BATCHES]
        cage = server.cage
    if options.json:
        print(
            json.dumps(
                {"cage": cage, "start": asdict(start), "checks": rows, "steps": [asdict(s) for s in steps]}, indent=2
            )
        )
        return
    print(f"cage: {cage}")
    ready = _verdict(start.child_ms, CHILD_TARGET_MS)
    print(f"cold `import torch`: {start.cold_ms:.0f} ms, {start.cold_over_child:.0f} times a caged child that is ready")
    print(f"caged child ready in ms: {ready}")
    print(f"self-test in ms: {_verdict(start.self_test_ms, SELF_TEST_TARGET_MS)}")
    middle = {k: statistics.median(r[k] for r in rows.values()) for k in ("gate_ms", "probe_ms")}
    print(f"over {len(rows)} losses, in ms: gate {_verdict(middle['gate_ms'], GATE_TARGET_MS)}, "
          f"probe {_verdict(middle['probe_ms'], PROBE_TARGET_MS)}")  # fmt: skip
    print(f"\n{'loss':16} {'gate ms':>8} {'child and call ms':>18} {'probe ms':>9} {'probe/child':>12}")
    for name, row in rows.items():
        print("{:16} {:8.2f} {:18.1f} {:9.1f} {:12.1f}".format(name, *row.values()))
    print(f"\n{'one step, B =':>13} {'inline ms':>10} {'oracle ms':>10} {'added ms':>9}")
    for s in steps:
        print(f"{s.batch:13} {s.inline_ms:10.3f} {s.oracle_ms:10.3f} {_verdict(s.added_ms, oracle.TARGET_MS):>9}")


if __name__ == "__main__":
    main()
