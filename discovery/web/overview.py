"""Campaigns: all of them, and one while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from db.records import ALIVE, EntryFilter, RunningTrial, Scored
from discovery.browse.campaign_stats import CampaignStats, campaign_stats
from discovery.browse.comparison import ranking_difference
from discovery.cli.board import spread_of
from discovery.cli.terminal import dollars, duration, number, signed
from discovery.contest import PRIVILEGED, UNLIKE, alike, leader_of_campaign
from discovery.web.charts import Dot, Figure, at, bars, cloud, figure, line, thinned
from discovery.web.rendering import link, when
from sandbox.failure import FailureKind
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.archive import Archive

_LEADERS = 10
_BASELINES = 4  # drawn as lines: the leading ones
_LATELY = timedelta(minutes=10)


def campaigns(archive: Archive) -> dict[str, Any]:
    """All campaigns, newest first, each with its leading loss. Raises ArchiveError."""
    records = archive.campaigns()[::-1]
    return {"campaigns": [(r, leader_of_campaign(archive, r.id)) for r in records]}


def campaign(archive: Archive, name: str) -> dict[str, Any]:
    """A campaign's page, with what `live` says at this moment. Raises ArchiveError."""
    stats = campaign_stats(archive, name)
    about = stats.about_privileged
    leaders, apart = (
        archive.entries(name, EntryFilter(status="ranked", privileged=kind), limit=_LEADERS)
        for kind in (about, not about)
    )
    return {
        "campaign": stats.campaign,
        "proposers": stats.proposers,
        "leaders": leaders,
        "apart": apart,
        "about_privileged": about,
        "metrics": archive.metrics(name),
        "live": _live(archive, stats),
    }


def live(archive: Archive, name: str) -> dict[str, Any]:
    """What changes while a campaign runs: numbers, charts, running trials. Raises ArchiveError."""
    return _live(archive, campaign_stats(archive, name))


def _live(archive: Archive, stats: CampaignStats) -> dict[str, Any]:
    record = stats.campaign
    running = archive.running(record.id)
    return {
        "status": record.status,
        "end": [one_line(line, 1000) for line in stats.end.lines],
        "alive": record.status in ALIVE,
        "tiles": _tiles(archive, stats, running),
        "charts": {
            "leader": _leader_chart(stats),
            "scores": _scores_chart(record.name, record.ranking.metric, stats.scored),
            "failures": bars(dict(_failures(stats)), "count", "kind"),
            "throughput": _throughput_chart(stats.scored),
        },
        "running": [
            {
                "name": one_line(r.name, 60) or "unnamed",
                "link": link(f"/candidate/{r.candidate_id[:10]}", campaign=record.name),
                "seed": r.seed,
                "evaluator": r.evaluator,
                "worker": one_line(r.worker, 40),
                "since": when(r.since),
            }
            for r in running
        ],
    }


def _tiles(archive: Archive, stats: CampaignStats, running: Sequence[RunningTrial]) -> list[dict[str, str]]:
    record, scored, known = stats.campaign, stats.scored, stats.baselines[:1]
    tokens = f"{stats.prompt_tokens:,} in, {stats.completion_tokens:,} out"
    last = max((s.at for s in scored), default=None)
    lately = sum(s.at > last - _LATELY for s in scored) if last is not None else 0
    per = (
        f"{stats.tokens_per_accepted:,.0f} per accepted loss"
        if stats.tokens_per_accepted
        else "no language model asked"
    )
    failed = f"{record.trials_failed} failed" if record.trials_failed else "none failed"
    made = [
        ("Leading loss", *_leading(archive, stats)),
        (
            "Leading baseline",
            number(known[0].score) if known else "-",
            f"{_named(known[0], 40)}{_spread(archive, record.id, known[0])}" if known else "none measured",
        ),
        ("Losses in training or ranked", f"{record.candidates:,}", f"of {record.proposals:,} proposals and baselines"),
        ("Trials done", f"{record.trials_done:,}", f"{len(running)} running, {failed}"),
        ("Losses measured", f"{len(scored):,}", f"{lately} in the last ten minutes of work"),
        (
            "Device time",
            duration(stats.device_hours * 3600),
            f"{duration(stats.hours_saved * 3600)} saved by finding copies",
        ),
        ("Copies", f"{stats.copies.total:,} of {stats.proposals:,} proposals", stats.copies.parts),
        ("Money", "not known" if stats.usd is None else dollars(stats.usd), _each(stats)),
        ("Tokens", tokens if stats.prompt_tokens else "0", per),
    ]
    return [{"label": a, "value": b, "note": c} for a, b, c in made]


