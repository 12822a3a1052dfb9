"""Tables of what an archive holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from rich.text import Text

from db.records import EntryFilter, EntryStatus, Origin
from discovery.cli.archives import archive_url, opened, option_for
from discovery.cli.board import WIDE, origin_of, spread_of
from discovery.cli.tables import add_figure, add_name, add_word, name_cell, table
from discovery.cli.terminal import number, print_json, print_next, stdout_console, words
from evaluators.options import OptionsError, nearest

if TYPE_CHECKING:
    from db.records import CampaignRecord, Entry


@dataclass(frozen=True)
class Filter:
    """Which candidates to list, as typed."""

    campaign: str | None = None
    status: str | None = None
    origin: str | None = None
    text: str | None = None
    limit: int = 30
    offset: int = 0

    def where(self) -> EntryFilter:
        """Raises OptionsError with the words there are."""
        status: Any = _one_of("--status", self.status, get_args(EntryStatus))
        origin: Any = _one_of("--origin", self.origin, get_args(Origin))
        return EntryFilter(status=status, origin=origin, text=self.text)


def _one_of(option: str, given: str | None, known: tuple[str, ...]) -> str | None:
    if given is not None and given not in known:
        raise OptionsError(f"{option} does not know {given!r}; {nearest(given, list(known))}")
    return given


def campaigns(archive: str | None, as_json: bool) -> None:
    """`discovery campaigns`. Raises OptionsError, ArchiveError."""
    with opened(archive) as stored:
        records = stored.campaigns()
        best = {r.id: next(iter(stored.top(r.id, 1)), None) for r in records}
        shown = stored.url
    if as_json:
        print_json([_campaign(r, best[r.id]) for r in records])
        return
    console = stdout_console()
    if not records:
        console.print(words(f"{shown} holds no campaign yet; `discovery run CONFIG` makes one"))
        return
    wide = console.width >= WIDE
    grid = table()
    add_name(grid, "campaign")
    add_word(grid, "status")
    if wide:
        add_name(grid, "evaluator")
    add_figure(grid, "losses")
    add_figure(grid, "trials")
    add_name(grid, "best")
    add_figure(grid, "score")
    if wide:
        add_word(grid, "started (UTC)")
    for record in records:
        first = best[record.id]
        grid.add_row(
            name_cell(record.name),
            Text.assemble(words(record.status), (", NO SANDBOX" if record.unconfined else "", "bold red")),
            *([name_cell(record.evaluator)] if wide else []),
            str(record.candidates),
            f"{record.trials_done}" + (f" ({record.trials_failed} failed)" if record.trials_failed else ""),
            name_cell(first.name) if first else "-",
            number(first.score.mean) if first and first.score else "-",
            *([f"{record.created_at:%Y-%m-%d %H:%M}"] if wide else []),
        )
    console.print(grid)
    option = option_for(archive_url(archive), shown)
    console.print()
    print_next(console, f"discovery candidates --campaign NAME{option}")


def _campaign(record: CampaignRecord, best: Entry | None) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "evaluator": record.evaluator,
        "ranking": record.ranking,
        "candidates": record.candidates,
        "proposals": record.proposals,
        "trials_done": record.trials_done,
        "trials_failed": record.trials_failed,
        "unconfined": record.unconfined,
        "created_at": record.created_at,
        "finished_at": record.finished_at,
        "best": entry_values(best) if best else None,
        "config": record.config,
    }


def candidates(archive: str | None, wanted: Filter, as_json: bool) -> None:
    """`discovery candidates`. Raises OptionsError, ArchiveError."""
    where = wanted.where()
    with opened(archive) as stored:
        entries = stored.entries(wanted.campaign, where, wanted.limit + 1, wanted.offset)
        shown = stored.url
    more, entries = len(entries) > wanted.limit, entries[: wanted.limit]
    if as_json:
        print_json([entry_values(e) for e in entries])
        return
    console = stdout_console()
    if not entries:
        console.print(words(f"{shown} holds no such candidate"))
        return
    console.print(_table(entries, console.width >= WIDE))
    if more:
        console.print(Text(f"\nmore follow: --offset {wanted.offset + wanted.limit}", style="dim"))
    option = option_for(archive_url(archive), shown)
    new = next((e for e in entries if e.origin != "known"), entries[0])  # best first, and a baseline is no news
    console.print()
    print_next(console, f"discovery show {new.candidate.short_id}{option}")


def _table(entries: list[Entry], wide: bool) -> Any:
    metrics = list(dict.fromkeys(e.score.metric for e in entries if e.score))
    several = len({e.campaign for e in entries}) > 1
    grid = table("" if several else f"campaign {entries[0].campaign}")
    add_word(grid, "id")
    add_name(grid, "loss", least=16)
    if several:
        add_name(grid, "campaign", least=8)
    add_figure(grid, metrics[0] if len(metrics) == 1 else "score")
    add_figure(grid, "seeds")
    if wide:
        add_name(grid, "origin", least=8)
    add_name(grid, "status", least=12)
    for entry in entries:
        score = entry.score
        style = "cyan" if entry.origin == "known" else "" if score else "dim"
        value = number(score.mean) + (spread_of(score) if wide else "") if score else "-"
        grid.add_row(
            entry.candidate.short_id,
            name_cell(entry.name, style),
            *([name_cell(entry.campaign)] if several else []),
            value if len(metrics) < 2 or not score else f"{score.metric} {value}",
            str(entry.trials_done) if entry.trials_done else "-",
            *([name_cell(origin_of(entry), style)] if wide else []),
            status_of(entry, short=not wide),
        )
    return grid


def status_of(entry: Entry, short: bool = False) -> Text:
    """``ranked``, ``in training``, or the failure; and whether a trial of it ran without the sandbox."""
    status = _status_of(entry, short)
    return Text.assemble(status, (", NO SANDBOX", "bold red")) if entry.unconfined else status


def _status_of(entry: Entry, short: bool) -> Text:
    if entry.failure is not None:
        reason = str(entry.failure.kind) if short else str(entry.failure)
        return name_cell(f"{entry.status}: {reason}", "red" if entry.status == "failed" else "yellow", 300)
    if entry.status == "ranked":
        return Text(
            "baseline" if entry.origin == "known" else "ranked", style="cyan" if entry.origin == "known" else ""
        )
    return Text("not trained on all seeds", style="dim")


def entry_values(entry: Entry) -> dict[str, Any]:
    """An entry for JSON, without its source and fingerprint."""
    score = entry.score
    return {
        "id": entry.candidate.id,
        "contract": entry.candidate.contract,
        "name": entry.name,
        "thought": entry.thought,
        "campaign": entry.campaign,
        "origin": entry.origin,
        "proposer": entry.proposer,
        "parents": entry.parents,
        "status": entry.status,
        "score": {"mean": score.mean, "metric": score.metric, "higher_is_better": score.higher_is_better,
                  "by_seed": score.by_seed} if score else None,
        "failure": entry.failure,
        "trials_done": entry.trials_done,
        "trials_failed": entry.trials_failed,
        "unconfined": entry.unconfined,
        "created_at": entry.created_at,
    }  # fmt: skip
