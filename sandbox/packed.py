"""One packed call, in the child: the losses and gradients of R runs of a candidate, from one backward.

A candidate sees one run's batch at a time. How its runs are put to it is a matter of speed alone:

- one after another, which is the definition;
- for an elementwise candidate, runs with equal scalars back to back as one batch: the same arithmetic on the same numbers;
- for any other, one call mapped over runs with equal scalars (`torch.func.vmap`), where that pays and gives what the
  definition gives up to rounding: one run of each call is computed both ways, and after training the replay goes by the
  definition (`oracle.LossOracle.replay`). Torch's rules for mapping are not always right, and ties may share a gradient
  otherwise.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sandbox.contract import ScalarInput, TensorInput
from sandbox.frames import Frame, Shape, Views

# a vectorised loop and its scalar tail may differ in the last bit: runs are joined only where none has a tail
_LANES = 32
_MAPPED_FROM = 8  # runs with equal scalars on average: `python -m benchmarks.packing` shows what mapping them gains
_ROUNDING = 1e-3  # of a run's largest number: more than sums in another order come to, less than another function
_DTYPES = {"float32": None, "int64": torch.int64, "bool": torch.bool}

Function = Callable[..., Any]


class ContractError(Exception):
    """The candidate returned something else than the contract asks for."""


@dataclass(frozen=True)
class Entry:
    """What this candidate is called with, in frame order.

    Attributes:
        function: its name.
        tensors, scalars: the inputs that it reads.
        elementwise: it treats every example by itself, so that runs may be joined.
        mapped: another may be called for many runs at once.
        module: the source is a module of ours around a candidate, with classes in it.
    """

    function: str
    tensors: tuple[TensorInput, ...]
    scalars: tuple[ScalarInput, ...]
    elementwise: bool = False
    mapped: bool = False
    module: bool = False


@dataclass(frozen=True)
class _Part:
    """What one call gave: (k, B) losses of its runs with their graph, and the leaves that they depend on, k * B each."""

    runs: list[int]
    losses: Tensor
    leaves: list[Tensor]

    @cached_property
    def means(self) -> Tensor:
        return torch.mean(self.losses, 1)


_Computed = tuple[list[_Part], list[Tensor]]  # and the gradients of each part's leaves


class Answers:
    """Packed calls of one loaded candidate; remembers only whether mapping it has failed."""

    def __init__(self, function: Function, entry: Entry) -> None:
        self._function, self._entry = function, entry
        self._mapped = entry.mapped and not entry.elementwise

    def write(self, frame: Frame, shape: Shape) -> None:
        """Answer the call that lies in the frame. Raises ContractError, and whatever the candidate raises."""
        views = frame.views(shape)
        scalars = frame.read_scalars(shape.scalars * shape.runs)
        settings = [scalars[run :: shape.runs] for run in range(shape.runs)]
        # cloned: the candidate never holds shared memory
        call = _Call(self._function, self._entry, views.inputs.clone(), settings)
        parts, gradients = self._mapped_answer(call) or self._answer(call)
        with torch.no_grad():
            _write(views, shape, parts, gradients)

    def _answer(self, call: _Call) -> _Computed:
        """By the definition, or what has the same bits."""
        if self._entry.elementwise and call.batch % _LANES == 0:
            parts = [call.joined(group) for group in _groups(call.settings)]
        else:
            parts = [call.joined([run]) for run in range(call.runs)]
        return parts, _gradients(*parts)

    def _mapped_answer(self, call: _Call) -> _Computed | None:
        """The candidate mapped over each group of runs; None if that does not pay, cannot be, or gives something else."""
        groups = _groups(call.settings) if self._mapped else []
        if not groups or call.runs < _MAPPED_FROM * len(groups):
            return None
        try:
            parts = [call.mapped(group) for group in groups]
            answer = parts, _gradients(*parts)
            self._mapped = _agrees(call, *answer)
        except Exception:  # noqa: BLE001 - what is really wrong with the candidate it does run by run as well, and there it is told
            self._mapped = False
        return answer if self._mapped else None


@dataclass(frozen=True)
class _Call:
    """Inputs (T, R, B) and the scalars of each run."""

    function: Function
    entry: Entry
    block: Tensor
    settings: list[tuple[float, ...]]

    @property
    def runs(self) -> int:
        return len(self.settings)

    @property
    def batch(self) -> int:
        return self.block.shape[2]

    def joined(self, runs: list[int]) -> _Part:
        """Some runs with equal scalars as one batch; one run is the definition."""
        size = len(runs) * self.batch
        block = self.block[:, runs[0]] if len(runs) == 1 else self.block[:, runs].view(-1, size)
        values, leaves = self._values(block)
        arguments = self._arguments(values, runs[0])
        result = self.function(**arguments)
        _require_untouched(values)
        check_result(result, size, self.block.dtype)
        _require_graph(result)
        # not a method: a tensor can carry another one of that name
        return _Part(runs, torch.reshape(result, (len(runs), self.batch)), leaves)

    def mapped(self, runs: list[int]) -> _Part:
        """Some runs with equal scalars, each a batch of its own, at once."""
        values, leaves = self._values(self.block[:, runs])

        def one(*values: Tensor) -> Tensor:
            result = self.function(**self._arguments(values, runs[0]))
            check_result(result, self.batch, self.block.dtype)
            return result  # type: ignore[no-any-return]

        losses = torch.func.vmap(one)(*values)
        _require_untouched(values)
        _require_graph(losses)
        return _Part(runs, losses, leaves)

    def _values(self, block: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors of one call, in the contract's order and dtypes, and those of them that carry gradients."""
        values, leaves = [], []
        for spec, row in zip(self.entry.tensors, block.unbind(0), strict=True):
            value = row.detach()  # what unbind returns refuses in-place operations
            if spec.carries_gradient:
                leaves.append(value.requires_grad_(True))
            elif (dtype := _DTYPES[spec.dtype]) is not None:
                value = value.to(dtype)
            values.append(value)
        return values, leaves

    def _arguments(self, values: tuple[Tensor, ...] | list[Tensor], run: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {spec.name: v for spec, v in zip(self.entry.tensors, values, strict=True)}
        numbers = zip(self.entry.scalars, self.settings[run], strict=True)
        return arguments | {scalar.name: number for scalar, number in numbers}


def _groups(settings: list[tuple[float, ...]]) -> list[list[int]]:
    """Runs with equal scalars together."""
    found: dict[tuple[float, ...], list[int]] = {}
    for run, setting in enumerate(settings):
        found.setdefault(setting, []).append(run)
    return list(found.values())


def _agrees(call: _Call, parts: list[_Part], gradients: list[Tensor]) -> bool:
    """Whether one run of a mapped call is what it is alone, gradients included; which one, all numbers of the call decide.

    No candidate can tell which, as it sees one run at a time, and the same call is always checked at the same run.
    """
    run = zlib.crc32(call.block.numpy().tobytes()) % call.runs
    at, part = next((i, part) for i, part in enumerate(parts) if run in part.runs)
    place, leaves = part.runs.index(run), len(part.leaves)
    alone = call.joined([run])
    found = torch.cat([g[place] for g in gradients[at * leaves : (at + 1) * leaves]])
    return alike(part.losses[place], alone.losses[0]) and alike(found, torch.cat(_gradients(alone)))


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether two vectors differ by no more than rounding, relative to their largest number; not finite alike."""
    a, b = a.detach(), b.detach()
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite) or not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
        return False
    scale = float(b[finite].abs().max()) if bool(finite.any()) else 0.0
    return bool(((a - b)[finite].abs() <= _ROUNDING * scale).all())


def _gradients(*parts: _Part) -> list[Tensor]:
    """Of the sum of all runs' means, to each leaf of each part."""
    sums, leaves = [torch.sum(part.means) for part in parts], [leaf for part in parts for leaf in part.leaves]
    found = torch.autograd.grad(sums, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def _write(views: Views, shape: Shape, parts: list[_Part], gradients: list[Tensor]) -> None:
    """Results to their runs' places; `gradients` are those of each part's leaves."""
    losses, means = torch.cat([part.losses for part in parts]), torch.cat([part.means for part in parts])
    if len(parts) == shape.runs:  # in run order, as the frame holds them
        torch.cat([*gradients, losses.view(-1)], out=views.vectors)
        views.means.copy_(means)
        return
    order = [run for part in parts for run in part.runs]
    views.means[order] = means
    views.losses[order] = losses
    per_input = [torch.cat([g.reshape(-1) for g in gradients[i :: shape.gradients]]) for i in range(shape.gradients)]
    views.gradients[order] = torch.stack(per_input).view(shape.gradients, -1, shape.batch).transpose(0, 1)


def _require_untouched(values: list[Tensor]) -> None:
    """Inputs belong to the caller: an exported loss would write over its reference log-probs. Raises ContractError.

    Every view of a tensor shares its count of changes, and these were made for this one call.
    """
    if any(value._version for value in values):
        raise ContractError("changed an input in place; inputs belong to the caller")


def check_result(result: Any, batch: int, dtype: torch.dtype) -> None:
    """Shape and dtype of what the candidate returned. Raises ContractError."""
    if type(result) is not torch.Tensor:
        raise ContractError(f"returned {type(result).__name__}, not a plain tensor of shape ({batch},)")
    if result.layout is not torch.strided:
        raise ContractError(f"returned a tensor of layout {result.layout}, not a plain (dense) one of shape ({batch},)")
    if tuple(result.shape) != (batch,):
        raise ContractError(f"returned shape {tuple(result.shape)}, must be ({batch},): one loss per example")
    if result.dtype != dtype:
        raise ContractError(f"returned {result.dtype} for {dtype} inputs")


def _require_graph(losses: Tensor) -> None:
    """Raises ContractError."""
    if not losses.requires_grad:
        raise ContractError("the losses do not depend on any policy input: no gradient")
