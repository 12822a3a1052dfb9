"""`discovery objectives bench`: every known objective of an evaluator, on the same seeds, ranked with intervals.

A campaign that proposes nothing: so it is stored, resumed, and compared like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from discovery.cli.archives import archive_url, option_for
from discovery.cli.board import difference_text
from discovery.cli.border import INTERRUPTED
from discovery.cli.consent import ASK_FROM_TRIALS, require_consent
from discovery.cli.platforms import NO_SANDBOX, allow_local_plugins, require_linux
from discovery.cli.tables import add_figure, add_name, add_word, print_table, table
from discovery.cli.terminal import number, print_json, print_next, stderr_console, stdout_console, words
from evaluators.objectives import known_objectives
from evaluators.options import OptionsError, nearest
from evaluators.plugins import load_plugin
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.campaign import CampaignResult
    from discovery.config import CampaignConfig
    from discovery.statistics import Difference

_REFERENCES = ("dpo", "kto")  # the usual thing to be compared with, by family


@dataclass(frozen=True)
class Bench:
    """What is measured: an evaluator with options, a number of seeds, and which objectives (none named: all)."""

    evaluator: str
    seeds: int
    only: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    slots: int = 2
    unsafe_no_sandbox: bool = False
    yes: bool = False


@dataclass(frozen=True)
class Line:
    """One objective's result.

    `interval`: 95%, of the mean over seeds by itself; `against`: paired difference to the reference, whose intervals are
    simultaneous over all objectives.
    """

    name: str
    mean: float
    interval: tuple[float, float] | None
    against: Difference | None


def bench(wanted: Bench, archive: str | None, as_json: bool, markdown: bool) -> int:
    """Run it; returns the exit code. Raises OptionsError, ArchiveError, InfrastructureError."""
    require_linux("objectives bench")
    allow_local_plugins()
    if as_json and markdown:
        raise OptionsError("--json and --markdown exclude each other")
    config = _config(wanted, archive)
    from discovery.campaign import Campaign
    from discovery.cli.views import LiveView, PlainView, View

    view: View | None = None
    campaign = Campaign(config, lambda event: view(event) if view is not None else None, wanted.unsafe_no_sandbox)
    plain = as_json or markdown
    console = stderr_console() if plain else stdout_console()
    compared, each = len(campaign.baselines), wanted.seeds
    objectives, seeds = "objective" if compared == 1 else "objectives", "seed" if each == 1 else "seeds"
    if compared * each > ASK_FROM_TRIALS:
        require_consent(f"{compared} {objectives} on {each:,} seeds: {compared * each:,} trials", wanted.yes)
    console.print(Text(f"{compared} {objectives} on {wanted.evaluator}, {each} {seeds} each"))
    if wanted.unsafe_no_sandbox:
        console.print(NO_SANDBOX)
    view = LiveView(console, config.name, False) if console.is_terminal else PlainView(console)
    view.watch(campaign.progress)
    with view:
        result = campaign.run()
    if result.status != "finished":
        console.print(Text("interrupted; the same command goes on where it stopped"))
        return INTERRUPTED
    reference, lines = ranked(result, campaign.baselines, wanted.evaluator)
    failures = _failures(config, lines)
    if as_json:
        print_json(_as_values(wanted, result, reference, lines, failures))
    elif markdown:
        print(as_markdown(result, reference, lines, failures))
    else:
        _print(console, result, reference, lines, failures)
        option = option_for(archive_url(config.archive), result.archive)
        console.print()
        print_next(console, f"discovery candidates --campaign {config.name}{option}")
    return 0


def _config(wanted: Bench, archive: str | None) -> CampaignConfig:
    """The campaign that measures it. Raises OptionsError."""
    from discovery.config import make_config
    from discovery.config_input import apply_overrides

    contract = load_plugin("evaluators", wanted.evaluator).contract.name
    known = list(known_objectives(contract))
    if not known:
        raise OptionsError(f"no objective is known for {contract}, which {wanted.evaluator} trains with")
    for name in wanted.only:
        if name not in known:
            raise OptionsError(f"no known objective {one_line(name, 60)!r} for {contract}; {nearest(name, known)}")
    name = f"bench-{wanted.evaluator.replace(':', '-')}-{wanted.seeds}"
    return make_config(
        {
            "name": "".join(c if c.isalnum() or c in "-_." else "-" for c in name),
            "archive": archive_url(archive),
            "objective": {
                "evaluator": wanted.evaluator,
                "seeds": wanted.seeds,
                "options": apply_overrides({}, wanted.settings),
            },
            "baselines": list(wanted.only or known),
            "proposer": {"kind": "none"},
            "budget": {"candidates": 0},
            "workers": {"trial_slots": wanted.slots},
        }
    )


def ranked(result: CampaignResult, names: Sequence[str], evaluator: str) -> tuple[str | None, list[Line]]:
    """The reference's name, and the named objectives by their means; earlier runs may have measured others."""
    from discovery.browse.intervals import limits_in
    from discovery.ranking import Comparison, leaderboard
    from discovery.statistics import UNLIMITED, mean_interval

    (stage,) = result.board.stages
    entries = {row.entry.name: row.entry for row in stage.rows if row.entry.name in names}
    reference = next((name for name in _REFERENCES if name in entries), None)
    baselines = [] if reference is None else [entries[reference]]
    rows = leaderboard(entries.values(), baselines, Comparison(stage.minimum_effect, stage.values))
    limits = limits_in(load_plugin("evaluators", evaluator).metrics)
    lines = []
    for row in rows:
        assert row.entry.score is not None
        values = stage.values.get(row.entry.candidate.id, row.entry.score.by_seed)
        alone = mean_interval(values, limits.get(stage.metric, UNLIMITED))
        interval = None if alone.low is None or alone.high is None else (alone.low, alone.high)
        lines.append(Line(row.entry.name, row.mean, interval, row.difference))
    return reference, lines


