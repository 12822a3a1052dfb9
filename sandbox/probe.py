"""Behaviour probe: what a candidate does on chosen inputs, in an oracle child, before any training is paid for.

Refused: wrong shape or dtype, no usable gradient, non-finite at ordinary inputs, answers that change between equal calls
or between processes. Everything else is a property, recorded and not judged.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sandbox.candidate import Candidate
from sandbox.contract import Contract, TensorInput
from sandbox.curve import margin_behaviour
from sandbox.draws import anchor_of, directions, draw, log_prob_inputs
from sandbox.failure import CandidateError, Failure, FailureKind
from sandbox.fingerprint import fingerprint, probe_scalars
from sandbox.limits import Limits
from sandbox.oracle import Answer, LossOracle
from sandbox.reports import ProbeReport, Properties
from sandbox.server import OracleServer

_SEED = 7
_BATCH = 32  # runs of this size can be grouped by the oracle
_SIZES = (1, 400)
_ODD_SIZE = 200  # an unforeseen batch size is smaller
_EXTREMES = (10.0, 100.0, 1e3, 1e4)  # log-ratios far outside what training sees
_COUPLED = 1e-5  # relative change of one example's loss when others change; sigmoid alone moves the last bit
_STEP = 1e-6  # of the directional finite difference, in float64
_DETACHED = 1e-3
_PRECISION = 1e-2  # between float32 and float64, relative to the largest loss
_MAY_DIFFER = 0.1  # of the losses may differ more: those that fall on the other side of a step


def probe(
    server: OracleServer,
    candidate: Candidate,
    contract: Contract,
    parameters: tuple[str, ...],
    limits: Limits | None = None,
) -> ProbeReport:
    """Measure a candidate that the gate accepted. One child, or two where the source could keep state.

    Raises:
        InfrastructureError: our own fault; the candidate has not been judged.
    """
    started = time.perf_counter()
    try:
        with LossOracle(server, candidate, contract, parameters, limits) as oracle:
            if not oracle.grouped:
                server.apart()  # starts while this goes on
            session = _Probe(oracle)
            report = session.run()
        calls = oracle.calls
        if not oracle.grouped:  # plain arithmetic has nowhere to keep state, and no way to tell processes apart
            with LossOracle(server.apart(), candidate, contract, parameters, limits) as fresh:
                again = _Probe(fresh)
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

    def __init__(self, oracle: LossOracle) -> None:
        self.oracle, self.contract = oracle, oracle.contract
        self.scalars = probe_scalars(self.contract)
        self.rows = len(next(iter(self.scalars.values()))) if self.scalars else 1
        self.ordinary = self.inputs(_BATCH)

    def inputs(self, batch: int, dtype: torch.dtype = torch.float32, ratio: float = 2.0) -> _Inputs:
        """Random inputs whose policy values lie within about `ratio` of their references."""
        shape = (self.rows, batch)
        tensors = draw(
            self.contract, shape, _SEED, lambda g: ratio * torch.randn(shape, generator=g, dtype=torch.float64)
        )
        return _Inputs({name: t.to(dtype) for name, t in tensors.items()}, self.scalars)

    def ask(self, inputs: _Inputs) -> Answer:
        return self.oracle.evaluate(inputs.tensors, inputs.scalars)

    def ask_all(self, several: Sequence[_Inputs]) -> list[Answer]:
        """The answers to several inputs of one batch size, as runs of one packed call."""
        tensors = {n: torch.cat([i.tensors[n] for i in several]) for n in several[0].tensors}
        scalars = {n: [v for i in several for v in i.scalars[n]] for n in several[0].scalars}
        return self.oracle.evaluate(tensors, scalars).split(self.rows)

    def run(self) -> ProbeReport:
        self.first = self.ask(self.ordinary)
        facts = _require_usable(self.first, self.gradient_names())
        _require_same(self.first, self.ask(self.ordinary), "when it was called again")
        for size in _SIZES:
            _require_finite(self.ask(self.inputs(size)), f"at batch size {size}")
        coupled = self._coupling()
        if coupled <= _COUPLED:
            self._require_placeless()
        detached = self._detached()
        low, finite = self._extremes()
        along = margin_behaviour(self.oracle)
        facts |= {"largest_coupling": coupled, "gradient_mismatch": detached}
        properties = Properties(
            batch_coupled=coupled > _COUPLED,
            bounded_below=low,
            finite_at_extremes=finite,
            monotone_decreasing=self._decreasing() and (along is None or along.falling),
            detached_parts=detached > _DETACHED,
            inputs_with_gradient=tuple(
                n for i, n in enumerate(self.gradient_names()) if bool((self.first.gradients[:, i] != 0).any())
            ),
            uses_reference=self._uses_reference(),
            convex_in_margin=along.convex if along else None,
            bounded_above=along.bounded_above if along else None,
            limit_at_plus_infinity=along.limit_up if along else None,
            limit_at_minus_infinity=along.limit_down if along else None,
        )
        found = fingerprint(self.oracle)
        self._require_stateless()
        return ProbeReport(properties=properties, fingerprint=found, curve=along.curve if along else (), facts=facts)

    def _require_stateless(self) -> None:
        _require_same(self.first, self.ask(self.ordinary), f"after {self.oracle.calls} calls")

    def gradient_names(self) -> list[str]:
        return [t.name for t in self.gradient_inputs()]

    def gradient_inputs(self) -> list[TensorInput]:
        return [t for t in self.contract.tensors_of(self.oracle.parameters) if t.carries_gradient]

    def _coupling(self) -> float:
        """Largest relative change of the first half's losses when only the second half changes.

        The other half is shuffled and shrunk; then each policy input of it is moved far up and far down: a clamped statistic
        shows in one direction only. Inputs that are no log-probs are mirrored in their range: no shuffling changes the mean
        of a batch's lengths.
        """
        half = _BATCH // 2
        mixed = {n: torch.cat([t[:, :half], t[:, half:].flip(1) * 0.9], 1) for n, t in self.ordinary.tensors.items()}
        for spec in self.contract.tensors:
            if spec.dtype != "float32":
                mixed[spec.name] = self.ordinary.tensors[spec.name]
        variants = [_Inputs(mixed, self.scalars)]
        for name, shift in itertools.product(self.gradient_names(), (20.0, -20.0)):
            moved = self.ordinary.tensors[name].clone()
            moved[:, half:] += shift
            variants.append(_Inputs({**self.ordinary.tensors, name: moved}, self.scalars))
        for spec in self._other_inputs():
            mirrored = self.ordinary.tensors[spec.name].clone()
            mirrored[:, half:] = spec.low + spec.high - mirrored[:, half:]
            variants.append(_Inputs({**self.ordinary.tensors, spec.name: mirrored}, self.scalars))
        a = self.first.losses[:, :half]
        gaps = [
            (a - v.losses[:, :half]).abs() / (a.abs() + v.losses[:, :half].abs() + 1e-6) for v in self.ask_all(variants)
        ]
        return float(torch.stack(gaps).max())

    def _other_inputs(self) -> list[TensorInput]:
        """The inputs that the candidate reads and that are no log-probs: labels, lengths, scores."""
        logps = log_prob_inputs(self.contract)
        return [t for t in self.contract.tensors_of(self.oracle.parameters) if t.name not in logps]

    def _uses_reference(self) -> bool | None:
        """Whether other values of the references change a loss or a gradient; None if the contract has none."""
        anchors = [anchor_of(self.contract, t) for t in self.contract.tensors]
        others = {a: 0.9 * self.ordinary.tensors[a].flip(1) for a in anchors if a is not None}
        if not others:
            return None
        found = self.ask(_Inputs({**self.ordinary.tensors, **others}, self.scalars))
        return not (torch.equal(found.losses, self.first.losses) and torch.equal(found.gradients, self.first.gradients))

    def _require_placeless(self) -> None:
        """An example's loss must be the same in a smaller batch, at another place in it, and in a batch of any size.

        The last size is drawn from the system's randomness: a candidate that knows which sizes are probed and behaves
        at those alone is found out at another.
        """
        half, size = _BATCH // 2, random.SystemRandom().randrange(_BATCH + 1, _ODD_SIZE)
        moved = {n: t[:, half:].flip(1) for n, t in self.ordinary.tensors.items()}
        tiled = {n: t.repeat(1, -(-size // _BATCH))[:, :size] for n, t in self.ordinary.tensors.items()}
        for tensors, expected in (
            (moved, self.first.losses[:, half:].flip(1)),
            (tiled, self.first.losses.repeat(1, -(-size // _BATCH))[:, :size]),
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

    def _detached(self) -> float:
        """Relative mismatch between the returned gradient and a finite difference along a random direction."""
        base = self.inputs(_BATCH, torch.float64)
        generator = torch.Generator().manual_seed(_SEED + 1)
        along: dict[str, Tensor] = {}
        for spec in self.gradient_inputs():
            along[spec.name] = torch.randn(self.rows, _BATCH, generator=generator, dtype=torch.float64)
        moved = [
            _Inputs({n: t + s * _STEP * along.get(n, 0.0) for n, t in base.tensors.items()}, self.scalars)
            for s in (1.0, -1.0)
        ]
        here, forward, backward = self.ask_all([base, *moved])
        self._require_one_function(here)
        measured = (forward.means - backward.means) / (2 * _STEP)
        stated = sum((here.gradients[:, i] * v).sum(1) for i, v in enumerate(along.values()))
        scale = here.gradients.abs().sum(dim=(1, 2)) + 1e-12
        gap = ((measured - stated) / scale).abs()
        return float(gap[gap.isfinite()].max()) if bool(gap.isfinite().any()) else 0.0

    def _require_one_function(self, double: Answer) -> None:
        """What is fingerprinted in float64 must be what trains in float32, and the mean must be the losses' mean."""
        a, b = self.first.losses.double(), double.losses
        scale = b.abs().amax(1, keepdim=True) + 1e-6
        differ = ((a - b).abs() / scale > _PRECISION) & b.isfinite()
        if float(differ.double().mean()) > _MAY_DIFFER:
            self._require_stateless()
            gap = float((a - b).abs()[differ].max())
            raise CandidateError(
                Failure(
                    FailureKind.CONTRACT, f"losses in float32 and float64 differ by {gap:.3g}; it must be one function"
                )
            )
        off = (double.means - b.mean(1)).abs() / scale.squeeze(1)
        if bool((off > 1e-6).any()):
            raise CandidateError(
                Failure(
                    FailureKind.CONTRACT, f"the mean loss is off the losses' mean by {float(off.max()):.3g} (relative)"
                )
            )

    def _extremes(self) -> tuple[bool, bool]:
        """Whether losses stay bounded below, and finite, as log-ratios grow to 1e4, with equal inputs among them."""
        same = {n: torch.full_like(self.ordinary.tensors[n], -20.0) for n in log_prob_inputs(self.contract)}
        equal = _Inputs({**self.ordinary.tensors, **same}, self.scalars)
        *grown, level = self.ask_all([*(self.inputs(_BATCH, ratio=r) for r in _EXTREMES), equal])
        finite = all(bool(a.losses.isfinite().all()) and bool(a.gradients.isfinite().all()) for a in grown)
        finite &= bool(level.losses.isfinite().all())
        lowest = [float(a.losses.nan_to_num(nan=0.0).min()) for a in grown]
        falling = lowest[-1] < -1.0 and lowest[-1] < 5 * min(lowest[-2], -0.1)
        return not falling, finite

    def _decreasing(self) -> bool:
        """Whether a gradient step never moves a policy input the unwanted way, as a margin loss should."""
        wanted = directions(self.contract, self.ordinary.tensors)
        tolerance = 1e-7 * float(self.first.gradients.abs().max())
        return all(
            bool((self.first.gradients[:, i] * wanted[n] <= tolerance).all())
            for i, n in enumerate(self.gradient_names())
            if n in wanted
        )


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