def _leading(archive: Archive, stats: CampaignStats) -> tuple[str, str]:
    """Its score, and how it compares with the leading baseline on the seeds that the search chose by."""
    if not stats.leaders:
        return "-", "nothing ranked yet"
    leader = stats.leaders[-1]
    name, score = _named(leader, 40), number(leader.score)
    if not stats.baselines:
        return score, f"{name}; no baseline to compare with"
    known = stats.baselines[0]
    compared = ranking_difference(archive, stats.campaign, leader.candidate_id, known.candidate_id)
    beside = _named(known, 30)
    if compared is None:
        return score, f"{name}; no seed in common with {beside}"
    ends = (
        "" if compared.low is None or compared.high is None else f" [{signed(compared.low)}, {signed(compared.high)}]"
    )
    unlike = "" if alike(leader, known) else f", {UNLIKE}"
    return score, f"{name}: {signed(compared.mean)}{ends} to {beside}, {compared.says}{unlike}"


def _named(one: Scored, limit: int) -> str:
    """Its name with its mark."""
    return one_line(one.name, limit) + (f" ({PRIVILEGED})" if one.privileged else "")


def _spread(archive: Archive, campaign: int, one: Scored) -> str:
    """``, ± 0.0123 over 2 seeds``; nothing for a single seed."""
    score = archive.entry(one.candidate_id, campaign).score
    spread = spread_of(score) if score is not None else ""
    return f",{spread} over {len(score.by_seed)} seeds" if score is not None and spread else ""


def _each(stats: CampaignStats) -> str:
    if stats.usd is None:
        return "no prices in the config"
    return f"{dollars(stats.usd_per_accepted)} per accepted loss" if stats.usd_per_accepted else "nothing accepted yet"


def _leader_chart(stats: CampaignStats) -> Figure:
    """The leading score so far as steps, and the leading baselines as level lines."""
    ranking, steps = stats.campaign.ranking, list(stats.leaders)
    times = [s.at for s in (*steps, *stats.baselines)]
    if not times:
        return figure([], "time (UTC)", ranking.metric, x_type="date")
    ends = [at(min(times)), at(stats.campaign.finished_at or max(times))]
    levels = [
        line(_named(b, 40), ends, [b.score, b.score], line={"dash": "dot", "width": 1.5}, hoverinfo="name+y")
        for b in stats.baselines[:_BASELINES]
    ]
    found = []
    if steps:
        x = [*(at(s.at) for s in steps), max(ends[1], at(steps[-1].at))]
        y = [*(s.score for s in steps), steps[-1].score]
        found = [line("leading loss", x, y, line={"shape": "hv", "width": 3})]
    return figure([*found, *levels], "time (UTC)", ranking.metric, x_type="date")


def _scores_chart(campaign: str, metric: str, scored: Sequence[Scored]) -> Figure:
    """Each ranked loss when it was measured, by proposer."""
    groups: dict[str, list[Scored]] = {}
    for one in thinned(scored):
        group = "baseline" if one.origin == "known" else one.proposer
        groups.setdefault(group + (f", {PRIVILEGED}" if one.privileged else ""), []).append(one)
    clouds = [
        cloud(
            proposer,
            [
                Dot(at(s.at), s.score, s.name, link(f"/candidate/{s.candidate_id[:10]}", campaign=campaign))
                for s in group
            ],
        )
        for proposer, group in sorted(groups.items())
    ]
    return figure(clouds, "measured (UTC)", metric, x_type="date")


def _failures(stats: CampaignStats) -> dict[str, int]:
    """By kind, whether the checks or the training found it; copies of known losses apart from those of its own."""
    kinds = dict(stats.check_failures)
    kinds.pop(FailureKind.DUPLICATE, None)
    of = {"copy of a known loss": stats.copies.known, "copy of its own": stats.copies.own}
    kinds |= {label: count for label, count in of.items() if count}
    for kind, count in stats.training_failures.items():
        kinds[kind] = kinds.get(kind, 0) + count
    return kinds


def _throughput_chart(scored: Sequence[Scored]) -> Figure:
    """Losses measured, counted up over time: the slope is the pace."""
    counted = thinned(list(enumerate(scored, 1)))
    trace = line("measured", [at(s.at) for _, s in counted], [n for n, _ in counted], line={"shape": "hv"})
    return figure(
        [trace] if counted else [], "time (UTC)", "losses measured", x_type="date", layout={"showlegend": False}
    )
