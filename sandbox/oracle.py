"""The loss oracle: a candidate in a child process, used by a trainer as if it were an ordinary loss."""

from __future__ import annotations

import itertools
import mmap
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from sandbox.candidate import Candidate
from sandbox.child_spec import ChildSpec
from sandbox.contract import Contract
from sandbox.elementwise import is_elementwise
from sandbox.failure import CandidateError, Failure, FailureKind, InfrastructureError, MappingError
from sandbox.frames import (
    SPIN_AFTER,
    SPIN_S,
    TEXT_BYTES,
    Answer,
    Frame,
    Header,
    Op,
    Shape,
    Status,
    shape_of,
    split_answer,
)
from sandbox.limits import Limits
from sandbox.replay import Recorder
from sandbox.server import Child, OracleServer, activity, resident_pages
from sandbox.text import clean_text

_SMALLEST_FRAME = 1 << 20  # untouched pages cost nothing, a larger batch later costs a new child
_FRAME_BYTES = 256 * 1024  # room for a probe's largest call, so that it does not need a second child
_FIRST_LOOK_S = 0.25  # a call slower than this gets its CPU time watched
_LOOK_S = 0.1  # between looks at the memory of a slow call
_MEMORY_SLACK_MB = 64  # shared pages that a call touches for the first time
_REPLACEMENTS = 2  # of lost children in one call
_SHORTEST_WATCH_S = 0.03  # CPU time is counted in ticks of 10 ms
_BLAME_SHARE = 0.5  # of a limit the child must have spent computing to be blamed for passing it
_PATIENCE = 4  # times a limit that a starved child gets before the machine is blamed
_TOO_SLOW = "the loss took more than {:.3g} s in {}; make it cheaper"
_MAX_MAGNITUDE = 1e30  # a gradient beyond this is an overflow about to happen

_KIND_OF = {
    Status.CRASH: FailureKind.CRASH,
    Status.CONTRACT: FailureKind.CONTRACT,
    Status.OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
}


class _LostChildError(InfrastructureError):
    """The child is gone, and not through the candidate's fault."""


