"""What there is to use: known objectives and evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from rich.console import Console, Group
from rich.syntax import Syntax
from rich.text import Text

from discovery.cli.board import WIDE
from discovery.cli.platforms import allow_local_plugins
from discovery.cli.probed import properties
from discovery.cli.tables import (
    add_figure,
    add_name,
    add_note,
    add_text,
    add_word,
    key_values,
    name_cell,
    print_table,
    table,
)
from discovery.cli.terminal import print_json, print_next, stdout_console, words
from discovery.contest import MEANING, PRIVILEGED, told
from evaluators.objectives import Objective, known_families, known_objectives
from evaluators.options import OptionsError, nearest
from evaluators.plugins import load_plugin, plugin_names
from evaluators.properties import measured_properties
from sandbox.contract import Contract
from sandbox.reports import ProbeReport
from sandbox.text import clean_text, one_line


def objectives(as_json: bool) -> None:
    """`discovery objectives`."""
    found = [o for family in known_families() for o in known_objectives(family).values()]
    if as_json:
        print_json([_objective(o) for o in found])
        return
    console = stdout_console()
    wide = console.width >= WIDE
    grid = table()
    add_name(grid, "name", least=12)
    for header in ("family", "year", "falls", "convex", "bounded", "ref.", "coupled"):
        add_word(grid, header)
    if wide:
        add_figure(grid, "at -inf")
        add_figure(grid, "at +inf")
        add_note(grid, "what it is", least=20)
    for objective in found:
        marks = [mark for mark, holds in (("unsure", objective.unsure), (PRIVILEGED, objective.privileged)) if holds]
        name = name_cell(objective.name + (f" ({', '.join(marks)})" if marks else ""))
        more = _more(objective) if wide else []
        grid.add_row(name, objective.family, str(objective.year), *_properties(objective), *more)
    leaves = ("at +inf", "at -inf", "what it is", "coupled", "year", "ref.", "bounded", "convex", "falls", "family")
    print_table(console, grid, leaves)
    console.print(
        "\nfalls: never rises with the margin (chosen log-ratio minus rejected). convex, at: of the loss over the margin. "
        "bounded: below, above. ref.: uses the reference. coupled: examples of a batch influence each other. "
        f"{MEANING}.",
        style="dim",
    )
    console.print()
    print_next(console, "discovery objectives show NAME, discovery nearest FILE.py|ID")


def _properties(objective: Objective) -> list[str]:
    """Falls, convex, bounded, reference, coupled."""
    found = measured_properties(objective.contract)[objective.name]
    yes = {True: "yes", False: "no", None: "-"}
    sides = [side for side, bounded in (("below", found.bounded_below), ("above", found.bounded_above)) if bounded]
    bounded = ", ".join(sides) or "no"
    falls, convex, reference = (
        yes[p] for p in (found.monotone_decreasing, found.convex_in_margin, found.uses_reference)
    )
    return [falls, convex, bounded, reference, yes[found.batch_coupled]]


def _more(objective: Objective) -> list[Text]:
    """Limits, and the summary's beginning: its name in full."""
    found = measured_properties(objective.contract)[objective.name]
    limits = [Text(_limit(limit)) for limit in (found.limit_at_minus_infinity, found.limit_at_plus_infinity)]
    return [*limits, words(objective.summary.partition(":")[0], limit=300)]


def _limit(text: str | None) -> str:
    return "-" if text is None else text if text in ("inf", "-inf", "nan") else f"{float(text):.3g}"


def show_objective(name: str, contract: str | None, as_json: bool) -> None:
    """`discovery objectives show`. Raises OptionsError."""
    families = known_families() if contract is None else [contract]
    if contract is not None and contract not in known_families():
        raise OptionsError(f"no known objectives for the interface {contract!r}; {nearest(contract, known_families())}")
    found = [known_objectives(f)[name] for f in families if name in known_objectives(f)]
    if not found:
        names = sorted({n for f in families for n in known_objectives(f)})
        raise OptionsError(f"no known objective {one_line(name, 60)!r}; {nearest(name, names)}")
    if len(found) > 1:
        raise OptionsError(f"{name!r} is in {', '.join(o.contract for o in found)}; choose one with --contract")
    if as_json:
        print_json(_objective(found[0]) | {"source": found[0].candidate.source})
        return
    grid = key_values()
    grid.add_row("name", found[0].name)
    grid.add_row("interface", f"{found[0].contract}, family {found[0].family}")
    grid.add_row("paper", words(found[0].paper, limit=400))
    grid.add_row("candidate", found[0].candidate.id)
    if found[0].privileged:
        grid.add_row(PRIVILEGED, words(f"it reads {told(found[0])}", limit=400))
    for label, value in properties(ProbeReport(properties=measured_properties(found[0].contract)[found[0].name])):
        grid.add_row(label, value)
    console = stdout_console()
    console.print(Group(grid, Text()))
    print_code(console, found[0].candidate.source)


def _objective(objective: Objective) -> dict[str, Any]:
    return {
        "name": objective.name,
        "contract": objective.contract,
        "family": objective.family,
        "year": objective.year,
        "paper": objective.paper,
        "unsure": objective.unsure,
        "summary": objective.summary,
        "equation": objective.equation,
        "inputs": objective.inputs,
        "privileged": objective.privileged,
        "candidate": objective.candidate.id,
        "properties": measured_properties(objective.contract)[objective.name],
    }


