"""Behaviour probe: what a candidate does on chosen inputs, in an oracle child, before any training is paid for.

Refused: wrong shape or dtype, no usable gradient, non-finite at ordinary inputs, answers that change between equal calls
or between processes. Everything else is a property, recorded and not judged.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract, TensorInput
from sandbox.curve import margin_behaviour
from sandbox.draws import SCALES, directions, draw, draw_scalars, generator_for, log_prob_inputs
from sandbox.failure import CandidateError, Failure, FailureKind
from sandbox.fingerprint import NOT_PROMISED, fingerprint
from sandbox.frames import Answer
from sandbox.limits import Limits
from sandbox.oracle import LossOracle
from sandbox.reports import ProbeReport, Properties
from sandbox.server import OracleServer

_BATCH = 32  # of the ordinary inputs, where training's own is too small to see examples influence each other
_LEAST_BATCH = 16
_SIZES = range(256, 400)  # one of them is tried beside the smallest
_ODD_SIZE = 200  # an unforeseen batch size is smaller
_EXTREMES = (10.0, 100.0, 1e3, 1e4)  # log-ratios far outside what training sees
_FAR = 20.0  # how far a policy input is moved to see whether another example's loss follows
_COUPLED = 1e-5  # relative change of one example's loss when others change; sigmoid alone moves the last bit
_STEP = {torch.float64: 1e-6, torch.float32: 1e-2}  # of the directional finite difference
_DETACHED = {torch.float64: 1e-3, torch.float32: 2e-2}
_MEAN_OFF = {torch.float64: 1e-6, torch.float32: 1e-5}
_PRECISION = 1e-2  # between float32 and float64, relative to the largest loss
_FEW = "the standard deviation of one example is NaN (write .std(unbiased=False)), a mean of none too"
_MAY_DIFFER = 0.1  # of the losses may differ more: those that fall on the other side of a step


def probe(
    server: OracleServer,
    candidate: Candidate,
    contract: Contract,
    parameters: tuple[str, ...],
    limits: Limits | None = None,
    conditions: Conditions | None = None,
) -> ProbeReport:
    """Measure a candidate that the gate accepted. One child, or two where the source could keep state.

    Args:
        conditions: of the training; by default with a secret of this call's own.

    Raises:
        InfrastructureError: our own fault; the candidate has not been judged.
    """
    started, conditions = time.perf_counter(), conditions or Conditions()
    try:
        with LossOracle(server, candidate, contract, parameters, limits) as oracle:
            if not oracle.elementwise:
                server.apart()  # starts while this goes on
            session = _Probe(oracle, conditions)
            report = session.run()
        calls = oracle.calls
        if not oracle.elementwise:  # plain arithmetic has nowhere to keep state, and no way to tell processes apart
            with LossOracle(server.apart(), candidate, contract, parameters, limits) as fresh:
                again = _Probe(fresh, conditions)
                again.ask(again.inputs(_SIZES[-1]))  # what a loss keeps from its first call differs between the two
                _require_same(session.first, again.ask(session.ordinary), "in another process")
            calls += fresh.calls
    except CandidateError as error:
        return ProbeReport(failure=error.failure, facts={"wall_ms": 1e3 * (time.perf_counter() - started)})
    return ProbeReport(
        properties=report.properties,
        fingerprint=report.fingerprint,
        curve=report.curve,
        facts={**report.facts, "wall_ms": 1e3 * (time.perf_counter() - started), "calls": float(calls)},
    )


@dataclass(frozen=True)
class _Inputs:
    tensors: dict[str, Tensor]
    scalars: dict[str, list[float]]


class _Probe:
    """The calls of one probe on one child."""

    def __init__(self, oracle: LossOracle, conditions: Conditions) -> None:
        self.oracle, self.contract, self.conditions = oracle, oracle.contract, conditions
        self.scalars = _ordinary_scalars(self.contract, conditions)
        self.batch = conditions.batch if conditions.batch >= _LEAST_BATCH else _BATCH
        self.ordinary = self.inputs(self.batch)

    def inputs(self, batch: int, dtype: torch.dtype = torch.float32, ratio: float = 2.0) -> _Inputs:
        """Random inputs whose policy values lie within about `ratio` of their references."""
        tensors = draw(
            self.contract,
            (SCALES, batch),
            self.conditions.seed + 2,
            lambda generator, shape: ratio * torch.randn(shape, generator=generator, dtype=torch.float64),
        )
        return _Inputs({name: t.to(dtype) for name, t in tensors.items()}, self.scalars)

    def ask(self, inputs: _Inputs) -> Answer:
        return self.oracle.evaluate(inputs.tensors, inputs.scalars)

    def ask_all(self, several: Sequence[_Inputs]) -> list[Answer]:
        """The answers to several inputs of one batch size, as runs of one packed call."""
        tensors = {n: torch.cat([i.tensors[n] for i in several]) for n in several[0].tensors}
        scalars = {n: [v for i in several for v in i.scalars[n]] for n in several[0].scalars}
        return self.oracle.evaluate(tensors, scalars).split(SCALES)

    def run(self) -> ProbeReport:
        self.first = self.ask(self.ordinary)
        facts = _require_usable(self.first, self.gradient_names())
        _require_same(self.first, self.ask(self.ordinary), "when it was called again")
        self._require_any_size()
        coupled = self._coupling()
        if coupled <= _COUPLED:
            self._require_placeless()
        dtype, mismatch = self._derivative()
        low, finite = self._extremes()
        along = margin_behaviour(self.oracle, dtype)
        facts |= {"largest_coupling": coupled, "gradient_mismatch": mismatch}
        properties = Properties(
            batch_coupled=coupled > _COUPLED,
            bounded_below=low,
            finite_at_extremes=finite,
            monotone_decreasing=self._decreasing() and (along is None or along.falling),
            detached_parts=mismatch > _DETACHED[dtype],
            inputs_with_gradient=tuple(
                n for i, n in enumerate(self.gradient_names()) if bool((self.first.gradients[:, i] != 0).any())
            ),
            uses_reference=self._uses_reference(),
            convex_in_margin=along.convex if along else None,
            bounded_above=along.bounded_above if along else None,
            limit_at_plus_infinity=along.limit_up if along else None,
            limit_at_minus_infinity=along.limit_down if along else None,
        )
        found = fingerprint(self.oracle, self.conditions)
        self._require_stateless()
        return ProbeReport(properties=properties, fingerprint=found, curve=along.curve if along else (), facts=facts)

    def _require_stateless(self) -> None:
        _require_same(self.first, self.ask(self.ordinary), f"after {self.oracle.calls} calls")

    def gradient_names(self) -> list[str]:
        return [t.name for t in self.gradient_inputs()]

    def gradient_inputs(self) -> list[TensorInput]:
        return [t for t in self.contract.tensors_of(self.oracle.parameters) if t.carries_gradient]

    def _require_any_size(self) -> None:
        """Finite in the smallest batch that trainers use, and in a large one."""
        smallest = self.contract.smallest_batch
        where = f"in a batch of {smallest}, the smallest that trainers use"
        _require_finite(self.ask(self.inputs(smallest)), f"{where}; {_FEW}")
        size = random.SystemRandom().choice(_SIZES)
        _require_finite(self.ask(self.inputs(size)), f"at batch size {size}")

    def _coupling(self) -> float:
        """Largest relative change of the first half's losses when only the second half changes.

        The other half is shuffled and shrunk; then each policy input of it is moved far up and far down, and each reference
        far down: a clamped statistic shows in one direction only. Inputs that are no log-probs are mirrored in their range:
        no shuffling changes the mean of a batch's lengths.
        """
        half, ordinary = self.batch // 2, self.ordinary.tensors
        mixed = {n: torch.cat([t[:, :half], t[:, half:].flip(1) * 0.9], 1) for n, t in ordinary.items()}
        for spec in self.contract.tensors:
            if spec.dtype != "float32":
                mixed[spec.name] = ordinary[spec.name]
        variants = [_Inputs(mixed, self.scalars)]
        for name, moved in self._moves(half):
            tensor = torch.cat([ordinary[name][:, :half], moved], 1)
            variants.append(_Inputs({**ordinary, name: tensor}, self.scalars))
        a = self.first.losses[:, :half]
        gaps = [
            (a - v.losses[:, :half]).abs() / (a.abs() + v.losses[:, :half].abs() + 1e-6) for v in self.ask_all(variants)
        ]
        return float(torch.stack(gaps).max())

    def _moves(self, half: int) -> Iterator[tuple[str, Tensor]]:
        """Other values for the second half of one input at a time, within what the contract says of it."""
        for spec in self.gradient_inputs():
            values = self.ordinary.tensors[spec.name][:, half:]
            yield spec.name, values - _FAR
            yield spec.name, values + _FAR if spec.below is None else spec.below + (values - spec.below) / _FAR
            if spec.reference is not None:
                yield spec.reference, self.ordinary.tensors[spec.reference][:, half:] - _FAR
        for spec in self._other_inputs():
            yield spec.name, spec.low + spec.high - self.ordinary.tensors[spec.name][:, half:]

    def _other_inputs(self) -> list[TensorInput]:
        """The inputs that the candidate reads and that are no log-probs: labels, lengths, scores."""
        logps = log_prob_inputs(self.contract)
        return [t for t in self.contract.tensors_of(self.oracle.parameters) if t.name not in logps]

    def _uses_reference(self) -> bool | None:
        """Whether other values of the references change a loss or a gradient; None if the contract has none."""
        references = [t.reference for t in self.contract.tensors if t.reference is not None]
        others = {name: 0.9 * self.ordinary.tensors[name].flip(1) for name in references}
        if not others:
            return None
        found = self.ask(_Inputs({**self.ordinary.tensors, **others}, self.scalars))
        return not (torch.equal(found.losses, self.first.losses) and torch.equal(found.gradients, self.first.gradients))

    def _require_placeless(self) -> None:
        """An example's loss must be the same in a smaller batch, at another place in it, and in a batch of any size.

        The last size is drawn from the system's randomness: a candidate that knows which sizes are probed and behaves
        at those alone is found out at another.
        """
        half, size = self.batch // 2, random.SystemRandom().randrange(1, _ODD_SIZE)
        size = max(size, self.contract.smallest_batch)
        moved = {n: t[:, half:].flip(1) for n, t in self.ordinary.tensors.items()}
        copies = -(-size // self.batch)
        tiled = {n: t.repeat(1, copies)[:, :size] for n, t in self.ordinary.tensors.items()}
        for tensors, expected in (
            (moved, self.first.losses[:, half:].flip(1)),
            (tiled, self.first.losses.repeat(1, copies)[:, :size]),
        ):
            found = self.ask(_Inputs(tensors, self.scalars)).losses
            gap = float(((found - expected).abs() / (expected.abs().amax(1, keepdim=True) + 1e-6)).max())
            if gap > _COUPLED:
                raise CandidateError(
                    Failure(
                        FailureKind.CONTRACT,
                        f"an example's loss changes by {gap:.3g} (relative) with the batch size or its place in the batch; "
                        "it must depend on the values only",
                    )
                )

    def _derivative(self) -> tuple[torch.dtype, float]:
        """What other numbers are measured in, and how far the stated gradient is from a finite difference.

        In float64, unless the loss does not work there or is another function there: only float32 is promised.
        """
        try:
            here, mismatch = self._finite_difference(torch.float64)
        except CandidateError as error:
            if error.failure.kind not in NOT_PROMISED:
                raise
            here = None
        if here is not None:
            gap = (self.first.losses - here.losses).abs() / (here.losses.abs().amax(1, keepdim=True) + 1e-6)
            if float(((gap > _PRECISION) & here.losses.isfinite()).double().mean()) <= _MAY_DIFFER:
                return torch.float64, mismatch
        return torch.float32, self._finite_difference(torch.float32)[1]

    def _finite_difference(self, dtype: torch.dtype) -> tuple[Answer, float]:
        """The answer at ordinary inputs, and the relative mismatch along a random direction there."""
        base, step = self.inputs(self.batch, dtype), _STEP[dtype]
        generator = generator_for(self.conditions.seed + 2, "direction")
        along = {
            spec.name: torch.randn(SCALES, self.batch, generator=generator, dtype=torch.float64)
            for spec in self.gradient_inputs()
        }
        moved = [
            _Inputs({n: (t + s * step * along.get(n, 0.0)).to(dtype) for n, t in base.tensors.items()}, self.scalars)
            for s in (1.0, -1.0)
        ]
        here, forward, backward = self.ask_all([base, *moved])
        _require_means(here, _MEAN_OFF[dtype])
        measured = (forward.losses.double().mean(1) - backward.losses.double().mean(1)) / (2 * step)
        stated = sum((here.gradients[:, i] * v).sum(1) for i, v in enumerate(along.values()))
        scale = here.gradients.abs().sum(dim=(1, 2)) + 1e-12
        gap = ((measured - stated) / scale).abs()
        return here, float(gap[gap.isfinite()].max()) if bool(gap.isfinite().any()) else 0.0

    def _extremes(self) -> tuple[bool, bool]:
        """Whether losses stay bounded below, and finite, as log-ratios grow to 1e4, with equal inputs among them."""
        same = {n: torch.full_like(self.ordinary.tensors[n], -20.0) for n in log_prob_inputs(self.contract)}
        equal = _Inputs({**self.ordinary.tensors, **same}, self.scalars)
        *grown, level = self.ask_all([*(self.inputs(self.batch, ratio=r) for r in _EXTREMES), equal])
        finite = all(bool(a.losses.isfinite().all()) and bool(a.gradients.isfinite().all()) for a in grown)
        finite &= bool(level.losses.isfinite().all())
        lowest = [float(a.losses.nan_to_num(nan=0.0).min()) for a in grown]
        falling = lowest[-1] < -1.0 and lowest[-1] < 5 * min(lowest[-2], -0.1)
        return not falling, finite

    def _decreasing(self) -> bool:
        """Whether a gradient step never moves a policy input the unwanted way, as a margin loss should.

        Not where the contract wants nothing.
        """
        wanted = directions(self.contract, self.ordinary.tensors)
        tolerance = 1e-7 * float(self.first.gradients.abs().max())
        return bool(wanted) and all(
            bool((self.first.gradients[:, i] * wanted[n] <= tolerance).all())
            for i, n in enumerate(self.gradient_names())
            if n in wanted
        )


def _ordinary_scalars(contract: Contract, conditions: Conditions) -> dict[str, list[float]]:
    """Of the scale scalar, values between its probe values; of others, the least, the largest and one between."""
    drawn = draw_scalars(contract, Conditions(conditions.seed + 1), SCALES)
    for scalar in contract.scalars:
        if scalar.name != contract.scale_scalar:
            drawn[scalar.name][1:] = min(scalar.probe_values), max(scalar.probe_values)
    return drawn


def _require_means(answer: Answer, tolerance: float) -> None:
    """The mean that is trained must be that of the losses."""
    losses = answer.losses.double()
    off = (answer.means.double() - losses.mean(1)).abs() / (losses.abs().amax(1) + 1e-6)
    if bool((off > tolerance).any()):
        message = f"the mean loss is off the losses' mean by {float(off.max()):.3g} (relative)"
        raise CandidateError(Failure(FailureKind.CONTRACT, message))


def _require_finite(answer: Answer, where: str) -> None:
    for what, values in (("loss", answer.losses), ("gradient", answer.gradients)):
        bad = int((~values.isfinite()).sum())
        if bad:
            raise CandidateError(
                Failure(FailureKind.NON_FINITE, f"{bad} of {values.numel()} {what} values are not finite {where}")
            )


def _require_usable(answer: Answer, names: list[str]) -> dict[str, float]:
    _require_finite(answer, "at ordinary inputs")
    largest = float(answer.gradients.abs().max())
    if largest == 0.0:
        inputs = " and ".join(names)
        raise CandidateError(Failure(FailureKind.CONTRACT, f"the gradient is zero everywhere for {inputs}"))
    return {"largest_gradient": largest, "largest_loss": float(answer.losses.abs().max())}


def _require_same(a: Answer, b: Answer, when: str) -> None:
    for what, x, y in (("losses", a.losses, b.losses), ("gradients", a.gradients, b.gradients)):
        if not torch.equal(x, y):
            gap = float((x - y).abs().max())
            message = f"{what} for equal inputs differ by {gap:.3g} {when}; a loss must be a pure function"
            raise CandidateError(Failure(FailureKind.CONTRACT, message))