class LossOracle:
    """One candidate in one child process. Context manager; not thread-safe; the child starts at the first call.

    Args:
        server: where children come from.
        candidate: already accepted by the gate.
        contract: the candidate's contract.
        parameters: the contract inputs that it reads (`GateReport.parameters`).
        limits: of the child.
        module: the source is a module of ours around a candidate that the gate accepted; it may define classes.
        mapped: a loss that couples the batch may be called for many runs at once (`sandbox.packed`).

    Attributes:
        calls, wall_s: round trips so far and the time they took, seen from the trainer.
        elementwise: whether the candidate provably treats every example by itself.
        last_losses: (R, B) per-example losses of the last call, for logging.
    """

    def __init__(
        self,
        server: OracleServer,
        candidate: Candidate,
        contract: Contract,
        parameters: tuple[str, ...],
        limits: Limits | None = None,
        module: bool = False,
        mapped: bool = False,
    ) -> None:
        self.candidate, self.contract, self.parameters = candidate, contract, parameters
        self.limits = limits or Limits()
        self.calls = 0
        self.wall_s = 0.0
        self.last_losses: Tensor | None = None
        self._waited = SPIN_S  # for the last answer; long ones are not watched for
        self._recorder = Recorder()
        self._server = server
        self.elementwise = is_elementwise(candidate.source, contract)
        self._spec = ChildSpec(contract, parameters, self.limits, self.elementwise, mapped, module)
        self._tensors = contract.tensors_of(parameters)
        self._scalars = contract.scalars_of(parameters)
        self._with_gradient = [i for i, t in enumerate(self._tensors) if t.carries_gradient]
        self._child: Child | None = None
        self._cpu_s = 0.0  # of children that have ended

    def __enter__(self) -> LossOracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child. The oracle can be called again: it starts a fresh one."""
        if self._child is not None:
            child, self._child = self._child, None
            self._cpu_s += self._server.end(child).cpu_s

    def __call__(self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Sequence[float]]) -> Tensor:
        """Mean loss of each run, differentiable with respect to the gradient-carrying inputs.

        Args:
            inputs: tensors of shape (R, B) by contract name, any device; those the candidate does not read are ignored.
                Cast to float32, except float64 which is kept.
            scalars: R floats each, by contract name.

        Returns:
            (R,) on the device and with the dtype of the first policy input; `.sum().backward()` gives every run its own
            gradient.

        Raises:
            CandidateError: NON_FINITE, CONTRACT, CRASH, TIMEOUT or OUT_OF_MEMORY.
            InfrastructureError: the child was lost or starved through no fault of its own.
            ValueError: inputs of different shapes, or not R values of a scalar.
        """
        return self._differentiable(inputs, scalars, _require_finite)

    def tolerant(self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Sequence[float]]) -> tuple[Tensor, Tensor]:
        """The same call for runs of which some may diverge; a sweep over learning rates goes on without them.

        Returns:
            The mean losses (R,), and which runs (R,) have finite losses and gradients of a sane size; the gradient of the
            others is 0.

        Raises:
            As `__call__`, but no NON_FINITE.
        """
        finite: list[Tensor] = []

        def silence(answer: Answer, *_: object) -> Answer:
            finite.append(_good(answer))
            return replace(answer, gradients=torch.where(finite[0][:, None, None], answer.gradients, 0.0))

        losses = self._differentiable(inputs, scalars, silence)
        return losses, finite[0]

    def _differentiable(
        self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Sequence[float]], check: Check
    ) -> Tensor:
        policy = [inputs[self._tensors[i].name] for i in self._with_gradient]
        apply: Callable[..., Tensor] = _OracleFunction.apply
        return apply(self, inputs, scalars, check, *policy)

    def evaluate(self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Sequence[float]]) -> Answer:
        """The same call without autograd and without the check for finite values, for probes and plots."""
        first = inputs[self._tensors[0].name]
        runs, batch = first.shape
        shape = shape_of(self._tensors, self._scalars, runs, batch, 8 if first.dtype == torch.float64 else 4)
        settings = tuple(float(v) for s in self._scalars for v in scalars[s.name])
        if len(settings) != shape.scalars * runs:
            raise ValueError(f"{len(settings)} scalars for {runs} runs of {', '.join(s.name for s in self._scalars)}")
        rows = [_of_shape(inputs[tensor.name], first, tensor.name) for tensor in self._tensors]
        started = time.perf_counter()
        numbers, block = self._ask(shape, rows, settings)
        self.calls += 1
        self._recorder.offer(block, settings, numbers)
        self.wall_s += time.perf_counter() - started
        return Answer(numbers, *split_answer(numbers, shape))

    def start(self, runs: int, batch: int) -> None:
        """Start the child and load the candidate now instead of at the first call. Raises what a call raises."""
        self._ready(shape_of(self._tensors, self._scalars, runs, batch, 4))

    def replay(self) -> None:
        """Ask a fresh child a few of the calls so far once more, by the definition: nothing is mapped over runs.

        Raises:
            CandidateError: CONTRACT, an answer differs: what was trained with is not the function in the archive.
            MappingError: an answer of a mapped loss differs by more than rounding; train again without mapping.
        """
        self.close()
        recorder, self._recorder = self._recorder, Recorder()
        mapped, self._spec = self._spec.mapped and not self.elementwise, replace(self._spec, mapped=False)
        for call in recorder.shuffled():
            _, runs, batch = call.inputs.shape
            shape = shape_of(self._tensors, self._scalars, runs, batch, call.inputs.element_size())
            numbers, _ = self._ask(shape, list(call.inputs.unbind(0)), call.scalars)
            gap = call.gap(numbers)
            if gap is None or (mapped and call.rounds_to(numbers, shape)):
                continue
            if mapped:
                raise MappingError(f"call {call.number}, mapped over its runs, gives something else than run by run")
            raise _fault(
                FailureKind.CONTRACT,
                f"call {call.number} of the training, made again in a fresh process, gives other losses or gradients "
                f"(by {gap:.3g}); a loss must be a pure function",
            )

    def _ask(self, shape: Shape, rows: Sequence[Tensor], settings: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """The answer's numbers, copied, and the inputs as they lie in shared memory, (T, R, B).

        A child that was lost through no fault of the candidate is replaced: a pure function can be asked again.
        """
        for attempt in itertools.count(1):
            try:
                child = self._ready(shape)
                views = child.frame.views(shape)
                with torch.no_grad():
                    for place, row in zip(views.rows, rows, strict=True):
                        place.copy_(row)
                child.frame.write_scalars(settings)
                self._round_trip(child, Header(Op.CALL, Status.PENDING, shape.runs, shape.batch, shape.itemsize, 0, 0))
                return views.answer.clone(), views.inputs
            except _LostChildError:
                if attempt > _REPLACEMENTS:
                    raise
        raise AssertionError("unreachable")

    def _ready(self, shape: Shape) -> Child:
        """A child whose frame is large enough, with the candidate loaded."""
        if self._child is not None and self._child.frame.size >= shape.frame_bytes:
            return self._child
        self.close()
        self._child = self._server.fork(self._spec, max(shape.frame_bytes, _SMALLEST_FRAME))
        source = self.candidate.source.encode("utf-8", "replace")
        if len(source) > TEXT_BYTES:
            raise _fault(FailureKind.STATIC, f"the source is longer than {TEXT_BYTES} bytes")
        length = self._child.frame.write_text(source)
        try:
            self._round_trip(self._child, Header(Op.LOAD, Status.PENDING, 0, 0, 4, length, 0))
        except CandidateError:
            self.close()  # a child without a program answers nothing: the next call starts, and fails, as this one
            raise
        return self._child

    def _round_trip(self, child: Child, request: Header) -> None:
        """Ring, wait, and turn everything but success into an error."""
        child.frame.write_header(request)
        if self.wall_s >= self.limits.trial_s:
            self._require_time_left(child)
        if not child.ring():
            raise self._death(child)
        started = time.perf_counter()
        if self.calls > SPIN_AFTER and self._waited < SPIN_S:
            child.frame.await_status(pending=False, seconds=SPIN_S)
        if not self._wait(child):
            raise self._death(child)
        self._waited = time.perf_counter() - started
        answer = child.frame.read_header()
        if answer.status != Status.OK:
            raise self._refusal(child.frame, answer)

    def _wait(self, child: Child) -> bool:
        """Whether the child answered; False if it died. Raises when the limit of a call has passed.

        A child that is starved of CPU time is waited for up to `_PATIENCE` times as long.
        """
        allowed = min(self.limits.call_s, self.limits.trial_s)
        first = min(allowed, _FIRST_LOOK_S)
        child.channel.settimeout(first)
        with suppress(TimeoutError):
            return child.bell()
        (before, _), used, asleep = activity(child.pid), 0.0, True
        watched, started = max(allowed - first, _SHORTEST_WATCH_S), time.perf_counter()
        child.channel.settimeout(min(watched, _LOOK_S))
        while (waited := time.perf_counter() - started) < _PATIENCE * watched:
            with suppress(TimeoutError):
                return child.bell()
            self._watch_memory(child)
            cpu_s, state = activity(child.pid)
            used, asleep = cpu_s - before, asleep and state == "S"
            if waited >= watched and used >= _BLAME_SHARE * watched:
                self.close()
                raise _fault(FailureKind.TIMEOUT, _TOO_SLOW.format(allowed, "one call"))
            if waited >= watched and asleep:  # nothing that computes sleeps, however busy the machine
                self.close()
                raise _fault(
                    FailureKind.TIMEOUT, f"the loss slept for {waited:.3g} s in one call; a loss only computes"
                )
        self.close()
        raise _starved(used, waited)

    def _watch_memory(self, child: Child) -> None:
        """A second look besides RLIMIT_DATA, at all memory that is really there, however it was had."""
        grown_mb = (resident_pages(child.pid) - child.resident_pages) * mmap.PAGESIZE / 2**20
        if grown_mb > self.limits.memory_mb + child.frame.size / 2**20 + _MEMORY_SLACK_MB:
            self.close()
            raise _fault(FailureKind.OUT_OF_MEMORY, f"the loss took more than {self.limits.memory_mb} MB of memory")

    def _require_time_left(self, child: Child) -> None:
        """Called when a trial's calls have taken `trial_s`: raises unless the child has been starved of CPU time."""
        used, limit = self._cpu_s + activity(child.pid)[0], self.limits.trial_s
        if used >= _BLAME_SHARE * limit:
            self.close()
            raise _fault(FailureKind.TIMEOUT, _TOO_SLOW.format(limit, "one trial"))
        if self.wall_s >= _PATIENCE * limit:
            self.close()
            raise _starved(used, self.wall_s)

    def _death(self, child: Child) -> Exception:
        """The child closed its channel without an answer: find out how it ended."""
        self._child = None
        end = self._server.end(child, patience_s=0.5)
        number = end.status & 0x7F
        if end.cpu_s >= self.limits.trial_s:
            return _fault(FailureKind.TIMEOUT, f"the loss used {end.cpu_s:.1f} s of CPU time in one trial")
        if not end.by_itself or number == signal.SIGKILL:
            return _LostChildError("an oracle child was killed from outside")
        if number == signal.SIGSYS:
            return _fault(
                FailureKind.CRASH, "a forbidden system call (SIGSYS): a loss only computes, on what it is given"
            )
        if number:
            name = signal.Signals(number).name
            return _fault(FailureKind.CRASH, f"the process running the loss died of {name}")
        return _fault(FailureKind.CRASH, "the process running the loss ended itself")

    def _refusal(self, frame: Frame, answer: Header) -> Exception:
        text = clean_text(frame.read_text(answer.text_bytes).decode("utf-8", "replace"), 1000)
        where = f"line {answer.line}: " if 0 < answer.line <= self.candidate.source.count("\n") + 1 else ""
        status = Status(answer.status) if answer.status in list(Status) else Status.CRASH
        return _fault(_KIND_OF.get(status, FailureKind.CRASH), where + (text or "no message"))


