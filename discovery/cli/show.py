"""`discovery show`: everything about one candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from db.measurements import Trials, by_measurement
from db.records import (
    Ancestor,
    CampaignRecord,
    Entry,
    EntryFilter,
    Proposal,
    TaskRecord,
    TrialRecord,
)
from discovery.browse.curves import LossCurve, stored_curve
from discovery.browse.intervals import Regimes, limits_of, metric_interval, regimes_of
from discovery.cli.archives import archive_url, opened, option_for
from discovery.cli.board import difference_text, interval_text, origin_of
from discovery.cli.catalogue import print_code
from discovery.cli.listings import entry_values, status_of
from discovery.cli.pictures import print_curves
from discovery.cli.probed import properties
from discovery.cli.tables import Grid, add_figure, add_name, key_values, name_cell, print_table, table
from discovery.cli.terminal import number, print_json, print_next, stdout_console, words
from discovery.contest import PRIVILEGED, opponent_of, told
from discovery.statistics import UNLIMITED
from sandbox.text import clean_text, one_line

if TYPE_CHECKING:
    from db.archive import Archive
    from discovery.statistics import Limits

_SEEDS_SHOWN = 12
_LONG = 200_000  # characters of a prompt's message or a reply


@dataclass(frozen=True)
class Stored:
    """All that the archive knows of a candidate in one campaign."""

    entry: Entry
    campaign: CampaignRecord
    proposal: Proposal
    trials: Sequence[TrialRecord]
    tasks: Mapping[str, TaskRecord]
    lineage: Sequence[Ancestor]
    beside: LossCurve | None  # of the leading baseline
    regimes: Sequence[Regimes | None]  # of each measurement

    @property
    def stages(self) -> list[tuple[str, Sequence[TrialRecord], Regimes | None]]:
        """Titles and trials of each measurement, and how it was in each regime."""
        groups = by_measurement(self.trials, self.campaign.ranking)
        return [(self._title(g), g.trials, r) for g, r in zip(groups, self.regimes, strict=True)]

    def _title(self, group: Trials) -> str:
        evaluator = self.tasks[group.task_id].task.evaluator
        if group.ranks:
            return f"{evaluator}, ranks by {self.campaign.ranking.metric}"
        fresh = "on seeds that the search never saw" if group.fresh else "another task"
        return f"{evaluator}, promotion: {fresh}"


@dataclass(frozen=True)
class Texts:
    """Long texts to print too."""

    prompt: bool = False
    reply: bool = False


def show(archive: str | None, prefix: str, campaign: str | None, texts: Texts, as_json: bool) -> None:
    """Raises OptionsError, ArchiveError."""
    with opened(archive) as stored:
        entry = stored.entry(prefix, campaign)
        candidate = entry.candidate.id
        trials, record = stored.trials(candidate, campaign=entry.campaign), stored.campaign(entry.campaign)
        groups = by_measurement(trials, record.ranking)
        found = Stored(
            entry=entry,
            campaign=record,
            proposal=stored.proposal_of(candidate, entry.campaign),
            trials=trials,
            tasks={task: stored.task(task) for task in dict.fromkeys(t.task_id for t in trials)},
            lineage=stored.lineage(candidate, entry.campaign),
            beside=_baseline_curve(stored, entry),
            regimes=[regimes_of(stored, record, entry, group) for group in groups],
        )
        shown = stored.url
    if as_json:
        print_json(_as_values(found))
        return
    console = stdout_console()
    _print_head(console, found)
    console.print(Text("\nCode", style="bold"))
    print_code(console, entry.candidate.source)
    _print_checks(console, found)
    curves = (stored_curve(found.proposal), found.beside)
    print_curves(console, [c for c in curves if c is not None] if curves[0] is not None else [])
    for title, group, regimes in found.stages:
        _print_stage(console, title, group, found.tasks[group[0].task_id], regimes)
    _print_texts(console, found.proposal, texts)
    option = option_for(archive_url(archive), shown)
    console.print()
    print_next(console, f"discovery export {entry.candidate.short_id} -o {file_stem(entry.name)}.py{option}")


def _baseline_curve(stored: Archive, entry: Entry) -> LossCurve | None:
    """What a curve is drawn beside: the leading baseline of the loss's kind, if that is another loss."""
    opponent = opponent_of(entry, stored.entries(entry.campaign, EntryFilter(status="ranked", origin="known")))
    if opponent is None or opponent.entry.candidate.id == entry.candidate.id:
        return None
    return stored_curve(stored.proposal_of(opponent.entry.candidate.id, entry.campaign))


