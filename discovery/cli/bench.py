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
from discovery.cli.board import difference_header, difference_text
from discovery.cli.border import INTERRUPTED
from discovery.cli.consent import ASK_FROM_TRIALS, require_consent
from discovery.cli.platforms import NO_SANDBOX, allow_local_plugins, require_linux
from discovery.cli.tables import add_figure, add_name, add_word, print_table, table
from discovery.cli.terminal import number, print_json, print_next, stderr_console, stdout_console, words
from discovery.contest import MEANING, PRIVILEGED, UNLIKE, UNLIKE_MEANING, alike
from evaluators.objectives import known_objectives
from evaluators.options import OptionsError, nearest
from evaluators.plugins import load_plugin
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.campaign import CampaignResult
    from discovery.config import CampaignConfig
    from discovery.statistics import Difference

# what the others are compared with, by family: the usual loss that sees labels alone, and a usual one that is told more
_REFERENCES = ("dpo", "kto", "odpo", "qrpo")


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

    Attributes:
        interval: 95%, of the mean over seeds by itself.
        against: paired difference to `versus`, the reference of its kind; its interval is simultaneous over all objectives.
        alike: whether `versus` is of its kind: privileged like it, or not (`discovery.contest`).
        privileged: the inputs that tell it more than labels do.
    """

    name: str
    mean: float
    interval: tuple[float, float] | None
    against: Difference | None
    versus: str | None = None
    alike: bool = True
    privileged: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Its name, with its mark."""
        return f"{self.name} ({PRIVILEGED})" if self.privileged else self.name

    @property
    def verdict(self) -> str:
        """What its interval says; empty for a reference."""
        return "" if self.against is None else self.against.says + ("" if self.alike else f", {UNLIKE}")


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
    lines = ranked(result, campaign.baselines, wanted.evaluator)
    failures = _failures(config, lines)
    if as_json:
        print_json(_as_values(wanted, result, lines, failures))
    elif markdown:
        print(as_markdown(result, lines, failures))
    else:
        _print(console, result, lines, failures)
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


def ranked(result: CampaignResult, names: Sequence[str], evaluator: str) -> list[Line]:
    """The named objectives by their means, each beside the reference of its kind; earlier runs may have measured others."""
    from discovery.browse.intervals import limits_in
    from discovery.ranking import Comparison, leaderboard
    from discovery.statistics import UNLIMITED, mean_interval

    (stage,) = result.board.stages
    entries = {row.entry.name: row.entry for row in stage.rows if row.entry.name in names}
    usual = [entries[name] for name in _REFERENCES if name in entries]
    baselines = [e for i, e in enumerate(usual) if not any(alike(e, earlier) for earlier in usual[:i])]
    rows = leaderboard(entries.values(), baselines, Comparison(stage.minimum_effect, stage.values))
    limits = limits_in(load_plugin("evaluators", evaluator).metrics)
    lines = []
    for row in rows:
        assert row.entry.score is not None
        values = stage.values.get(row.entry.candidate.id, row.entry.score.by_seed)
        alone = mean_interval(values, limits.get(stage.metric, UNLIMITED))
        interval = None if alone.low is None or alone.high is None else (alone.low, alone.high)
        kind = (row.versus, row.alike, row.entry.privileged)
        lines.append(Line(row.entry.name, row.mean, interval, row.difference, *kind))
    return lines


def _failures(config: CampaignConfig, lines: Sequence[Line]) -> dict[str, str]:
    """Objectives without a score, and why."""
    from db.archive import Archive

    there = {line.name for line in lines}
    with Archive(config.archive) as archive:
        wanted = set(config.baselines or ()) - there
        return {e.name: str(e.failure) for e in archive.entries(config.name) if e.name in wanted}


def _interval(line: Line) -> str:
    return "one seed" if line.interval is None else f"{number(line.interval[0])} to {number(line.interval[1])}"


def _header(lines: Sequence[Line]) -> tuple[str, bool]:
    """What the difference's column is called, and whether each line must say what it is compared with."""
    versus = list(dict.fromkeys(line.versus for line in lines if line.versus))
    says = next((line.against.family.says for line in lines if line.against is not None), "95%")
    return difference_header(versus, says), len(versus) > 1


def _notes(lines: Sequence[Line]) -> list[str]:
    """What the marks mean that are shown."""
    marks = [MEANING] if any(line.privileged for line in lines) else []
    return marks + ([UNLIKE_MEANING] if any(not line.alike for line in lines if line.against) else [])


def _print(console: Console, result: CampaignResult, lines: Sequence[Line], failures: dict[str, str]) -> None:
    (stage,) = result.board.stages
    grid = table(
        f"{stage.metric}, {'higher' if stage.higher_is_better else 'lower'} is better, {len(stage.seeds)} seeds"
    )
    add_figure(grid, "#")
    add_name(grid, "objective")
    add_figure(grid, stage.metric)
    add_figure(grid, "95% over seeds")
    header, each = _header(lines)
    add_figure(grid, header)
    if each:
        add_name(grid, "vs", least=8)
    add_word(grid, "verdict")
    for rank, line in enumerate(lines, 1):
        against, versus = difference_text(line.against, wide=True), [line.versus or ""] if each else []
        grid.add_row(str(rank), line.shown, number(line.mean), _interval(line), against, *versus, line.verdict)
    console.print()
    print_table(console, grid, ("#", "95% over seeds", header, stage.metric))
    for note in _notes(lines):
        console.print(words(note, "dim", 300))
    for name, why in failures.items():
        console.print(words(f"{name} has no score: {why}", "red", 300))


def as_markdown(result: CampaignResult, lines: Sequence[Line], failures: dict[str, str]) -> str:
    """The ranking as a table for a document, with what its marks mean below."""
    (stage,) = result.board.stages
    header, each = _header(lines)
    rows = [
        f"| # | objective | {stage.metric} | 95% over seeds | {header} | {'vs | ' if each else ''}verdict |",
        f"|--:|---|--:|---|---|{'---|' if each else ''}---|",
    ]
    for rank, line in enumerate(lines, 1):
        against = difference_text(line.against, wide=True) + (f" | {line.versus or ''}" if each else "")
        rows.append(f"| {rank} | {line.shown} | {number(line.mean)} | {_interval(line)} | {against} | {line.verdict} |")
    rows += [f"| | {name} | | | | {'| ' if each else ''}{one_line(why, 120)} |" for name, why in failures.items()]
    return "\n".join([*rows, *(f"\n{note}." for note in _notes(lines))])


def _as_values(
    wanted: Bench, result: CampaignResult, lines: Sequence[Line], failures: dict[str, str]
) -> dict[str, Any]:
    (stage,) = result.board.stages
    return {
        "evaluator": wanted.evaluator,
        "metric": stage.metric,
        "higher_is_better": stage.higher_is_better,
        "seeds": stage.seeds,
        "references": list(dict.fromkeys(line.versus for line in lines if line.versus)),
        "objectives": lines,
        "failures": failures,
    }
