"""What every exported module says about itself: provenance, scores, use. All of it is text that cannot become code."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime

from discovery.contest import PRIVILEGED, UNLIKE, told
from discovery.dossier import Dossier, Measurement
from discovery.exporters.base import ExportContext
from discovery.formulas.writer import notes, text
from discovery.statistics import ALONE, Family
from sandbox.text import clean_text, one_line

WIDTH = 110
MAX_LINEAGE = 20


def docstring(title: str, dossier: Dossier, context: ExportContext, use: Iterable[str], own: str | None) -> str:
    """A module docstring as source: ours, with the candidate's own documentation indented at its end.

    Args:
        title: the first line, ours.
        use: lines that say how to use the file, ours.
        own: the candidate's module docstring, hostile.
    """
    lines = [title, "", *equation(context), *provenance(dossier, context), "", *scores(dossier), "", *use]
    body = "\n".join(lines)
    if own:
        body += f"\n\nThe source's own documentation:\n\n{textwrap.indent(plain_text(own), '    ')}"
    return f'"""{_escape(body.rstrip() + chr(10))}"""\n'


def thought_comment(dossier: Dossier) -> str:
    """The proposer's idea as a comment; empty if it had none, and for published losses, which document themselves."""
    if dossier.entry.origin == "known":
        return ""
    wrapped = [part for line in plain_text(dossier.entry.thought).split("\n") for part in textwrap.wrap(line, WIDTH)]
    if not wrapped:
        return ""
    return "".join(f"# {line}\n" for line in ["The idea, in its proposer's words:", *wrapped]) + "\n"


def name_of(dossier: Dossier) -> str:
    return one_line(dossier.entry.name, 80) or "unnamed"


def equation(context: ExportContext) -> Iterable[str]:
    """The formula, if there is one, with what its symbols mean."""
    if context.formula is None:
        return
    symbols = {
        "lw": "lw, ll: log-probs of the chosen and the rejected response under the policy",
        "rw": "rw, rl: the same under the reference",
    }
    lines = text(context.formula)
    yield from (f"    {line}" for part in lines for line in textwrap.wrap(one_line(part, 1500), WIDTH - 4))
    yield ""
    used = " ".join(lines).replace("(", " ").replace(")", " ").split()
    said = [meaning for mark, meaning in symbols.items() if mark in used or mark.replace("w", "l") in used]
    if said or notes(context.formula):
        yield from textwrap.wrap("; ".join([*said, *notes(context.formula)]) + ".", WIDTH)
        yield ""


def provenance(dossier: Dossier, context: ExportContext) -> Iterable[str]:
    """Where the loss comes from, label by label, and what it was built on."""
    entry, candidate = dossier.entry, dossier.entry.candidate
    fields = {
        "candidate": candidate.id,
        "interface": dossier.contract.name,
        **({PRIVILEGED: f"it reads {told(dossier)}"} if dossier.privileged else {}),
        "campaign": entry.campaign or "none",
        "origin": f"{entry.origin}, by {entry.proposer}",
        "model": dossier.model or "no language model",
        "proposed": _when(entry.created_at) if entry.campaign else "published",
        "exported": _when(context.exported_at),
        "version": f"objective-discovery {context.version}",
        "command": context.command,
    }
    width = max(len(label) for label in fields) + 2
    for label, value in fields.items():
        yield f"    {label + ':':<{width}}{one_line(value, 300)}"
    yield ""
    yield "Built on:"
    for ancestor in dossier.lineage[:MAX_LINEAGE]:
        yield f"    {ancestor.candidate_id[:10]}  {one_line(ancestor.name, 80)} ({one_line(ancestor.origin, 20)})"
    if len(dossier.lineage) > MAX_LINEAGE:
        yield f"    and {len(dossier.lineage) - MAX_LINEAGE} more"
    if not dossier.lineage:
        yield "    no earlier loss"


def scores(dossier: Dossier) -> Iterable[str]:
    """Means with 95% intervals over seeds, paired differences to baselines, and every seed's value."""
    entry = dossier.entry
    if entry.failure is not None:
        yield f"Not ranked: {one_line(str(entry.failure), 160)}."
    elif not dossier.measurements:
        yield "Not measured."
    elif dossier.standing:
        yield from textwrap.wrap(f"{dossier.standing[:1].upper()}{dossier.standing[1:]}.", WIDTH)
        yield ""
    for measurement in dossier.measurements:
        score = measurement.score
        direction = "higher" if score.higher_is_better else "lower"
        yield f"{one_line(score.metric, 40)} ({direction} is better) on {describe(measurement)}:"
        yield f"    mean: {mean_of(measurement)}"
        for seed, value in sorted(score.by_seed.items()):
            yield f"    seed {seed}: {value:.6g}"
        for other in measurement.versus:
            difference = other.difference
            ends = interval(difference.low, difference.high, difference.family)
            by = f"{difference.mean:+.4g}{ends}, {difference.says}" + ("" if other.alike else f", {UNLIKE}")
            yield f"    minus {one_line(other.name, 60)} ({other.mean:.6g}): {by}"


def mean_of(measurement: Measurement) -> str:
    """``0.625, 95% interval [0.5, 0.75], 2 seeds``."""
    mean, count = measurement.mean, len(measurement.score.by_seed)
    return f"{mean.mean:.6g}{interval(mean.low, mean.high)}, {count} seed{'s' if count > 1 else ''}"


def interval(low: float | None, high: float | None, family: Family = ALONE) -> str:
    """``, 95% interval [0.5, 0.75]``, with what it holds for at once; nothing where there is none."""
    return "" if low is None or high is None else f", {family.says} interval [{low:.4g}, {high:.4g}]"


def describe(measurement: Measurement) -> str:
    """The task in words."""
    name = one_line(measurement.evaluator, 60)
    if measurement.ranks:
        return f"{name}, by which the search ranked"
    return f"{name}, on seeds that the search never saw" if measurement.fresh_seeds else f"{name}, another task"


def arguments(dossier: Dossier) -> Iterable[str]:
    """What each input that the loss reads is, indented."""
    for item in (i for i in dossier.contract.inputs if i.name in dossier.parameters):
        yield from (f"    {line}" for line in textwrap.wrap(f"{item.name}: {item.description}", WIDTH - 8))


def _when(moment: datetime | None) -> str:
    return "unknown" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def plain_text(text: str) -> str:
    """Clean lines; separators that some editors take for line ends are real ones here."""
    return "\n".join(clean_text(text, 8000).splitlines())


def _escape(body: str) -> str:
    r"""Text for a triple-quoted literal. It ends in a line break, so no quote can touch the closing ones."""
    return body.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