def _print_texts(console: Console, proposal: Proposal, texts: Texts) -> None:
    """What the proposer was sent and what it answered, cleaned and to the letter otherwise."""
    for message in proposal.prompt.messages() if texts.prompt and proposal.prompt is not None else ():
        console.print(Text(f"\nPrompt, {message['role']}", style="bold"))
        console.print(Text(clean_text(message["content"], _LONG)), soft_wrap=True)
    if texts.reply and proposal.reply is not None:
        console.print(Text("\nReply", style="bold"))
        console.print(Text(clean_text(proposal.reply.text, _LONG)), soft_wrap=True)
    if (texts.prompt and proposal.prompt is None) or (texts.reply and proposal.reply is None):
        console.print(Text("\nnobody was asked for this loss: it has no prompt and no reply", style="dim"))


def file_stem(name: str) -> str:
    """What a loss's file is called, without its ending, whatever the loss is called."""
    letters = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).strip("_")[:40]
    return letters or "loss"


def _print_head(console: Console, found: Stored) -> None:
    entry, reply = found.entry, found.proposal.reply
    console.print(words(entry.name or "unnamed", "bold", 120))
    grid = key_values()
    grid.add_row("candidate", entry.candidate.id)
    grid.add_row("interface", entry.candidate.contract)
    ended = f", {found.campaign.ended.text}" if found.campaign.ended is not None else ""
    grid.add_row("campaign", words(f"{entry.campaign}, {found.campaign.status}{ended}", limit=400))
    by = origin_of(entry) + (f", model {reply.model}" if reply is not None and reply.model != entry.proposer else "")
    grid.add_row("origin", words(by))
    if entry.created_at is not None:
        grid.add_row("proposed", f"{entry.created_at:%Y-%m-%d %H:%M:%S} UTC")
    parents = [a for a in found.lineage if a.depth == 1]
    if parents:
        grid.add_row(
            "parents", words(", ".join(f"{one_line(a.name, 40)} ({a.candidate_id[:10]})" for a in parents), limit=2000)
        )
    grid.add_row("status", status_of(entry))
    if entry.privileged:
        grid.add_row(PRIVILEGED, words(f"it reads {told(entry)}", limit=400))
    if entry.score is not None:
        grid.add_row(
            "score", words(f"{entry.score.metric} {number(entry.score.mean)}, mean of {len(entry.score.by_seed)} seeds")
        )
    if entry.thought:
        grid.add_row("thought", Text(clean_text(entry.thought, 4000).strip()))
    console.print(grid)


def _print_checks(console: Console, found: Stored) -> None:
    """What was mended, what the gate refuses, and what the probe measured."""
    gate, grid = found.proposal.gate, key_values()
    for note in gate.notes if gate else ():
        grid.add_row("mended", words(note, limit=600))
    for violation in gate.violations if gate else ():
        grid.add_row(f"line {violation.line}", words(f"{violation.problem}. {violation.instead}", "yellow", 600))
    for label, value in properties(found.proposal.probe):
        grid.add_row(label, words(value, limit=600))
    if grid.row_count:
        console.print(Text("\nChecks", style="bold"))
        console.print(grid)


