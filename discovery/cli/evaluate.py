"""Trials of one loss outside of a campaign: one after the other, without Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from discovery.cli.board import interval_text
from discovery.cli.consent import ASK_FROM_S, require_consent
from discovery.cli.files import accepted_loss
from discovery.cli.losses import find_loss
from discovery.cli.platforms import NO_SANDBOX, allow_local_plugins, require_linux
from discovery.cli.tables import add_figure, add_name, add_word, name_cell, print_table, table
from discovery.cli.terminal import duration, number, print_json, stderr_console, stdout_console, words
from discovery.contest import PRIVILEGED, told
from evaluators.options import OptionsError
from evaluators.plugins import make_plugin
from evaluators.promises import prepare
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.statistics import Difference
    from evaluators.base import Evaluator, TrialReport
    from sandbox.server import OracleServer

MAX_SEEDS = 10_000


@dataclass(frozen=True)
class Trials:
    """What to measure: evaluator name, seeds as written, options as `key=value`, and whether without the sandbox."""

    evaluator: str
    seeds: str
    settings: tuple[str, ...] = ()
    unsafe_no_sandbox: bool = False
    yes: bool = False

    @property
    def seed_list(self) -> tuple[int, ...]:
        """``3`` is 0, 1, 2; ``1000,1001`` or ``7,`` are those seeds. Raises OptionsError."""
        parts = [p.strip() for p in self.seeds.split(",")]
        listed = len(parts) > 1
        if listed and not parts[-1]:
            parts.pop()
        if not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
            raise OptionsError(f"--seeds takes a count or a list such as 1000,1001, not {one_line(self.seeds, 60)!r}")
        values = tuple(int(p) for p in parts) if listed else tuple(range(min(int(parts[0]), MAX_SEEDS + 1)))
        if not values or len(set(values)) < len(values) or len(values) > MAX_SEEDS:
            raise OptionsError(f"--seeds takes 1 to {MAX_SEEDS} seeds, each once")
        return values


def evaluate(loss: str, trials: Trials, archive: str | None, as_json: bool) -> None:
    """`discovery evaluate`. Raises OptionsError, ArchiveError, CandidateError, InfrastructureError, PluginError."""
    require_linux("evaluate")
    allow_local_plugins()
    from discovery.config_input import apply_overrides
    from sandbox.server import OracleServer

    seeds = trials.seed_list
    evaluator: Evaluator = make_plugin("evaluators", trials.evaluator, apply_overrides({}, trials.settings))
    name, candidate = find_loss(loss, evaluator.contract, archive)
    console = stderr_console() if as_json else stdout_console()
    with OracleServer(trials.unsafe_no_sandbox) as server:
        reports = _run(console, server, evaluator, name, candidate, seeds, trials.yes)
    if as_json:
        privileged = check_source(candidate, evaluator.contract).privileged
        print_json(_as_values(name, candidate, evaluator, reports) | {"privileged": privileged})
    else:
        _print_summary(console, evaluator, reports)


def _run(
    console: Console,
    server: OracleServer,
    evaluator: Evaluator,
    name: str,
    candidate: Candidate,
    seeds: tuple[int, ...],
    yes: bool,
) -> list[TrialReport]:
    """Check the loss, then one trial per seed, each printed as it ends. The first one tells how long the rest take."""
    from evaluators.trial import run_trial
    from sandbox.confine import UNCONFINED
    from sandbox.failure import CandidateError

    metric = evaluator.primary_metric
    gate, _ = accepted_loss(console, server, name, candidate, evaluator.contract)
    console.print(Text(f"{name} ({candidate.short_id}) on {evaluator.name}, seeds {_listed(seeds)}"))
    if gate.privileged:
        console.print(words(f"{PRIVILEGED}: it reads {told(gate)}; compare it with losses that do", "magenta", 400))
    if server.cage == UNCONFINED:
        console.print(NO_SANDBOX)
    facts = prepare(evaluator, lambda text: console.print(words(text, "dim")))
    if facts:
        console.print(words(", ".join(f"{k} {v:.4g}" for k, v in facts.items()), "dim", limit=400))
    reports = []
    for seed in seeds:
        started = time.monotonic()
        try:
            report = run_trial(server, evaluator, candidate, gate.parameters, seed)
        except CandidateError as error:
            raise OptionsError(f"{name} failed with seed {seed}: {one_line(str(error), 600)}") from error
        took = duration(time.monotonic() - started)
        console.print(Text(f"seed {seed:<5} {metric} {_value(report, metric)}  ({took})"))
        reports.append(report)
        ahead = (len(seeds) - 1) * (time.monotonic() - started)
        if len(reports) == 1 and ahead > ASK_FROM_S:
            require_consent(f"{len(seeds) - 1:,} more seeds take about {duration(ahead)}", yes)
    return reports


def _listed(seeds: tuple[int, ...]) -> str:
    shown = ", ".join(str(s) for s in seeds[:8])
    return shown if len(seeds) <= 8 else f"{shown}, ... ({len(seeds)})"


def _value(report: TrialReport, metric: str) -> str:
    found = report.metric(metric)
    return number(found.value) + (f" ± {number(found.stderr)}" if found.stderr is not None else "")


def _mean(evaluator: Evaluator, reports: list[TrialReport], metric: str) -> Difference:
    """Mean over seeds with its interval."""
    from db.records import TrialRecord
    from discovery.browse.intervals import limits_in, metric_interval

    trials = [TrialRecord(0, "", "", evaluator.name, r.seed, "done", 1, r.metrics) for r in reports]
    return metric_interval(trials, metric, limits_in(evaluator.metrics))


def _print_summary(console: Console, evaluator: Evaluator, reports: list[TrialReport]) -> None:
    from discovery.browse.intervals import limits_in
    from discovery.statistics import UNLIMITED

    limits, grid = limits_in(evaluator.metrics), table()
    add_name(grid, "metric")
    add_figure(grid, "mean")
    add_figure(grid, "95% interval")
    add_word(grid, "better")
    better = {m.name: "higher" if m.higher_is_better else "lower" for m in evaluator.metrics if "/" not in m.name}
    for name in sorted(better, key=lambda n: n != evaluator.primary_metric):
        mean = _mean(evaluator, reports, name)
        grid.add_row(name_cell(name), number(mean.mean), interval_text(mean, limits.get(name, UNLIMITED)), better[name])
    console.print()
    print_table(console, grid, ("better", "95% interval"))
    if len(better) < len(evaluator.metrics):
        console.print("Values per world: --json", style="dim")


def _as_values(name: str, candidate: Candidate, evaluator: Evaluator, reports: list[TrialReport]) -> dict[str, Any]:
    names = list(dict.fromkeys(m.name for r in reports for m in r.metrics))
    means = {}
    for metric in names:
        mean = _mean(evaluator, reports, metric)
        means[metric] = {"mean": mean.mean, "low": mean.low, "high": mean.high, "n": mean.n}
    trials = [
        {
            "seed": r.seed,
            "metrics": r.metrics,
            "timings": r.timings,
            "device": r.device,
            "versions": r.versions,
            "oracle_calls": r.oracle_calls,
            "sandbox": r.sandbox,
        }
        for r in reports
    ]
    return {
        "name": name,
        "candidate": candidate.id,
        "evaluator": evaluator.name,
        "task": evaluator.task.id,
        "primary_metric": evaluator.primary_metric,
        "means": means,
        "trials": trials,
    }
