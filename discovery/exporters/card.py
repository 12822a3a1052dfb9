"""A loss as a Markdown report with figures, to read and to paste into a paper's appendix.

Names and ideas of a candidate stand in code spans and fenced blocks only, which nothing in them can close.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any, ClassVar

from db.records import Ancestor
from discovery.contest import PRIVILEGED, UNLIKE
from discovery.dossier import Dossier, Measurement
from discovery.exporters.base import Export, ExportContext, Exporter
from discovery.exporters.header import MAX_LINEAGE, describe, plain_text
from discovery.exporters.plots import Shape, loss_figure, score_figure, shape_of
from discovery.exporters.rendering import render
from discovery.formulas.writer import latex, notes
from evaluators.options import OptionsError
from evaluators.plugins import load_installed
from sandbox.text import clean_text, one_line

CURVES, SCORES = "loss.png", "scores.png"
_BETA = 0.1
_THOUGHT, _CODE = "\ue000", "\ue001"  # marks that cleaned text never holds
_MEANINGS = {
    "batch_coupled": "examples of a batch influence each other",
    "bounded_below": "losses do not run off to minus infinity on extreme inputs",
    "finite_at_extremes": "finite at log-ratios up to 10,000 nats",
    "monotone_decreasing": "never pushes the chosen response down nor the rejected one up",
    "detached_parts": "the gradient is not the derivative of the loss (stop-gradients)",
    "uses_reference": "losses change with the reference's log-probs",
    "convex_in_margin": "convex in the margin",
    "bounded_above": "bounded above, as the margin goes either way",
    "limit_at_minus_infinity": "tends to, as the margin goes to minus infinity",
    "limit_at_plus_infinity": "tends to, as the margin goes to plus infinity",
}


class CardExporter(Exporter):
    """Writes the report; its figures go into a folder beside it."""

    name: ClassVar[str] = "card"
    summary: ClassVar[str] = "a Markdown report with plots, scores, lineage and the formula in LaTeX (needs matplotlib)"
    suffix: ClassVar[str] = ".md"
    wants_curves: ClassVar[bool] = True

    def export(self, dossier: Dossier, context: ExportContext) -> Export:
        """The report and its PNGs. Raises ExportError if matplotlib is missing or the loss cannot be drawn."""
        compared = [m for m in dossier.measurements if m.versus]
        shapes = [shape_of(c) for c in context.curves]
        attachments = {}
        if shapes:
            attachments[CURVES] = loss_figure(shapes, _BETA)
        if compared:
            attachments[SCORES] = score_figure(compared)
        thought = "" if dossier.entry.origin == "known" else plain_text(dossier.entry.thought).strip()
        text = render(
            "card.md.j2",
            name=span(dossier.entry.name or "unnamed", 80),
            summary=_summary(dossier),
            thought=_THOUGHT if thought else "",
            formula=latex(context.formula) if context.formula else "",
            notes="; ".join(notes(context.formula)) if context.formula else "",
            no_formula=span(context.no_formula, 200),
            curves=f"{context.folder}/{CURVES}" if context.curves else "",
            scores=f"{context.folder}/{SCORES}" if compared else "",
            beta=f"{_BETA:g}",
            shapes=[_shape_row(s) for s in shapes],
            low=f"{shapes[0].margins[0]:g}" if shapes else "",
            high=f"+{shapes[0].margins[-1]:g}" if shapes else "",
            turns=list(_turns(shapes[0])) if shapes else [],
            measurements=[_measurement(m) for m in dossier.measurements],
            properties=list(_properties(dossier)),
            lineage=[_ancestor(a) for a in dossier.lineage[:MAX_LINEAGE]],
            more=max(0, len(dossier.lineage) - MAX_LINEAGE),
            code=_CODE,
            commands=fenced("\n".join(_commands(dossier, context)), "sh"),
            provenance=list(_provenance(dossier, context)),
        )
        text = re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"
        code = clean_text(dossier.entry.candidate.source, 30_000).strip("\n")
        text = text.replace(_THOUGHT, fenced(thought, "text")).replace(_CODE, fenced(code, "python"))
        return Export(text, attachments)


def span(text: str, limit: int = 200) -> str:
    """Hostile text as a code span: one line, without what ends one or a table cell."""
    return f"`{one_line(text, limit).replace('`', chr(39)).replace('|', '¦') or ' '}`"


def fenced(text: str, language: str) -> str:
    """Hostile text as a code block whose fence is longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _summary(dossier: Dossier) -> str:
    entry = dossier.entry
    if not entry.campaign:
        return f"A published loss of the library, for {span(dossier.contract.name)}.{_privileged(dossier)}"
    who = (
        f"the model {span(dossier.model, 80)}"
        if dossier.model
        else f"{span(entry.proposer, 60)}, without a language model"
    )
    if entry.origin == "known":
        who = "its authors; it was a baseline"
    primary = dossier.primary
    by = f"Proposed by {who}, in the campaign {span(entry.campaign, 80)}."
    if primary is None:
        return f"{by} Not measured.{_privileged(dossier)}"
    mean, metric = primary.mean, span(primary.score.metric, 60)
    standing = f" {span(dossier.standing, 600)}." if dossier.standing else ""
    where = f"on {span(primary.evaluator, 60)}.{standing}{_privileged(dossier)}"
    return f"{by} {metric} {mean.mean:.4g}{_interval(mean.low, mean.high)} {where}"


