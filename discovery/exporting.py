"""From an archived or a known loss to a verified export. What the command line and other front ends call.

A file is verified before anybody gets it: what of it computes the loss is loaded in a fresh confined process, and must
give the archived loss's values and gradients at drawn inputs, to the last bit, in float64 where the loss works there.
Candidate code runs in such processes only; on platforms that have none, nothing is run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from discovery.dossier import Dossier
from discovery.exporters.base import CALL, Curve, Export, ExportContext, Exporter, ExportError, Runnable
from discovery.formulas.reader import read_formula
from discovery.formulas.tree import Formula, FormulaError, evaluate
from evaluators.objectives import known_objectives
from evaluators.plugin_border import plugin_border
from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract
from sandbox.failure import CandidateError
from sandbox.frames import TEXT_BYTES
from sandbox.gate import check_source
from sandbox.syntax import parse
from sandbox.text import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from sandbox.frames import Answer
    from sandbox.oracle import LossOracle
    from sandbox.server import OracleServer

BESIDE = ("dpo", "hinge", "ipo", "lrml")  # known losses that curves are drawn beside
CURVE_BETA = 0.1
MARGINS = 15.0  # nats each way
_POINTS = 601
_FORMULA_TOLERANCES = {8: 1e-9, 4: 1e-3}  # by bytes a number, relative: reordered arithmetic, equal up to rounding


@dataclass(frozen=True)
class Typed:
    """What a person asked for, as the file tells it: the command, its `--archive`, and the folder beside the file."""

    command: str = "discovery export"
    archive: str = ""
    folder: str = "export_files"


@dataclass(frozen=True)
class Exported:
    """A verified export with the dossier it was made from, its probe filled in. `compared` is False where nothing ran."""

    export: Export
    dossier: Dossier
    compared: bool


def make_export(exporter: Exporter, dossier: Dossier, typed: Typed, server: OracleServer | None) -> Exported:
    """Export one loss and verify the result.

    Args:
        exporter: the format.
        dossier: what is known of the loss.
        typed: what the person wrote.
        server: where processes for candidate code come from; None on a platform that has none.

    Raises:
        ExportError: it failed, cannot be expressed in this format, or the result computes something else.
        InfrastructureError: a process could not be had. PluginError: the exporter is faulty.
    """
    require_usable(exporter, dossier)
    now = datetime.now(UTC).replace(microsecond=0)
    context = ExportContext(
        typed.command, now, version("objective-discovery"), folder=typed.folder, archive=typed.archive
    )
    if dossier.gate.accepted and dossier.entry.failure is None:
        if server is not None:
            dossier = _probed(server, dossier)
        context = _with_formula(context, dossier, server)
        if exporter.wants_curves and server is not None:
            context = replace(context, curves=tuple(_curves(server, dossier)))
    with plugin_border(exporter, f"export of {dossier.entry.candidate.short_id}", (ExportError,)):
        export = exporter.export(dossier, context)
        runnables = exporter.runnables(export, dossier)
    if server is not None:
        verify(server, dossier, runnables)
    return Exported(export, dossier, server is not None and bool(runnables))


def require_usable(exporter: Exporter, dossier: Dossier) -> None:
    """Raises ExportError for a loss that failed, unless the format takes those."""
    entry, failure = dossier.entry, dossier.entry.failure
    if exporter.takes_failed:
        return
    shown = f"{one_line(entry.name, 60) or 'unnamed'} ({entry.candidate.short_id})"
    if failure is not None:
        how = "failed in training" if entry.status == "failed" else "was refused"
        raise ExportError(
            f"{shown} {how} ({one_line(str(failure), 160)}), so there is no loss to export as {exporter.name}; "
            "--format json writes what is known about it"
        )
    if not dossier.gate.accepted:
        raise ExportError(f"{shown} is refused by the gate: {one_line(str(dossier.gate.violations[0]), 200)}")


def _probed(server: OracleServer, dossier: Dossier) -> Dossier:
    """With a fresh probe: it must still pass its checks here."""
    from sandbox.check import check_candidate, refusal

    gate, probe = check_candidate(server, dossier.entry.candidate, dossier.contract)
    failure = refusal(gate, probe)
    if failure is not None:
        raise ExportError(
            f"{dossier.entry.candidate.short_id} does not pass its checks any more ({one_line(str(failure), 160)}); "
            "nothing was exported"
        )
    assert probe is not None
    nearest = dossier.probe.nearest if dossier.probe is not None else None  # not measured again
    return replace(dossier, gate=gate, probe=replace(probe, nearest=nearest))


# the grid


def grid_of(contract: Contract, parameters: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """The inputs of a fingerprint in float64: (R, B) tensors, R scalars. Drawn anew in each process."""
    from sandbox.fingerprint import calls

    drawn = calls(contract, _conditions())
    return {name: t for name, t in drawn.tensors.items() if name in parameters}, drawn.scalars


@cache
def _conditions() -> Conditions:
    return Conditions()


def verify(server: OracleServer, dossier: Dossier, runnables: Sequence[Runnable]) -> None:
    """Each runnable against the archived loss on the probe's grid, losses and gradients.

    Raises:
        ExportError: one differs, or fails. InfrastructureError: nothing could be run.
    """
    candidate, contract, parameters = dossier.entry.candidate, dossier.contract, dossier.parameters
    if not runnables:
        return
    theirs = _answer(server, candidate, contract, parameters, module=False)
    for runnable in runnables:
        called = replace(contract, function=CALL)
        source = within_limits(runnable.source, runnable.adapter)
        try:
            ours = _answer(server, Candidate(contract.name, source), called, parameters, module=True)
        except CandidateError as error:
            raise ExportError(
                f"{runnable.what} does not run ({one_line(str(error), 160)}); nothing was exported"
            ) from None
        if not equal(ours, theirs, runnable.tolerance):
            raise ExportError(f"{runnable.what} computes something else than the archived loss; nothing was exported")


def _answer(
    server: OracleServer, candidate: Candidate, contract: Contract, parameters: tuple[str, ...], module: bool
) -> Answer:
    from sandbox.oracle import LossOracle

    inputs, scalars = grid_of(contract, parameters)
    with LossOracle(server, candidate, contract, parameters, module=module) as oracle:
        return evaluated(oracle, inputs, scalars)


def evaluated(oracle: LossOracle, inputs: Mapping[str, Tensor], scalars: Mapping[str, Sequence[float]]) -> Answer:
    """A loss's answer in float64 or, where it does not work there, in float32, which is all that losses are promised.

    Raises CandidateError, InfrastructureError.
    """
    from sandbox.fingerprint import NOT_PROMISED

    try:
        return oracle.evaluate(inputs, scalars)
    except CandidateError as error:
        if error.failure.kind not in NOT_PROMISED:
            raise
    return oracle.evaluate({name: t.float() for name, t in inputs.items()}, scalars)


def equal(ours: Answer, theirs: Answer, tolerance: float) -> bool:
    """Whether losses and gradients are the same: every bit, or within a relative tolerance of the largest value."""
    import torch

    a, b = ours.numbers.double(), theirs.numbers.double()
    if tolerance == 0:
        return torch.equal(a.view(torch.int64), b.view(torch.int64))
    if not torch.equal(a.isfinite(), b.isfinite()):
        return False
    a, b = a.nan_to_num(0.0, 0.0, 0.0), b.nan_to_num(0.0, 0.0, 0.0)
    return bool(((a - b).abs() <= tolerance * (b.abs() + 1.0)).all())


def within_limits(source: str, adapter: str) -> str:
    """A module with its adapter; without docstrings and comments where those make it longer than a process is sent."""
    whole = f"{source}\n{adapter}"
    if len(whole.encode()) <= TEXT_BYTES:
        return whole
    tree = parse(whole)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    short = ast.unparse(tree) + "\n"
    if len(short.encode()) > TEXT_BYTES:
        raise ExportError(f"the module is longer than {TEXT_BYTES} bytes and cannot be checked; nothing was exported")
    return short


# what goes into documents


def _with_formula(context: ExportContext, dossier: Dossier, server: OracleServer | None) -> ExportContext:
    """The loss's formula, if its source is one and it gives the loss's values."""
    try:
        formula = read_formula(dossier.entry.candidate.source, dossier.contract)
        if server is None:
            raise FormulaError("it cannot be compared with the loss on this platform")
        require_equal(server, dossier, formula)
    except FormulaError as error:
        return replace(context, no_formula=one_line(str(error), 200))
    return replace(context, formula=formula)


def require_equal(server: OracleServer, dossier: Dossier, formula: Formula) -> None:
    """Raises FormulaError if a formula gives other values than the loss on the probe's grid."""
    import torch

    inputs, scalars = grid_of(dossier.contract, dossier.parameters)
    answer = _answer(server, dossier.entry.candidate, dossier.contract, dossier.parameters, module=False)
    for run in range(len(answer.losses)):
        values: dict[str, Tensor | float] = {name: t[run].double() for name, t in inputs.items()}
        values |= {name: v[run] for name, v in scalars.items()}
        try:
            ours = evaluate(formula, values)
        except (TypeError, ValueError, RuntimeError, ArithmeticError, KeyError) as error:
            raise FormulaError(f"its formula cannot be evaluated ({one_line(str(error), 80)})") from None
        theirs = answer.losses[run].double()
        near = _FORMULA_TOLERANCES[answer.losses.element_size()]
        same = torch.isclose(ours.double(), theirs, rtol=near, atol=near, equal_nan=True)
        if ours.shape != theirs.shape or not bool(same.all()):
            raise FormulaError("the formula read from the source gives other values than the loss")