def print_code(console: Console, source: str) -> None:
    """Hostile source, highlighted on a terminal. Its lines are never folded, so that it can be copied."""
    text = clean_text(source, 30_000).rstrip("\n")
    console.print(Syntax(text, "python", background_color="default").highlight(text), soft_wrap=True, end="")


def evaluators(as_json: bool) -> None:
    """`discovery evaluators`. One that cannot be loaded is listed with the reason."""
    found = [_evaluator(name) for name in plugin_names("evaluators")]
    if as_json:
        print_json(found)
        return
    grid = table()
    add_name(grid, "name", least=22)
    add_word(grid, "interface")
    add_word(grid, "ranks by")
    add_text(grid, "summary")
    for facts in found:
        said = facts.get("summary") or f"cannot be loaded: {facts['error']}"
        grid.add_row(
            name_cell(facts["name"]), facts.get("contract", "-"), facts.get("primary_metric", "-"), words(said)
        )
    console = stdout_console()
    print_table(console, grid, ("ranks by", "interface"))
    console.print()
    print_next(console, "discovery evaluators NAME")


def show_evaluator(name: str, as_json: bool) -> None:
    """`discovery evaluators NAME`: metrics and options. Raises OptionsError."""
    allow_local_plugins()
    load_plugin("evaluators", name)  # an unknown name is an error here, unlike in the listing
    facts = _evaluator(name)
    if "error" in facts:
        raise OptionsError(f"the evaluator {one_line(name, 60)!r} cannot be loaded: {facts['error']}")
    if as_json:
        print_json(facts)
        return
    head = key_values()
    for label, key in (("name", "name"), ("version", "version"), ("interface", "contract"), ("summary", "summary")):
        head.add_row(label, words(str(facts[key])))
    metrics = table("Metrics")
    add_name(metrics, "metric")
    add_word(metrics, "better")
    add_text(metrics, "meaning")
    for metric in main_metrics(facts["metrics"]):
        mark = " (ranks)" if metric["name"] == facts["primary_metric"] else ""
        least = f"; minimum effect {metric['minimum_effect']:g}" if metric["minimum_effect"] else ""
        meaning = f"{metric['description']} [{metric['unit']}]{least}"
        direction = "higher" if metric["higher_is_better"] else "lower"
        metrics.add_row(words(metric["name"] + mark), direction, words(meaning, limit=400))
    options = table("Options")
    for header in ("option", "default"):
        add_name(options, header)
    add_text(options, "meaning")
    for option in facts["options"]:
        options.add_row(words(option["name"]), words(str(option["default"])), words(option["doc"], limit=400))
    console = stdout_console()
    console.print(Group(head, Text()))
    print_table(console, metrics, ("better",))
    rest = len(facts["metrics"]) - len(main_metrics(facts["metrics"]))
    if rest:
        worlds = list(dict.fromkeys(m["name"].partition("/")[2] for m in facts["metrics"] if "/" in m["name"]))
        example = next(m["name"] for m in facts["metrics"] if "/" in m["name"])
        console.print(words(f"and each by world, for instance {example}; the worlds: {', '.join(worlds)}", "dim", 400))
    console.print()
    print_table(console, options)


def main_metrics(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that are not one world's part (`metric/world`) of another."""
    return [m for m in metrics if "/" not in m["name"]]


def _evaluator(name: str) -> dict[str, Any]:
    try:
        kind = load_plugin("evaluators", name)
        return {
            "name": name,
            "version": kind.version,
            "summary": kind.summary,
            "contract": kind.contract.name,
            "primary_metric": kind.primary_metric,
            "metrics": [_metric(m) for m in kind.metrics],
            "options": _options(getattr(kind, "Options", None)),
        }
    except (OptionsError, TypeError) as error:  # somebody's plug-in, or an extra that is missing
        return {"name": name, "error": one_line(str(error))}


def _metric(metric: Any) -> Mapping[str, Any]:
    return {
        "name": metric.name,
        "higher_is_better": metric.higher_is_better,
        "unit": metric.unit,
        "lower": metric.lower,
        "upper": metric.upper,
        "minimum_effect": metric.minimum_effect,
        "description": metric.description,
    }


def _options(options: Any) -> list[dict[str, Any]]:
    if options is None:
        return []
    return [
        {"name": f.name, "default": None if f.default is MISSING else f.default, "doc": f.metadata.get("doc", "")}
        for f in fields(options)
    ]


def contract_named(name: str) -> Contract:
    """The interface of that name, as some evaluator has it. Raises OptionsError."""
    found: dict[str, Contract] = {}
    for evaluator in plugin_names("evaluators"):
        try:
            contract: Contract = load_plugin("evaluators", evaluator).contract
        except OptionsError:  # its interface cannot be had; others may have it
            continue
        found.setdefault(contract.name, contract)
        if name in found:
            return found[name]
    raise OptionsError(f"no interface {one_line(name, 60)!r} among the evaluators; {nearest(name, list(found))}")