def _privileged(dossier: Dossier) -> str:
    """That it is told more than labels; empty where it is not."""
    if not dossier.privileged:
        return ""
    names = ", ".join(span(n) for n in dossier.privileged)
    return (
        f" **It is {PRIVILEGED}**: it reads {names}, which tell more than labels do, so compare it with losses that do."
    )


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"


def _shape_row(shape: Shape) -> dict[str, str]:
    ends = {"low": shape.slopes[0], "high": shape.slopes[-1]}
    return {
        "name": span(shape.name, 40),
        "at_zero": f"{shape.at_zero:.4g}",
        "slope": f"{_slope_at_zero(shape):.4g}",
        **{k: f"{v:.3g}" for k, v in ends.items()},
    }


def _slope_at_zero(shape: Shape) -> float:
    middle = min(range(len(shape.margins)), key=lambda i: abs(shape.margins[i]))
    return shape.slopes[middle] * shape.unit


def _turns(shape: Shape) -> Iterable[str]:
    """Where the slope changes its sign: minima and maxima along the margin."""
    pairs = zip(shape.margins, shape.margins[1:], shape.slopes, shape.slopes[1:], strict=False)
    for left, right, before, after in pairs:
        if before < 0 < after or after < 0 < before:
            at = left + (right - left) * before / (before - after)
            yield f"{'minimum' if before < 0 else 'maximum'} near d = {at:+.2f}"


def _measurement(measurement: Measurement) -> dict[str, Any]:
    score = measurement.score
    return {
        "where": describe(measurement).replace(measurement.evaluator, span(measurement.evaluator, 60), 1),
        "metric": span(score.metric, 60),
        "direction": "higher" if score.higher_is_better else "lower",
        "mean": f"{measurement.mean.mean:.4g}{_interval(measurement.mean.low, measurement.mean.high)}",
        "seeds": ", ".join(f"{seed}: {value:.4g}" for seed, value in sorted(score.by_seed.items())),
        "versus": [
            {
                "name": span(v.name, 40),
                "mean": f"{v.mean:.4g}",
                "difference": f"{v.difference.mean:+.4g}{_interval(v.difference.low, v.difference.high)}",
                "pairs": str(v.difference.n),
                "verdict": v.difference.says + ("" if v.alike else f", {UNLIKE}"),
            }
            for v in measurement.versus
        ],
        "confidence": measurement.versus[0].difference.family.says if measurement.versus else "",
        "effect": measurement.versus[0].difference.minimum_effect if measurement.versus else 0,
    }


def _properties(dossier: Dossier) -> Iterable[tuple[str, str]]:
    probe = dossier.probe
    if probe is None or probe.properties is None:
        return
    for field, meaning in _MEANINGS.items():
        value = getattr(probe.properties, field)
        if value is not None:
            yield meaning, {True: "yes", False: "no"}.get(value) or one_line(value, 40)
    yield "gradient reaches", ", ".join(span(n) for n in probe.properties.inputs_with_gradient)
    if probe.nearest is not None:
        near = (
            f"{span(m.describe(dossier.contract.scale_scalar))} ({m.distance:.3g})"
            for m in probe.nearest.by_fingerprint
        )
        yield "nearest known losses, by fingerprint (0: a copy, 1.4: nothing in common)", ", ".join(near)
    yield "inputs read", ", ".join(span(n) for n in dossier.parameters)
    yield "of these tell more than labels do", ", ".join(span(n) for n in dossier.privileged) or "none"


