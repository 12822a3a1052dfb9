"""What it costs to judge a candidate: gate, probe, and one fresh child for scale.

python -m benchmarks.probe [--repeats 30] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.oracle import LONG
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.probe import probe
from sandbox.server import OracleServer

GATE_TARGET_MS = 1.0
PROBE_TARGET_MS = 80.0


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - started)


def measure(candidate: Candidate, repeats: int, server: OracleServer) -> dict[str, float]:
    """Medians in milliseconds; the three are taken in turns, so that all see the same noise."""
    inputs = {t.name: torch.full((1, 8), -20.0) for t in PAIRS.tensors}

    scalars = {s.name: [s.default] for s in PAIRS.scalars}
    parameters = check_source(candidate, PAIRS).parameters

    def fresh_child() -> None:
        with LossOracle(server, candidate, PAIRS, parameters) as oracle:
            oracle.evaluate(inputs, scalars)

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    losses = {name: o.candidate for name, o in known_objectives(PAIRS.name).items()}
    losses["long"] = Candidate(PAIRS.name, LONG)
    with OracleServer() as server:
        server.start()
        rows = {name: measure(candidate, options.repeats, server) for name, candidate in losses.items()}
    if options.json:
        print(
            json.dumps({"gate_target_ms": GATE_TARGET_MS, "probe_target_ms": PROBE_TARGET_MS, "rows": rows}, indent=2)
        )
        return
    print(f"{'loss':20} {'gate ms':>8} {'fresh child ms':>15} {'probe ms':>9} {'probe/child':>12}")
    for name, row in rows.items():
        print("{:20} {:8.2f} {:15.1f} {:9.1f} {:12.1f}".format(name, *row.values()))
    print(f"targets on idle cores: gate {GATE_TARGET_MS:g} ms, probe {PROBE_TARGET_MS:g} ms")


if __name__ == "__main__":
    main()
