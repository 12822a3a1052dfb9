"""The loss oracle without a child process: same interface, the objective runs here and autograd goes through it.

For tests of trainers with trusted objectives (and for objectives changed on purpose), and as the other side of the
comparison "the oracle changes no bit".
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.failure import CandidateError, Failure, FailureKind

_DTYPES = {"int64": torch.int64, "bool": torch.bool}


class InlineOracle:
    """Calls a candidate's function per run; `calls`, `wall_s`, `last_losses` as in `sandbox.oracle.LossOracle`."""

    def __init__(self, candidate: Candidate, contract: Contract) -> None:
        self.candidate, self.contract = candidate, contract
        namespace: dict[str, object] = {}
        exec(compile(candidate.source, "<candidate>", "exec"), namespace)
        self._function: Callable[..., torch.Tensor] = namespace[contract.function]  # type: ignore[assignment]
        named = inspect.signature(self._function).parameters
        self.parameters = tuple(i.name for i in contract.inputs if i.name in named)
        self.calls = 0
        self.wall_s = 0.0
        self.last_losses: torch.Tensor | None = None

    def __enter__(self) -> InlineOracle:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to end."""

    def __call__(self, inputs: Mapping[str, torch.Tensor], scalars: Mapping[str, Sequence[float]]) -> torch.Tensor:
        means = self._means(inputs, scalars)
        if not bool(means.isfinite().all()):
            raise CandidateError(
                Failure(FailureKind.NON_FINITE, f"call {self.calls - 1}: mean losses {means.tolist()}")
            )
        return means

    def tolerant(
        self, inputs: Mapping[str, torch.Tensor], scalars: Mapping[str, Sequence[float]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As the oracle's, by the losses alone: a gradient is not known before the backward pass."""
        means = self._means(inputs, scalars)
        return means, means.detach().isfinite()

    def _means(self, inputs: Mapping[str, torch.Tensor], scalars: Mapping[str, Sequence[float]]) -> torch.Tensor:
        started = time.perf_counter()
        specs = self.contract.tensors_of(self.parameters)
        given = {t.name: inputs[t.name] if t.dtype == "float32" else inputs[t.name].to(_DTYPES[t.dtype]) for t in specs}
        numbers = [s.name for s in self.contract.scalars_of(self.parameters)]
        runs = next(iter(inputs.values())).shape[0]
        losses = torch.stack(
            [
                self._function(**{n: t[r] for n, t in given.items()}, **{n: float(scalars[n][r]) for n in numbers})
                for r in range(runs)
            ]
        )
        means = torch.stack([row.mean() for row in losses.unbind(0)])
        self.calls += 1
        self.last_losses = losses.detach()
        self.wall_s += time.perf_counter() - started
        return means
