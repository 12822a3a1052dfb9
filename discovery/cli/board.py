"""The end of a campaign: a leaderboard per stage, and what to type next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from db.records import Entry, Score
from discovery.browse.comparison import seeds_text
from discovery.cli.tables import Grid, add_figure, add_name, add_note, add_word, name_cell, print_table, table
from discovery.cli.terminal import number, signed
from discovery.contest import MEANING, PRIVILEGED, UNLIKE, UNLIKE_MEANING
from discovery.ranking import Row
from discovery.statistics import MEANINGS, UNLIMITED, Difference, Limits
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.leaderboard import Board, StageBoard

WIDE = 112  # columns from which the leaderboard shows everything
_STYLES = {"better": "bold green", "ahead": "green", "behind": "red", "worse": "red"}


def print_board(console: Console, board: Board) -> None:
    """All stages of a campaign."""
    for stage in board.stages:
        console.print()
        if not stage.rows:
            console.print(Text(f"{one_line(stage.title, 60)}: nothing measured on all of its seeds yet", style="dim"))
            continue
        console.print(Text(_title(stage), style="bold"))
        print_table(console, stage_table(stage, wide=console.width >= WIDE), leaves_of(stage))
    ranked = [s for s in board.stages if s.rows]
    if ranked:
        console.print()
        console.print(Text(_reading(ranked), style="dim"))


def _title(stage: StageBoard) -> str:
    direction = "higher" if stage.higher_is_better else "lower"
    fresh = ", which the search never saw" if stage.fresh else ""
    return f"{one_line(stage.title, 60)}: {stage.metric}, {direction} is better, {seeds_text(stage.seeds)}{fresh}"


def _reading(stages: Sequence[StageBoard]) -> str:
    differences = [r.difference for s in stages for r in s.rows if r.difference is not None]
    chosen = "" if any(s.fresh for s in stages) else " The search chose by these very seeds: confirm on fresh ones."
    return (
        f"±: standard error over seeds. Difference: paired, to the leading baseline, with its 95% interval{_pairs(stages)}."
        f"{_verdicts(differences)}{_together(stages)}{chosen}{kinds_text([r for s in stages for r in s.rows])}"
    )


def kinds_text(rows: Sequence[Row]) -> str:
    """What the marks of losses that are told more than labels mean; empty where none of them is shown."""
    marks = [MEANING] if any(r.entry.privileged for r in rows) else []
    marks += [UNLIKE_MEANING] if any(not r.alike for r in rows if r.difference is not None) else []
    said = "; ".join(marks)
    return f" {said[:1].upper()}{said[1:]}. Each is compared with the leading baseline of its kind." if marks else ""


def _verdicts(differences: Sequence[Difference]) -> str:
    """Where the interval lies for each verdict that is shown."""
    shown = {d.verdict for d in differences}
    said: dict[str, list[str]] = {}
    for verdict, meaning in MEANINGS.items():
        if verdict in shown:
            said.setdefault(meaning, []).append(verdict)
    effects = sorted({d.minimum_effect for d in differences})
    least = f" The minimum effect is {' or '.join(f'{e:g}' for e in effects)}." if any(effects) else ""
    parts = "; ".join(f"{' or '.join(verdicts)}, {meaning}" for meaning, verdicts in said.items())
    return f" It lies: {parts}.{least}" if parts else ""


def _pairs(stages: Sequence[StageBoard]) -> str:
    """`` (over 12 pairs by seed and world, then 8 by seed)``: what the intervals of each stage rest on."""
    said = []
    for stage in stages:
        counts = sorted({r.difference.n for r in stage.rows if r.difference is not None})
        if counts:
            unit = "seed and world" if counts[-1] > len(stage.seeds) else "seed"
            said.append((" or ".join(str(c) for c in counts), unit))
    if not said:
        return ""
    (first, unit), *others = said
    word = "pair" if first == "1" else "pairs"
    return f" (over {first} {word} by {unit}{''.join(f', then {n} by {u}' for n, u in others)})"


def _together(stages: Sequence[StageBoard]) -> str:
    """That the intervals of a table hold at once, and by which method."""
    parts = [f"{s.family.size} (by {s.family.method})" for s in stages if s.family.size > 1]
    if not parts:
        return ""
    return f" Intervals are simultaneous: with 95% confidence all of a table hold at once, {', then '.join(parts)}."


def leaves_of(stage: StageBoard) -> tuple[str, ...]:
    """What leaves the table of a stage where it is too wide, first to last. The loss's name and the verdict stay."""
    return ("origin", "#", "id", difference_header(versus_of(stage), stage.family.says), stage.metric)