def _ancestor(ancestor: Ancestor) -> str:
    who = f"{span(ancestor.name, 60)} ({span(ancestor.candidate_id[:10])}, {span(ancestor.origin, 20)})"
    return f"{who}, {'a parent' if ancestor.depth == 1 else f'{ancestor.depth} generations back'}"


def _commands(dossier: Dossier, context: ExportContext) -> Iterable[str]:
    loss = dossier.entry.name if not dossier.entry.campaign else dossier.entry.candidate.short_id
    loss = shlex.quote(one_line(loss, 80))
    yield "# this report"
    yield one_line(context.command, 400)
    yield "# the loss as a module, and as a trainer for TRL"
    yield f"discovery export {loss} --format torch -o loss.py{context.archive}"
    yield f"discovery export {loss} --format trl -o loss_trl.py{context.archive}"
    for measurement in dossier.measurements:
        seeds = ",".join(str(s) for s in sorted(measurement.score.by_seed))
        words = [
            "discovery",
            "evaluate",
            loss,
            "--evaluator",
            shlex.quote(measurement.evaluator),
            "--seeds",
            f"{seeds},",
        ]
        words += [part for option in _options(dossier, measurement) for part in ("--set", option)]
        yield f"# {one_line(measurement.score.metric, 60)} {measurement.mean.mean:.6g}, {one_line(describe(measurement))}"
        yield one_line(" ".join(words) + context.archive, 2000)


def _options(dossier: Dossier, measurement: Measurement) -> Iterable[str]:
    """Options of the task that differ from the evaluator's defaults, as `--set` takes them."""
    record = dossier.tasks.get(measurement.task_id)
    if record is None:
        return
    usual = _defaults(measurement.evaluator)
    for name, value in record.task.options.items():
        if name not in usual or usual[name] != value:
            yield shlex.quote(f"{name}={_yaml(value)}")


def _defaults(evaluator: str) -> dict[str, Any]:
    try:
        options = getattr(load_installed("evaluators", evaluator), "Options", None)
    except (OptionsError, ImportError, AttributeError):  # one that is not installed here: everything is written out
        return {}
    known = {f.name: f.default for f in fields(options)} if options is not None else {}
    return {n: list(v) if isinstance(v, tuple) else v for n, v in known.items() if v is not MISSING}


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _provenance(dossier: Dossier, context: ExportContext) -> Iterable[tuple[str, str]]:
    entry, proposal = dossier.entry, dossier.proposal
    yield "candidate", span(entry.candidate.id)
    yield "interface", span(dossier.contract.name)
    if entry.campaign:
        yield "campaign", span(entry.campaign, 80)
        yield "origin", f"{span(entry.origin, 20)}, by {span(entry.proposer, 60)}"
        yield "model", span(dossier.model, 80) if dossier.model else "no language model"
    if entry.created_at is not None:
        yield "proposed", f"{entry.created_at:%Y-%m-%d %H:%M} UTC"
    if proposal is not None and proposal.reply is not None and proposal.reply.completion_tokens is not None:
        yield "tokens", f"{proposal.reply.prompt_tokens or 0:,} in, {proposal.reply.completion_tokens:,} out"
    for record in dossier.tasks.values():
        data = record.task.provenance
        where = f"{span(record.task.evaluator, 60)} version {record.task.version}, task {span(record.task.id[:10])}"
        licence = f"licence {span(data.licence, 60)}, sha256 {span(data.sha256[:16])}"
        yield "task", f"{where}; data: {span(data.source, 120)}, {licence}"
    for kind, found in _environments(dossier).items():
        yield kind, ", ".join(found)
    yield "exported", f"{context.exported_at:%Y-%m-%d %H:%M} UTC, objective-discovery {one_line(context.version, 40)}"


def _environments(dossier: Dossier) -> dict[str, Sequence[str]]:
    """Devices and library versions of the trials, each once."""
    found: dict[str, dict[str, None]] = {"devices": {}, "versions": {}}
    for trial in dossier.trials:
        if trial.details.get("device"):
            found["devices"][span(str(trial.details["device"]), 60)] = None
        for name, version in dict(trial.details.get("versions") or {}).items():
            found["versions"][span(f"{name} {version}", 60)] = None
    return {kind: list(values) for kind, values in found.items() if values}
