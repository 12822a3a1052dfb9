"""A trainer as careless as they come: it runs a candidate in its own process and believes what it gets.

Every attack of the hostile corpus must succeed here, as its `observable` says, or the tests of the cage would prove nothing.
Runs only inside the disposable processes of `tests.support.hostile_control`.
"""

from __future__ import annotations

import ast
import builtins
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from evaluators.preference.contract import PAIRS

POLICY, REFERENCE = PAIRS.required[:2], PAIRS.required[2:4]
PLANTED = 7.0
_BATCH = 8
_CALLS = {"mem": 40, "time": 200}  # growth over calls, and calls that are slow only together
_TEXT = 4000  # of an error, for the report; its length is reported apart


class Evaluator:
    """What a campaign would rank by; attacks try to reach it."""

    def metric(self, model: torch.nn.Module) -> dict[str, float]:
        with torch.no_grad():
            chosen = torch.linspace(-1, 1, 8).unsqueeze(1)
            margins = (model(chosen) - model(-chosen * 0)).squeeze(1)
            return {
                "acc": float((torch.sigmoid(margins) > 0.5).float().mean()),
                "nll": float(-F.logsigmoid(margins).mean()),
            }


class Trainer:
    """One candidate, executed with every builtin, and a model next to it."""

    def __init__(self, source: str) -> None:
        torch.manual_seed(1)
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.model.weight)
        namespace: dict[str, Any] = {"__name__": "candidate"}
        # bytes, as of a file that is imported: this honours encoding cookies
        exec(compile(source.encode(), "<candidate>", "exec", dont_inherit=True), namespace)
        self.loss: Callable[..., Any] = namespace[PAIRS.function]

    def inputs(self, batch: int = _BATCH, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(3)
        numbers = -30 + 3 * torch.randn(4, 64, generator=generator, dtype=torch.float64)
        rows = numbers[:, :batch].to(dtype)
        return {n: r.clone().requires_grad_(n in POLICY) for n, r in zip(PAIRS.required[:4], rows, strict=True)}

    def ask(self, inputs: dict[str, Tensor] | None = None) -> Any:
        return self.loss(**(inputs or self.inputs()), beta=0.1)

    def step(self) -> Any:
        """One optimiser step's worth: loss, mean, backward."""
        losses = self.ask()
        losses.mean().backward()
        return losses


def play(source: str, check: str) -> dict[str, Any]:
    """Train with one candidate and observe what `check` asks about. Not every attack lets this return."""
    if check == "gate":
        return _visit(source)
    try:
        found = _OBSERVERS.get(check, _observe_steps)(source, check)
    except Exception as error:  # noqa: BLE001 - as careless trainers do; what is no Exception passes
        trace = error.__traceback__
        while trace is not None:
            trace = trace.tb_next
        text = f"{type(error).__name__}: {error}"
        if check == "file":
            pickle.loads(pickle.dumps(error))  # as a task queue carries errors to its driver
        return {
            "error": text[:_TEXT].encode("ascii", "backslashreplace").decode(),
            "error_length": len(text),
            "controls": any(unicodedata.category(c)[0] == "C" and c not in "\n\t" for c in text[:_TEXT]),
            "out_of_memory": isinstance(error, MemoryError),
        }
    return found


def _visit(source: str) -> dict[str, Any]:
    """A gate that walks the tree by recursion."""
    try:
        ast.NodeVisitor().visit(ast.parse(source))
    except (RecursionError, MemoryError):
        return {"gate_failed": True}
    return {"gate_failed": False}


def _observe_steps(source: str, check: str) -> dict[str, Any]:
    trainer = Trainer(source)
    for _ in range(_CALLS.get(check, 1)):
        losses = trainer.step()
    if check == "file":
        pickle.loads(pickle.dumps(losses.detach() if type(losses) is Tensor else losses))
    return {}


def _observe_verdict(source: str, _: str) -> dict[str, Any]:
    trainer, evaluator = Trainer(source), Evaluator()
    honest = evaluator.metric(trainer.model)
    losses = trainer.ask()
    del losses
    trainer.model.eval()
    return {"honest": honest, "verdict": evaluator.metric(trainer.model)}


def _observe_weights(source: str, _: str) -> dict[str, Any]:
    trainer = Trainer(source)
    trainer.step()
    return {"planted": bool((trainer.model.weight == PLANTED).all())}


def state() -> dict[str, str]:
    """Settings of this process that a candidate could turn."""
    found = {
        "generator": hash(torch.get_rng_state().numpy().tobytes()),
        "random": hash(random.getstate()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "anomaly": torch.is_anomaly_enabled(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "environment": hash(str(sorted(os.environ.items()))),  # never spelt out: it holds keys
        "directory": os.getcwd(),
        "builtins": [id(v) for _, v in sorted(vars(builtins).items())],
        "collector": gc.isenabled(),
        "recursion": sys.getrecursionlimit(),
        "handlers": [str(signal.getsignal(n)) for n in (signal.SIGALRM, signal.SIGTERM, signal.SIGSYS)],
        "functions": [id(f) for f in (torch.sigmoid, F.logsigmoid, torch.Tensor.mean, Evaluator.metric)],
    }
    return {name: str(value) for name, value in found.items()}


def _observe_state(source: str, _: str) -> dict[str, Any]:
    before = state()
    trainer = Trainer(source)
    torch.set_rng_state(torch.Generator().manual_seed(5).get_state())
    before |= {name: state()[name] for name in ("generator",)}
    trainer.ask()
    after = state()
    return {"changed": sorted(name for name in before if before[name] != after[name])}


def _observe_inputs(source: str, _: str) -> dict[str, Any]:
    trainer = Trainer(source)
    inputs = trainer.inputs()
    trainer.ask(inputs)
    same = all(torch.equal(inputs[n], t) and inputs[n].grad is None for n, t in trainer.inputs().items())
    return {"inputs_changed": not same}


def _observe_gradient(source: str, _: str) -> dict[str, Any]:
    """The gradient that training would use against finite differences of the per-example losses."""
    trainer = Trainer(source)
    inputs = trainer.inputs(4, torch.float64)
    trainer.ask(inputs).mean().backward()
    used, measured = [], []
    for name in POLICY:
        gradient = inputs[name].grad
        for i in range(4):
            moved = [trainer.inputs(4, torch.float64) for _ in range(2)]
            for side, step in zip(moved, (1e-5, -1e-5), strict=True):
                side[name].data[i] += step
            up, down = (sum(trainer.ask(side).detach().tolist()) / 4 for side in moved)
            used.append(0.0 if gradient is None else float(gradient[i]))
            measured.append((up - down) / 2e-5)
    gap = max(abs(u - m) for u, m in zip(used, measured, strict=True))
    return {"gradient_gap": gap / (max(map(abs, measured)) + 1e-9)}


def _observe_numbers(source: str, _: str) -> dict[str, Any]:
    """Losses and gradients that no ranking by loss value should trust."""
    trainer = Trainer(source)
    inputs = trainer.inputs()
    losses = trainer.ask(inputs)
    alias = any(losses.data_ptr() == t.data_ptr() for t in inputs.values())
    if losses.requires_grad:
        losses.mean().backward()
    zeros = torch.zeros(_BATCH)
    found = [inputs[n].grad for n in POLICY]
    chosen, rejected = (zeros if g is None else g for g in found)
    gradient = torch.cat([chosen, rejected])
    mean = float(losses.detach().mean())
    return {
        "finite": bool(losses.isfinite().all() and gradient.isfinite().all()),
        "shape": list(losses.shape),
        "too_good": mean < -1e8,
        "zero_but_trains": mean == 0.0 and bool((gradient != 0).any()),
        "alias": alias,
        "no_gradient": not bool((gradient != 0).any()),
        "huge": bool((gradient.abs() > 1e20).any()),
        "wrong_way": bool((chosen > 0).all()),
    }


def _observe_result(source: str, _: str) -> dict[str, Any]:
    result = Trainer(source).ask()
    plain = type(result) is Tensor and result.layout == torch.strided and result.device.type == "cpu"
    return {"plain": plain and result.dtype == torch.float32}


def _observe_context(source: str, _: str) -> dict[str, Any]:
    trainer = Trainer(source)
    with torch.no_grad():
        inside = trainer.ask({n: t.detach() for n, t in trainer.inputs().items()})
    return {"zero_without_gradient": bool((inside == 0).all()) and not bool((trainer.ask() == 0).all())}


def _observe_history(source: str, check: str) -> dict[str, Any]:
    trainer = Trainer(source)
    first = trainer.ask().detach().clone()
    for _ in range(500 if check == "late" else 50):
        last = trainer.ask().detach()
    return {"history": not torch.equal(first, last)}


def _observe_order(source: str, _: str) -> dict[str, Any]:
    trainer = Trainer(source)
    flipped = {n: t.detach().flip(0).requires_grad_(n in POLICY) for n, t in trainer.inputs().items()}
    a, b = trainer.ask().detach(), trainer.ask(flipped).detach().flip(0)
    return {"order": not torch.allclose(a, b)}


def _observe_split(source: str, _: str) -> dict[str, Any]:
    """The same eight examples as training sees them and as a measurement would."""
    trainer = Trainer(source)
    trained = trainer.ask().detach().double()
    measured = trainer.ask(trainer.inputs(32, torch.float64)).detach()[:_BATCH]
    return {"split": not torch.allclose(trained, measured, rtol=1e-3)}


_ELSEWHERE = """import sys
from tests.support.hostile_trainer import Trainer
print(Trainer(sys.stdin.read()).ask().tolist())
"""


def _observe_process(source: str, _: str) -> dict[str, Any]:
    """The same question in two processes that were started, not forked."""
    answers = [
        subprocess.run(
            [sys.executable, "-c", _ELSEWHERE], input=source, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    return {"processes": answers[0] != answers[1]}


_OBSERVERS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "fake": _observe_verdict,
    "planted": _observe_weights,
    "state": _observe_state,
    "inputs": _observe_inputs,
    "hook": _observe_gradient,
    "degenerate": _observe_numbers,
    "nan": _observe_numbers,
    "shape": _observe_numbers,
    "type": _observe_result,
    "ctx": _observe_context,
    "stateful": _observe_history,
    "late": _observe_history,
    "coupling": _observe_order,
    "split": _observe_split,
    "process": _observe_process,
}