Check = Callable[[Answer, LossOracle, Mapping[str, Sequence[float]]], Answer]


class _OracleFunction(torch.autograd.Function):
    """Bridges the child's gradients into the trainer's graph."""

    @staticmethod
    def forward(ctx: Any, oracle: LossOracle, inputs: Any, scalars: Any, check: Check, *policy: Tensor) -> Tensor:
        answer = check(oracle.evaluate(inputs, scalars), oracle, scalars)
        oracle.last_losses = answer.losses
        ctx.save_for_backward(
            *(g.to(p.device, p.dtype) for g, p in zip(answer.gradients.unbind(1), policy, strict=True))
        )
        return answer.means.to(policy[0].device, policy[0].dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        weight = upstream[0].unsqueeze(1)  # (R, 1)
        return (None, None, None, None, *(weight * g for g in ctx.saved_tensors))


def _of_shape(tensor: Tensor, first: Tensor, name: str) -> Tensor:
    if tensor.shape != first.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, the first input {tuple(first.shape)}")
    return tensor


def _good(answer: Answer) -> Tensor:
    """(R,) whether a run's mean loss and gradients are numbers of a sane size."""
    return answer.means.isfinite() & (answer.largest <= _MAX_MAGNITUDE)  # NaN compares false


def _require_finite(answer: Answer, oracle: LossOracle, scalars: Mapping[str, Sequence[float]]) -> Answer:
    """Raises CandidateError(NON_FINITE) naming the first offending run and its scalars."""
    if float(answer.numbers.abs().max()) <= _MAX_MAGNITUDE:  # NaN compares false
        return answer
    largest, good = answer.largest, _good(answer)
    if all(good.tolist()):
        return answer
    run = int((~good).nonzero()[0])
    setting = ", ".join(f"{n}={scalars[n][run]:.4g}" for n in oracle.contract.required if n in scalars)
    raise _fault(
        FailureKind.NON_FINITE,
        f"call {oracle.calls}: mean loss {float(answer.means[run]):.4g}, largest gradient {float(largest[run]):.4g} "
        f"(run {run}{', ' if setting else ''}{setting})",
    )


def _fault(kind: FailureKind, message: str) -> CandidateError:
    return CandidateError(Failure(kind, message))


def _starved(used: float, waited: float) -> InfrastructureError:
    return InfrastructureError(f"the oracle child got only {used:.2f} s of CPU time in {waited:.2f} s of waiting")
