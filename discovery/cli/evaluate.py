"""Trials of one loss outside of a campaign: one after the other, without Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from discovery.anytime import DECIDED
from discovery.cli.board import difference_text, interval_text
from discovery.cli.consent import ASK_FROM_S, require_consent
from discovery.cli.files import accepted_loss
from discovery.cli.losses import find_loss
from discovery.cli.platforms import NO_SANDBOX, allow_local_plugins, require_linux
from discovery.cli.tables import add_figure, add_name, add_word, name_cell, print_table, table
from discovery.cli.terminal import duration, number, print_json, stderr_console, stdout_console, words
from discovery.contest import PRIVILEGED, UNLIKE, alike, told
from evaluators.options import OptionsError
from evaluators.plugins import make_plugin
from evaluators.promises import prepare
from sandbox.candidate import Candidate
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.records import TrialRecord
    from discovery.statistics import Difference
    from evaluators.base import Evaluator, TrialReport
    from sandbox.contract import Contract
    from sandbox.server import OracleServer

MAX_SEEDS = 10_000
UP_TO = "20"  # seeds at most, where they are added until something is decided
MOST_STEPS = 200


@dataclass(frozen=True)
class Trials:
    """What to measure.

    Attributes:
        evaluator: its name.
        seeds: as written; None is one, or `UP_TO` where seeds are added until something is decided.
        settings: options as `key=value`.
        unsafe_no_sandbox: whether candidates run without the sandbox.
        yes: whether nothing is asked.
        against: another loss, measured on the same seeds.
        until_decided: whether to stop at the seed that decides between the two; `seeds` is then the most.
    """

    evaluator: str
    seeds: str | None
    settings: tuple[str, ...] = ()
    unsafe_no_sandbox: bool = False
    yes: bool = False
    against: str | None = None
    until_decided: bool = False

    @property
    def seed_list(self) -> tuple[int, ...]:
        """``3`` is 0, 1, 2; ``1000,1001`` or ``7,`` are those seeds. Raises OptionsError."""
        from discovery.anytime import fewest_seeds

        if self.until_decided and self.against is None:
            raise OptionsError("--until-decided compares: name the other loss with --against")
        usual = UP_TO if self.until_decided else "1"
        values = self._listed(usual if self.seeds is None else self.seeds)
        if self.until_decided and not fewest_seeds() <= len(values) <= MOST_STEPS:
            raise OptionsError(
                f"--until-decided takes {fewest_seeds()} to {MOST_STEPS} seeds, not {len(values):,}: fewer decide "
                "nothing, and what so many leave open is a small difference"
            )
        return values

    def _listed(self, seeds: str) -> tuple[int, ...]:
        parts = [p.strip() for p in seeds.split(",")]
        listed = len(parts) > 1
        if listed and not parts[-1]:
            parts.pop()
        if not all(p.isascii() and p.isdigit() and len(p) < 10 for p in parts):
            raise OptionsError(f"--seeds takes a count or a list such as 1000,1001, not {one_line(seeds, 60)!r}")
        values = tuple(int(p) for p in parts) if listed else tuple(range(min(int(parts[0]), MAX_SEEDS + 1)))
        if not values or len(set(values)) < len(values) or len(values) > MAX_SEEDS:
            raise OptionsError(f"--seeds takes 1 to {MAX_SEEDS} seeds, each once")
        return values


@dataclass(frozen=True)
class _Loss:
    """A loss that was accepted, and what it has been measured to be so far, seed by seed.

    `privileged`: the inputs that tell it more than labels do.
    """

    name: str
    candidate: Candidate
    parameters: tuple[str, ...]
    privileged: tuple[str, ...]
    reports: list[TrialReport] = field(default_factory=list)


def evaluate(loss: str, trials: Trials, archive: str | None, as_json: bool) -> None:
    """`discovery evaluate`. Raises OptionsError, ArchiveError, CandidateError, InfrastructureError, PluginError."""
    require_linux("evaluate")
    allow_local_plugins()
    from discovery.config_input import apply_overrides
    from sandbox.server import OracleServer

    seeds = trials.seed_list
    evaluator: Evaluator = make_plugin("evaluators", trials.evaluator, apply_overrides({}, trials.settings))
    found = [find_loss(one, evaluator.contract, archive) for one in (loss, trials.against) if one is not None]
    if len({candidate.id for _, candidate in found}) < len(found):
        raise OptionsError(f"{one_line(loss, 60)} and {one_line(str(trials.against), 60)} are the same loss")
    console = stderr_console() if as_json else stdout_console()
    with OracleServer(trials.unsafe_no_sandbox) as server:
        losses = _run(console, server, evaluator, found, seeds, trials)
    if as_json:
        print_json(_as_values(evaluator, losses, trials.until_decided))
    else:
        _print_summary(console, evaluator, losses, trials.until_decided)


def _run(
    console: Console,
    server: OracleServer,
    evaluator: Evaluator,
    found: Sequence[tuple[str, Candidate]],
    seeds: tuple[int, ...],
    trials: Trials,
) -> list[_Loss]:
    """Check the losses, then one trial of each per seed, printed as it ends. The first one tells how long the rest take."""
    from sandbox.confine import UNCONFINED

    losses = [_accepted(console, server, name, one, evaluator.contract) for name, one in found]
    names = " and ".join(f"{one.name} ({one.candidate.short_id})" for one in losses)
    at_most = "at most " if trials.until_decided else ""
    console.print(Text(f"{names} on {evaluator.name}, seeds {_listed(seeds)}{' at most' if at_most else ''}"))
    for one in losses:
        if one.privileged:
            why = f"{PRIVILEGED}: {one.name} reads {told(one)}; compare it with losses that do"
            console.print(words(why, "magenta", 400))
    if server.cage == UNCONFINED:
        console.print(NO_SANDBOX)
    facts = prepare(evaluator, lambda text: console.print(words(text, "dim")))
    if facts:
        console.print(words(", ".join(f"{k} {v:.4g}" for k, v in facts.items()), "dim", limit=400))
    for place, seed in enumerate(seeds):
        started = time.monotonic()
        for one in losses:
            one.reports.append(_trial(server, evaluator, one, seed))
        took = time.monotonic() - started
        decided = _print_seed(console, evaluator, losses, trials.until_decided, duration(took))
        if decided:
            break
        ahead = (len(seeds) - 1) * took
        if not place and ahead > ASK_FROM_S:
            require_consent(f"{at_most}{len(seeds) - 1:,} more seeds take about {duration(ahead)}", trials.yes)
    return losses


def _accepted(console: Console, server: OracleServer, name: str, candidate: Candidate, contract: Contract) -> _Loss:
    gate, _ = accepted_loss(console, server, name, candidate, contract)
    return _Loss(name, candidate, gate.parameters, gate.privileged)


def _trial(server: OracleServer, evaluator: Evaluator, loss: _Loss, seed: int) -> TrialReport:
    from evaluators.trial import run_trial
    from sandbox.failure import CandidateError

    try:
        return run_trial(server, evaluator, loss.candidate, loss.parameters, seed)
    except CandidateError as error:
        raise OptionsError(f"{loss.name} failed with seed {seed}: {one_line(str(error), 600)}") from error


def _print_seed(
    console: Console, evaluator: Evaluator, losses: Sequence[_Loss], until_decided: bool, took: str
) -> bool:
    """One line of what a seed gave, and whether it decided. An interval is shown only where one may look after each seed."""
    metric, (first, *others) = evaluator.primary_metric, losses
    values = [_value(first.reports[-1], metric), *(f"{one.name} {_value(one.reports[-1], metric)}" for one in others)]
    found = _against(evaluator, losses, True) if until_decided else None
    so_far = "" if found is None else f": {difference_text(found, wide=False)}, {found.says}"
    console.print(Text(f"seed {first.reports[-1].seed:<5} {metric} {', '.join(values)}{so_far}  ({took})"))
    return found is not None and found.verdict in DECIDED


def _against(evaluator: Evaluator, losses: Sequence[_Loss], at_any_time: bool) -> Difference | None:
    """The first loss minus the other one, by the metric that ranks; None without another one."""
    from db.measurements import paired_values
    from discovery.anytime import any_time_difference
    from discovery.statistics import paired_difference

    if len(losses) < 2:
        return None
    metric = next(m for m in evaluator.metrics if m.name == evaluator.primary_metric)
    ours, theirs = (_records(evaluator, one.reports) for one in losses)
    pairs = paired_values(ours, theirs, metric.name, [t.seed for t in ours])
    difference = any_time_difference if at_any_time else paired_difference
    return difference(*pairs, metric.higher_is_better, metric.minimum_effect)


def _listed(seeds: tuple[int, ...]) -> str:
    shown = ", ".join(str(s) for s in seeds[:8])
    return shown if len(seeds) <= 8 else f"{shown}, ... ({len(seeds)})"


def _value(report: TrialReport, metric: str) -> str:
    found = report.metric(metric)
    return number(found.value) + (f" ± {number(found.stderr)}" if found.stderr is not None else "")


def _records(evaluator: Evaluator, reports: Sequence[TrialReport]) -> list[TrialRecord]:
    from db.records import TrialRecord

    return [TrialRecord(0, "", "", evaluator.name, r.seed, "done", 1, r.metrics) for r in reports]


def _mean(evaluator: Evaluator, reports: Sequence[TrialReport], metric: str) -> Difference:
    """Mean over seeds with its interval."""
    from discovery.browse.intervals import limits_in, metric_interval

    return metric_interval(_records(evaluator, reports), metric, limits_in(evaluator.metrics))


def _print_summary(console: Console, evaluator: Evaluator, losses: Sequence[_Loss], until_decided: bool) -> None:
    from discovery.browse.intervals import limits_in
    from discovery.statistics import UNLIMITED

    (first, *others), ranks = losses, evaluator.primary_metric
    limits, grid = limits_in(evaluator.metrics), table()
    add_name(grid, "metric")
    add_figure(grid, "mean")
    add_figure(grid, "95% interval")
    add_word(grid, "better")
    better = {m.name: "higher" if m.higher_is_better else "lower" for m in evaluator.metrics if "/" not in m.name}
    for name in sorted(better, key=lambda n: n != ranks):
        mean = _mean(evaluator, first.reports, name)
        grid.add_row(name_cell(name), number(mean.mean), interval_text(mean, limits.get(name, UNLIMITED)), better[name])
    console.print()
    print_table(console, grid, ("better", "95% interval"))
    if len(better) < len(evaluator.metrics):
        console.print("Values per world: --json", style="dim")
    found = _against(evaluator, losses, until_decided)
    if found is not None:
        undecided = (
            f", not decided after {len(first.reports)} seeds" if until_decided and found.verdict not in DECIDED else ""
        )
        unlike = "" if alike(first, others[0]) else f", {UNLIKE}"
        says = f"{difference_text(found, wide=True)}, {found.says}{unlike}{undecided}"
        console.print()
        console.print(Text(f"{ranks} against {others[0].name}, {found.family.says}: {says}"))


def _as_values(evaluator: Evaluator, losses: Sequence[_Loss], until_decided: bool) -> dict[str, Any]:
    first, *others = losses
    values = {
        **_loss_values(evaluator, first),
        "evaluator": evaluator.name,
        "task": evaluator.task.id,
        "primary_metric": evaluator.primary_metric,
    }
    difference = _against(evaluator, losses, until_decided)
    if difference is not None:
        values["against"] = {**_loss_values(evaluator, others[0]), "difference": difference}
    return values


def _loss_values(evaluator: Evaluator, loss: _Loss) -> dict[str, Any]:
    means = {}
    for metric in dict.fromkeys(m.name for r in loss.reports for m in r.metrics):
        mean = _mean(evaluator, loss.reports, metric)
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
        for r in loss.reports
    ]
    known = {"name": loss.name, "candidate": loss.candidate.id, "privileged": loss.privileged}
    return {**known, "means": means, "trials": trials}
