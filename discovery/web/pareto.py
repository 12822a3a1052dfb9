"""Any two metrics of a campaign against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from discovery.browse.pareto import tradeoff
from discovery.contest import PRIVILEGED
from discovery.web.charts import Dot, cloud, figure, line, thinned
from discovery.web.rendering import link

if TYPE_CHECKING:
    from db.archive import Archive


def plot(archive: Archive, campaign: str, x: str | None, y: str | None) -> dict[str, Any]:
    """The ranking metric and the next one, unless others are named. Raises ArchiveError, OptionsError."""
    record = archive.campaign(campaign)
    names = [m.name for m in archive.metrics(campaign)]
    if not names:
        return {"campaign": record, "metrics": [], "found": None}
    others = [n for n in names if n != record.ranking.metric and "/" not in n]
    y = y or record.ranking.metric
    x = x or (others[0] if others else names[0])
    found = tradeoff(archive, campaign, x, y)
    groups: dict[str, list[Dot]] = {}
    for p in thinned(found.points):
        group = "baseline" if p.candidate.origin == "known" else p.candidate.proposer
        group += f", {PRIVILEGED}" if p.candidate.privileged else ""
        groups.setdefault(group, []).append(
            Dot(p.x, p.y, p.candidate.name, link(f"/candidate/{p.candidate.candidate_id[:10]}", campaign=campaign))
        )
    front = line("front", [p.x for p in found.front], [p.y for p in found.front], line={"dash": "dash", "width": 1.5})
    ways = [f"{m.name}, {'higher' if m.higher_is_better else 'lower'} is better" for m in (found.x, found.y)]
    chart = figure([front, *(cloud(name, dots) for name, dots in sorted(groups.items()))], *ways)
    return {"campaign": record, "metrics": names, "found": found, "x": x, "y": y, "chart_figure": chart}