def _print_stage(
    console: Console, title: str, trials: Sequence[TrialRecord], task: TaskRecord, regimes: Regimes | None
) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    done = [t for t in trials if t.status == "done"]
    if done:
        limits = limits_of(done[0].evaluator)
        print_table(console, *_metrics_table(done, limits))
    if regimes is not None and regimes.rows:
        _print_worlds(console, regimes, len(done))
    for trial in trials:
        if trial.status != "done":
            why = f": {trial.failure}" if trial.failure else ""
            console.print(words(f"seed {trial.seed} {trial.status}{why} (attempts: {trial.attempts})", "red", 600))
    grid = key_values()
    data = task.task.provenance
    grid.add_row("task", f"{task.task.id[:10]}, version {task.task.version}")
    grid.add_row("data", words(f"{data.source}; licence {data.licence}; sha256 {data.sha256[:16]}", limit=400))
    if task.facts:
        facts = (f"{k} {v:.4g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in task.facts.items())
        grid.add_row("prepared", words(", ".join(facts), limit=400))
    console.print(grid)


def _print_worlds(console: Console, regimes: Regimes, seeds: int) -> None:
    """What ranks, in each world by itself, beside the leading baseline: a mean hides in which a loss is good."""
    limits = limits_of(regimes.evaluator)
    grid = table(f"{one_line(regimes.metric, 40)} by world, each interval by itself")
    versus = f"vs {one_line(regimes.versus, 20)} [95%]" if regimes.versus else ""
    add_name(grid, "world")
    for header in (f"mean of {seeds}", "95% interval", *([versus] if versus else [])):
        add_figure(grid, header)
    for one in regimes.rows:
        ends = interval_text(one.mean, limits.get(f"{regimes.metric}/{one.world}", UNLIMITED))
        beside = [difference_text(one.difference, wide=False)] if versus else []
        grid.add_row(name_cell(one.world), number(one.mean.mean), ends, *beside)
    console.print()
    print_table(console, grid, ("95% interval", versus))


def _metrics_table(done: list[TrialRecord], limits: Mapping[str, Limits]) -> tuple[Grid, list[str]]:
    """Mean over seeds with its interval, and the first seeds; with what leaves where it is too wide, the last seed first."""
    grid = table()
    add_name(grid, "metric")
    add_figure(grid, f"mean of {len(done)}")
    add_figure(grid, "95% interval")
    shown = done[:_SEEDS_SHOWN]
    for trial in shown:
        add_figure(grid, f"seed {trial.seed}")
    values = {t.seed: {m.name: m for m in t.metrics} for t in done}
    for name in [m.name for m in done[0].metrics if "/" not in m.name]:
        mean = metric_interval(done, name, limits)
        seeds = [values[t.seed].get(name) for t in shown]
        grid.add_row(
            name_cell(name),
            number(mean.mean),
            interval_text(mean, limits.get(name, UNLIMITED)),
            *(number(m.value) if m is not None else "-" for m in seeds),
        )
    return grid, [*(f"seed {trial.seed}" for trial in reversed(shown)), "95% interval"]


def _as_values(found: Stored) -> dict[str, Any]:
    entry, proposal = found.entry, found.proposal
    return entry_values(entry) | {
        "source": entry.candidate.source,
        "gate": proposal.gate,
        "probe": proposal.probe,
        "proposal": {
            "id": proposal.id,
            "index": proposal.index,
            "repair_of": proposal.repair_of,
            "duplicate_of": proposal.duplicate_of,
            "messages": proposal.prompt.messages() if proposal.prompt else None,
            "reply": proposal.reply,
        },
        "curve": stored_curve(proposal),
        "ranking": found.campaign.ranking,
        "campaign_status": found.campaign.status,
        "ended": found.campaign.ended,
        "lineage": found.lineage,
        "regimes": found.regimes,
        "trials": found.trials,
        "tasks": {task: {"task": r.task, "facts": r.facts} for task, r in found.tasks.items()},
    }