def _failures(config: CampaignConfig, lines: Sequence[Line]) -> dict[str, str]:
    """Objectives without a score, and why."""
    from db.archive import Archive

    there = {line.name for line in lines}
    with Archive(config.archive) as archive:
        wanted = set(config.baselines or ()) - there
        return {e.name: str(e.failure) for e in archive.entries(config.name) if e.name in wanted}


def _interval(line: Line) -> str:
    return "one seed" if line.interval is None else f"{number(line.interval[0])} to {number(line.interval[1])}"


def _header(reference: str | None, lines: Sequence[Line]) -> str:
    """``vs dpo [95% simultaneous]``; empty without a reference."""
    says = next((line.against.family.says for line in lines if line.against is not None), "95%")
    return f"vs {reference} [{says}]" if reference else ""


def _print(
    console: Console, result: CampaignResult, reference: str | None, lines: Sequence[Line], failures: dict[str, str]
) -> None:
    (stage,) = result.board.stages
    grid = table(
        f"{stage.metric}, {'higher' if stage.higher_is_better else 'lower'} is better, {len(stage.seeds)} seeds"
    )
    add_figure(grid, "#")
    add_name(grid, "objective")
    add_figure(grid, stage.metric)
    add_figure(grid, "95% over seeds")
    against_reference = _header(reference, lines)
    add_figure(grid, against_reference)
    add_word(grid, "verdict")
    for rank, line in enumerate(lines, 1):
        verdict = line.against.says if line.against else ""
        against = difference_text(line.against, wide=True)
        grid.add_row(str(rank), line.name, number(line.mean), _interval(line), against, verdict)
    console.print()
    print_table(console, grid, ("#", "95% over seeds", against_reference, stage.metric))
    for name, why in failures.items():
        console.print(words(f"{name} has no score: {why}", "red", 300))


def as_markdown(result: CampaignResult, reference: str | None, lines: Sequence[Line], failures: dict[str, str]) -> str:
    """The ranking as a table for a document."""
    (stage,) = result.board.stages
    rows = [
        f"| # | objective | {stage.metric} | 95% over seeds | {_header(reference, lines)} | verdict |",
        "|--:|---|--:|---|---|---|",
    ]
    for rank, line in enumerate(lines, 1):
        against, verdict = difference_text(line.against, wide=True), line.against.says if line.against else ""
        rows.append(f"| {rank} | {line.name} | {number(line.mean)} | {_interval(line)} | {against} | {verdict} |")
    rows += [f"| | {name} | | | | {one_line(why, 120)} |" for name, why in failures.items()]
    return "\n".join(rows)


def _as_values(
    wanted: Bench, result: CampaignResult, reference: str | None, lines: Sequence[Line], failures: dict[str, str]
) -> dict[str, Any]:
    (stage,) = result.board.stages
    return {
        "evaluator": wanted.evaluator,
        "metric": stage.metric,
        "higher_is_better": stage.higher_is_better,
        "seeds": stage.seeds,
        "reference": reference,
        "objectives": lines,
        "failures": failures,
    }
