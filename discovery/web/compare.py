"""Candidates side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from discovery.browse.comparison import compare
from discovery.browse.curves import LossCurve
from discovery.web.charts import Figure, figure, line

if TYPE_CHECKING:
    from db.archive import Archive

MARGIN = "margin, in units of 1 / beta"


def compared(archive: Archive, ids: Sequence[str], campaign: str | None) -> dict[str, Any]:
    """Raises ArchiveError, and OptionsError for fewer than two different candidates."""
    found = compare(archive, ids, campaign)
    return {"compared": found, "charts": curve_charts(found.curves)}


def curve_charts(curves: Sequence[LossCurve]) -> dict[str, Figure]:
    """Losses and their slopes against the margin; nothing without a curve."""
    if not curves:
        return {}
    widths = [3.0, *(1.5 for _ in curves[1:])]
    losses = [line(c.name, c.margins, c.losses, line={"width": w}) for c, w in zip(curves, widths, strict=True)]
    slopes = [line(c.name, c.margins, c.slopes, line={"width": w}) for c, w in zip(curves, widths, strict=True)]
    return {"loss": figure(losses, MARGIN, "loss, normalised"), "slope": figure(slopes, MARGIN, "slope of the loss")}
