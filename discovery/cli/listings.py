"""Tables of what an archive holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from rich.text import Text

from db.filters import comparisons, parse
from db.records import EntryFilter, EntryStatus, Origin, Sort
from db.selection import FACTS
from discovery.cli.archives import archive_url, opened, option_for
from discovery.cli.board import WIDE, marked, origin_of, spread_of
from discovery.cli.csv_text import print_csv
from discovery.cli.tables import (
    Grid,
    add_figure,
    add_name,
    add_note,
    add_text,
    add_word,
    name_cell,
    print_table,
    table,
)
from discovery.cli.terminal import number, print_json, print_next, stdout_console, words
from discovery.contest import PRIVILEGED, leader_of_campaign
from evaluators.options import OptionsError, nearest

if TYPE_CHECKING:
    from db.archive import Archive
    from db.records import CampaignRecord, Entry

    Means = dict[tuple[str, str], dict[str, float]]  # by campaign and candidate, then by metric

_SEARCHED = 1_000  # characters of a text to search for
_CAMPAIGN_COLUMNS = (
    "id", "name", "status", "evaluator", "metric", "candidates", "proposals", "trials_done", "trials_failed", "unconfined",
    "created_at", "finished_at", "end_reason", "end_detail", "leader_id", "leader_name", "leader_score",
)  # fmt: skip
_CANDIDATE_COLUMNS = (
    "id", "name", "campaign", "contract", "origin", "proposer", "status", "metric", "score", "trials_done", "trials_failed",
    "unconfined", "privileged", "failure_kind", "failure_message", "created_at", "thought",
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How to print a listing: a table unless one of these is asked for."""

    as_json: bool = False
    as_csv: bool = False

    def __post_init__(self) -> None:
        if self.as_json and self.as_csv:
            raise OptionsError("--json and --csv exclude each other")


@dataclass(frozen=True)
class Filter:
    """Which candidates to list, as typed."""

    campaign: str | None = None
    status: str | None = None
    origin: str | None = None
    proposer: str | None = None
    text: str | None = None
    expression: str | None = None
    sort: str | None = None
    limit: int = 30
    offset: int = 0

    def where(self) -> EntryFilter:
        """Raises OptionsError with the words there are."""
        status: Any = _one_of("--status", self.status, get_args(EntryStatus))
        origin: Any = _one_of("--origin", self.origin, get_args(Origin))
        if len(self.text or "") > _SEARCHED:
            raise OptionsError(
                f"the text to search for has {len(self.text or ''):,} characters, and may have {_SEARCHED:,}"
            )
        return EntryFilter(status, origin, self.proposer, text=self.text, where=self.expression)

    def order(self) -> Sort | None:
        """``NAME``, ``NAME:asc`` or ``NAME:desc``. Raises OptionsError."""
        if self.sort is None:
            return None
        name, colon, way = self.sort.partition(":")
        _one_of("--sort", way if colon else None, ("asc", "desc"))
        return Sort(name, way == "desc" if colon else None)

    def metrics(self) -> list[str]:
        """Metrics that the filter or the order names: worth a column each. Raises FilterError."""
        used = [c.name for c in comparisons(parse(self.expression))] if self.expression is not None else []
        order = self.order()
        return [n for n in dict.fromkeys([*used, *([order.by] if order else [])]) if n not in FACTS]


def _one_of(option: str, given: str | None, known: tuple[str, ...]) -> str | None:
    if given is not None and given not in known:
        raise OptionsError(f"{option} does not know {given!r}; {nearest(given, list(known))}")
    return given


def campaigns(archive: str | None, form: Form) -> None:
    """`discovery campaigns`. Raises OptionsError, ArchiveError."""
    with opened(archive) as stored:
        records = stored.campaigns()
        leader = {r.id: leader_of_campaign(stored, r.id) for r in records}
        shown = stored.url
    if form.as_json:
        print_json([_campaign(r, leader[r.id]) for r in records])
        return
    if form.as_csv:
        print_csv(_CAMPAIGN_COLUMNS, (_campaign_row(r, leader[r.id]) for r in records))
        return
    console = stdout_console()
    if not records:
        console.print(words(f"{shown} holds no campaign yet; `discovery run CONFIG` makes one"))
        return
    grid = table()
    add_name(grid, "campaign")
    add_word(grid, "status")
    add_text(grid, "why it ended", least=24)
    add_note(grid, "evaluator", least=12)
    add_figure(grid, "losses")
    add_figure(grid, "trials")
    add_name(grid, "leader")
    add_figure(grid, "score")
    add_word(grid, "started (UTC)")
    for record in records:
        first = leader[record.id]
        grid.add_row(
            name_cell(record.name),
            Text.assemble(words(record.status), (", NO SANDBOX" if record.unconfined else "", "bold red")),
            words(record.ended.text if record.ended is not None else "", limit=300),
            name_cell(record.evaluator),
            str(record.candidates),
            f"{record.trials_done}" + (f" ({record.trials_failed} failed)" if record.trials_failed else ""),
            name_cell(first.name + (f" ({PRIVILEGED})" if first.privileged else "")) if first else "-",
            number(first.score.mean) if first and first.score else "-",
            f"{record.created_at:%Y-%m-%d %H:%M}",
        )
    print_table(console, grid, ("evaluator", "started (UTC)", "losses", "trials", "why it ended", "score"))
    option = option_for(archive_url(archive), shown)
    console.print()
    print_next(console, f"discovery candidates --campaign NAME{option}")


def campaign_values(record: CampaignRecord) -> dict[str, Any]:
    """A campaign and what it holds, as JSON values."""
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
        "ended": record.ended,
        "config": record.config,
    }