def _curves(server: OracleServer, dossier: Dossier) -> Sequence[Curve]:
    """The loss and known ones along the margin, where the interface has a chosen and a rejected response."""
    contract = dossier.contract
    if not {"policy_chosen_logps", "policy_rejected_logps"} <= set(contract.required):
        return ()
    known = known_objectives(contract.name)
    wanted: Mapping[str, Candidate] = {n: known[n].candidate for n in BESIDE if n in known}
    ours = dossier.entry.candidate
    curves = [curve(server, one_line(dossier.entry.name, 40) or "this loss", ours, contract)]
    for name, candidate in wanted.items():
        if candidate.id != ours.id:
            curves.append(curve(server, name, candidate, contract))
    return curves


def curve(server: OracleServer, name: str, candidate: Candidate, contract: Contract) -> Curve:
    """A loss over margins from -15 to 15 nats, evenly spread in one batch, at one beta.

    The chosen log-ratio is half the margin and the rejected one minus that; other inputs are those of `at_margins`.
    The slope is that of the batch's summed loss along one example's margin: for a loss that treats each example by itself,
    the slope of the curve.
    """
    import torch

    from sandbox.curve import at_margins
    from sandbox.oracle import LossOracle

    margins = torch.linspace(-MARGINS, MARGINS, _POINTS, dtype=torch.float64)
    parameters = check_source(candidate, contract).parameters
    inputs = at_margins(contract, margins.unsqueeze(0))
    scalars = {s.name: [CURVE_BETA if s.name == contract.scale_scalar else s.default] for s in contract.scalars}
    with LossOracle(server, candidate, contract, parameters) as oracle:
        answer = evaluated(oracle, inputs, scalars)
    names = [t.name for t in contract.tensors_of(parameters) if t.carries_gradient]
    sign = {"policy_chosen_logps": 0.5, "policy_rejected_logps": -0.5}
    along = [sign.get(n, 0.0) * _POINTS * answer.gradients[0, i] for i, n in enumerate(names)]
    slopes = torch.stack(along).sum(0)
    return Curve(name, *(tuple(v.double().tolist()) for v in (margins, answer.losses[0], slopes)))