def versus_of(stage: StageBoard) -> list[str]:
    """Names of the leading baselines that anything is compared with: one for each kind of loss."""
    return list(dict.fromkeys(r.versus for r in stage.rows if r.versus))


def difference_header(versus: Sequence[str], says: str) -> str:
    """Names what is compared with, if that is one loss; of several, each row names its own. `says`: of the intervals."""
    if not versus:
        return "difference"
    return f"vs {one_line(versus[0], 16)} [{says}]" if len(versus) == 1 else f"difference [{says}]"


def stage_table(stage: StageBoard, wide: bool) -> Grid:
    """One ranking. Narrow leaves out the spread."""
    versus = versus_of(stage)
    grid = table()
    add_figure(grid, "#")
    add_name(grid, "loss")
    add_word(grid, "id")
    add_figure(grid, stage.metric)
    add_figure(grid, difference_header(versus, stage.family.says))
    if len(versus) > 1:
        add_name(grid, "vs", least=8)
    add_word(grid, "verdict")
    add_note(grid, "origin", least=16)
    for row in stage.rows:
        style = "cyan" if row.is_baseline else ""
        score = row.entry.score
        spread = spread_of(score) if wide and score is not None else ""
        grid.add_row(
            str(row.rank),
            name_cell(row.entry.name, style),
            row.entry.candidate.short_id,
            number(row.mean) + spread,
            difference_text(row.difference, wide),
            *([name_cell(row.versus or "")] if len(versus) > 1 else []),
            _verdict(row, bool(versus)),
            name_cell(origin_of(row.entry)),
        )
    return grid


def spread_of(score: Score) -> str:
    """`` ± standard error`` over seeds, nothing for a single seed."""
    values = list(score.by_seed.values())
    if len(values) < 2:
        return ""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return f" ± {number(math.sqrt(variance / len(values)))}"


def interval_text(mean: Difference, limits: Limits = UNLIMITED) -> str:
    """``0.7100 to 0.7812``: the interval of a mean; in words where it leaves open all that the metric can be."""
    if mean.low is None or mean.high is None:
        return "one seed"
    return "too few seeds" if (mean.low, mean.high) == limits else f"{number(mean.low)} to {number(mean.high)}"


def difference_text(difference: Difference | None, wide: bool) -> str:
    """``+0.0123 [-0.0010, +0.0256]``."""
    if difference is None:
        return ""
    if difference.low is None or difference.high is None:
        return signed(difference.mean)
    return f"{signed(difference.mean)} [{signed(difference.low)}, {signed(difference.high)}]"


def _verdict(row: Row, compares: bool) -> Text:
    """What can be said, a baseline's mark instead, and what else must be known of the loss."""
    return marked(_compared(row, compares), row.entry)


def marked(text: Text, entry: Entry) -> Text:
    """With the marks that a loss never stands without: told more than labels, run without the sandbox."""
    privileged = (f", {PRIVILEGED}", "magenta") if entry.privileged else ""
    return Text.assemble(text, privileged, (", NO SANDBOX", "bold red") if entry.unconfined else "")


def _compared(row: Row, compares: bool) -> Text:
    if row.is_baseline:
        return Text("leading baseline" if row.leads and compares else "baseline", style="cyan")
    if row.difference is None:
        return Text("-", style="dim")
    return verdict_text(row.difference, row.alike)


def verdict_text(difference: Difference, alike: bool = True) -> Text:
    """What the interval says, in its colour; of losses that are not `alike`, in none: it says little about either."""
    if not alike:
        return Text(f"{difference.says}, {UNLIKE}", style="dim")
    return Text(difference.says, style=_STYLES.get(difference.verdict, "dim"))


def origin_of(entry: Entry) -> str:
    """``known``, or who proposed it."""
    return entry.origin if entry.origin == "known" else f"{entry.origin}, {entry.proposer}"


def print_commands(console: Console, commands: Iterable[tuple[str, str]]) -> None:
    """Commands to type next, each with what it does."""
    console.print()
    console.print("Next:")
    for command, meaning in commands:
        console.print(Text.assemble("  ", (one_line(command, 1000), "bold"), (f"  # {meaning}", "dim")), soft_wrap=True)