def _campaign(record: CampaignRecord, leader: Entry | None) -> dict[str, Any]:
    return campaign_values(record) | {"leader": entry_values(leader) if leader else None}


def _campaign_row(record: CampaignRecord, leader: Entry | None) -> dict[str, Any]:
    flat: dict[str, Any] = {"metric": record.ranking.metric}
    if record.ended is not None:
        flat |= {"end_reason": str(record.ended.reason), "end_detail": record.ended.text}
    if leader is not None and leader.score is not None:
        flat |= {"leader_id": leader.candidate.id, "leader_name": leader.name, "leader_score": leader.score.mean}
    return _campaign(record, leader) | flat


def candidates(archive: str | None, wanted: Filter, form: Form) -> None:
    """`discovery candidates`. Raises OptionsError, ArchiveError."""
    where, order = wanted.where(), wanted.order()
    names = wanted.metrics()
    with opened(archive) as stored:
        page = stored.page(wanted.campaign, where, wanted.limit, wanted.offset, order)
        means = means_of(stored, page.entries, names)
        shown = stored.url
        hint = "" if page.total or wanted.proposer is None else _proposer_meant(stored, wanted)
    if form.as_json:
        print_json([entry_values(e) | ({"metrics": means[e.campaign, e.candidate.id]} if names else {})
                    for e in page.entries])  # fmt: skip
        return
    if form.as_csv:
        rows = (_candidate_row(e) | means[e.campaign, e.candidate.id] for e in page.entries)
        print_csv([*_CANDIDATE_COLUMNS, *names], rows)
        return
    console = stdout_console()
    if not page.entries:
        console.print(words(f"{shown} holds no such candidate{hint}" if not page.total else f"only {page.total} match"))
        return
    grid = _table(page.entries, console.width >= WIDE, names, means)
    print_table(console, grid, ("origin", "seeds", "id", *reversed(names), "campaign"))
    last = wanted.offset + len(page.entries)
    if len(page.entries) < page.total:
        more = f"; more follow: --offset {last}" if last < page.total else ""
        console.print(Text(f"\n{wanted.offset + 1} to {last} of {page.total}{more}", style="dim"))
    option = option_for(archive_url(archive), shown)
    new = next((e for e in page.entries if e.origin != "known"), page.entries[0])  # a baseline is no news
    console.print()
    print_next(console, f"discovery show {new.candidate.short_id}{option}")


def _proposer_meant(stored: Archive, wanted: Filter) -> str:
    """What to say where nothing was proposed by whoever was typed; nothing where it is there."""
    campaigns = [r.id for r in stored.campaigns() if wanted.campaign in (None, r.name)]
    known = sorted({count.proposer for one in campaigns for count in stored.outcomes(one)})
    assert wanted.proposer is not None
    return (
        ""
        if wanted.proposer in known or not known
        else f"; no proposer {wanted.proposer!r}: {nearest(wanted.proposer, known)}"
    )


def means_of(stored: Archive, entries: Sequence[Entry], names: Sequence[str]) -> Means:
    """Means of the metrics that a campaign's trials report, by campaign and candidate."""
    found: Means = {(e.campaign, e.candidate.id): {} for e in entries}
    for campaign in dict.fromkeys(e.campaign for e in entries) if names else ():
        there = [m.name for m in stored.metrics(campaign) if m.name in names]
        ids = [e.candidate.id for e in entries if e.campaign == campaign]
        found |= {(campaign, one): values for one, values in stored.means(campaign, there, ids).items()}
    return found


def _candidate_row(entry: Entry) -> dict[str, Any]:
    score, failure = entry.score, entry.failure
    flat = {
        "score": score.mean if score else None,
        "metric": score.metric if score else None,
        "failure_kind": failure.kind if failure else None,
        "failure_message": failure.message if failure else None,
    }
    return entry_values(entry) | flat | {"privileged": " ".join(entry.privileged)}


def _table(entries: Sequence[Entry], wide: bool, names: Sequence[str], means: Means) -> Grid:
    metrics = list(dict.fromkeys(e.score.metric for e in entries if e.score))
    several = len({e.campaign for e in entries}) > 1
    grid = table("" if several else f"campaign {entries[0].campaign}")
    add_word(grid, "id")
    add_name(grid, "loss")
    if several:
        add_name(grid, "campaign", least=8)
    add_figure(grid, metrics[0] if len(metrics) == 1 else "score")
    extra = [n for n in names if metrics != [n]]
    for name in extra:
        add_figure(grid, name)
    add_figure(grid, "seeds")
    add_note(grid, "origin", least=8)
    add_text(grid, "status", least=20)  # whether it is ranked, refused or unconfined is never cut
    for entry in entries:
        score, values = entry.score, means[entry.campaign, entry.candidate.id]
        style = "cyan" if entry.origin == "known" else "" if score else "dim"
        value = number(score.mean) + (spread_of(score) if wide else "") if score else "-"
        grid.add_row(
            entry.candidate.short_id,
            name_cell(entry.name, style),
            *([name_cell(entry.campaign)] if several else []),
            value if len(metrics) < 2 or not score else f"{score.metric} {value}",
            *(number(values[n]) if n in values else "-" for n in extra),
            str(entry.trials_done) if entry.trials_done else "-",
            name_cell(origin_of(entry), style),
            status_of(entry, short=not wide),
        )
    return grid


def status_of(entry: Entry, short: bool = False) -> Text:
    """``ranked``, ``in training``, or the failure; and the marks that a loss never stands without."""
    return marked(_status_of(entry, short), entry)


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
        "privileged": entry.privileged,
        "created_at": entry.created_at,
    }  # fmt: skip
