"""What the loss oracle adds to one training step over calling the loss inline.

    python -m benchmarks.oracle [--steps 400] [--json]

Each measured step is a whole optimiser step of a small model (a table of log-prob logits, one run), with the loss called
inline and through the oracle in turns, so that both see the same noise. The two must agree to the last bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.child import load
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer

TARGET_MS = 0.4
BATCHES = (8, 64, 4096)
BETA = 0.1

LONG = """import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    margin = beta * (chosen - rejected)
    spread = (margin - margin.mean()).pow(2).mean().add(1e-6).sqrt()
    scaled = torch.tanh(margin / (1 + spread.detach()))
    weight = torch.sigmoid(-scaled)
    logistic = -F.logsigmoid(margin)
    square = (margin - 1).pow(2)
    hinge = torch.relu(1 - margin)
    blend = weight * logistic + (1 - weight) * torch.log1p(square)
    guard = torch.where(margin > 0, 0.1 * hinge, 0.2 * hinge)
    anchor = F.softplus(-(policy_chosen_logps - reference_chosen_logps) * beta)
    return blend + guard + 0.05 * anchor + 0.01 * torch.exp(-margin.abs())
"""

LossCall = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Row:
    """Medians over the steps of one loss at one batch size; `added_ms` is the median of the paired differences."""

    loss: str
    batch: int
    inline_ms: float
    oracle_ms: float
    added_ms: float
    ratio: float
    met: bool


class _Trainer:
    """The smallest real trainer: log-probs of B responses under a table of logits, SGD."""

    def __init__(self, batch: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(32, 64, generator=generator).requires_grad_(True)
        self.chosen = torch.randint(0, 32 * 64, (batch,), generator=generator)
        self.rejected = torch.randint(0, 32 * 64, (batch,), generator=generator)
        self.optimiser = torch.optim.SGD([self.logits], lr=0.1)
        with torch.no_grad():
            self.reference = self._logps()

    def _logps(self) -> tuple[Tensor, Tensor]:
        table = self.logits.log_softmax(1).flatten()
        return table[self.chosen].unsqueeze(0), table[self.rejected].unsqueeze(0)  # (1, B)

    def step(self, call: LossCall) -> Tensor:
        """One optimiser step; returns the mean loss."""
        chosen, rejected = self._logps()
        mean = call(dict(zip(PAIRS.required, (chosen, rejected, *self.reference), strict=False)))
        self.optimiser.zero_grad()
        mean.sum().backward()
        self.optimiser.step()
        return mean.detach()


def measure(name: str, candidate: Candidate, batch: int, steps: int, server: OracleServer) -> Row:
    """Inline and oracle steps in turns. Raises AssertionError if losses or weights differ in any bit."""
    function = load(candidate.source, PAIRS.function)

    def inline(inputs: dict[str, Tensor]) -> Tensor:
        mean: Tensor = function(**{n: t[0] for n, t in inputs.items()}, beta=BETA).mean()
        return mean.unsqueeze(0)

    trainers = _Trainer(batch), _Trainer(batch)
    times: tuple[list[float], list[float]] = ([], [])
    with LossOracle(server, candidate, PAIRS, check_source(candidate, PAIRS).parameters) as oracle:
        calls: tuple[LossCall, LossCall] = (inline, lambda inputs: oracle(inputs, {"beta": [BETA]}))
        for step in range(steps + 20):
            means = []
            for side in (0, 1) if step % 2 else (1, 0):
                started = time.perf_counter()
                means.append(trainers[side].step(calls[side]))
                times[side].append(1e3 * (time.perf_counter() - started))
            assert torch.equal(*means), f"{name}, batch {batch}: the loss differs at step {step}"
    assert torch.equal(trainers[0].logits, trainers[1].logits), f"{name}, batch {batch}: final weights differ"
    a, b = (t[20:] for t in times)  # the first steps warm caches
    added = statistics.median(y - x for x, y in zip(a, b, strict=True))
    middle = statistics.median(a), statistics.median(b)
    return Row(name, batch, *middle, added, middle[1] / middle[0], added <= TARGET_MS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="measured steps per row")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    losses = {"dpo": known_objective(PAIRS.name, "dpo").candidate, "long": Candidate(PAIRS.name, LONG)}
    with OracleServer() as server:
        rows = [measure(n, c, b, options.steps, server) for n, c in losses.items() for b in BATCHES]
    if options.json:
        print(json.dumps({"target_ms": TARGET_MS, "rows": [asdict(r) for r in rows]}, indent=2))
        return
    print(
        f"{'loss':6} {'B':>5} {'inline ms':>10} {'oracle ms':>10} {'added ms':>9} {'ratio':>6}  adds <= {TARGET_MS} ms"
    )
    for r in rows:
        met = "met" if r.met else "MISSED"
        print(f"{r.loss:6} {r.batch:5} {r.inline_ms:10.3f} {r.oracle_ms:10.3f} {r.added_ms:9.3f} {r.ratio:6.2f}  {met}")
    print("losses and final weights are bit-identical in every row")


if __name__ == "__main__":
    main()
