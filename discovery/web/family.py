"""A candidate's family as a graph that one can walk: each box leads to the family of another candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.records import Ancestor
from discovery.browse.lineage import Family, family
from discovery.cli.terminal import number
from discovery.web.rendering import link
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.archive import Archive

_NODES = 120  # drawn: the nearest
_IN_A_ROW = 5
WIDTH, HEIGHT, GAP_X, GAP_Y = 190, 54, 24, 62


@dataclass(frozen=True)
class Box:
    """A candidate in the drawing, by its upper left corner."""

    member: Ancestor
    name: str
    score: str
    to: str
    x: int
    y: int
    is_start: bool


@dataclass(frozen=True)
class Drawing:
    """Boxes in rows, oldest on top; a line runs from the foot of a parent to the head of a child: x1, y1, x2, y2."""

    boxes: tuple[Box, ...]
    lines: tuple[tuple[int, int, int, int], ...]
    width: int
    height: int
    left_out: int


def lineage(archive: Archive, prefix: str, campaign: str | None) -> dict[str, Any]:
    """Raises ArchiveError."""
    found = family(archive, prefix, campaign, with_descendants=True)
    return {"family": found, "start": found.members[found.candidate_id], "drawing": draw(found)}


def draw(found: Family) -> Drawing:
    """Rows by generation, parents above their children; a wide generation takes several rows."""
    shown = dict(sorted(found.members.items(), key=lambda m: m[1].depth)[:_NODES])
    rows: list[Sequence[Ancestor]] = []
    for _, generation in sorted(_generations(found, shown).items()):
        rows += [generation[i : i + _IN_A_ROW] for i in range(0, len(generation), _IN_A_ROW)]
    widest = max(len(r) for r in rows)
    step = WIDTH + GAP_X
    boxes = {}
    for down, row in enumerate(rows):
        left = (widest - len(row)) * step // 2
        for across, member in enumerate(row):
            boxes[member.candidate_id] = Box(
                member=member,
                name=one_line(member.name, 20) or "unnamed",
                score=number(member.score) if member.score is not None else member.status,
                to=link(f"/candidate/{member.candidate_id[:10]}/lineage", campaign=found.campaign),
                x=left + across * step,
                y=down * (HEIGHT + GAP_Y) + 4,
                is_start=member.candidate_id == found.candidate_id,
            )
    lines = [
        (a.x + WIDTH // 2, a.y + HEIGHT, b.x + WIDTH // 2, b.y)
        for parent, child in found.edges
        if (a := boxes.get(parent)) is not None and (b := boxes.get(child)) is not None
    ]
    width, height = widest * step - GAP_X, len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 8
    return Drawing(tuple(boxes.values()), tuple(lines), width, height, len(found.members) - len(shown))


def _generations(found: Family, shown: Mapping[str, Ancestor]) -> dict[int, list[Ancestor]]:
    """Each below all of its parents, and no further above its children than it must be, so that all lines run downwards."""
    edges = [(parent, child) for parent, child in found.edges if parent in shown and child in shown]
    level = dict.fromkeys(shown, 0)
    for (
        _
    ) in shown:  # the longest chain has as many; what an archive claims may be a circle, which would not end by itself
        lower = {child: level[parent] + 1 for parent, child in edges if level[child] <= level[parent]}
        if not lower:
            break
        level |= lower
    children = {child for _, child in edges}
    for one in (c for c in shown if c not in children):
        level[one] = min((level[child] for parent, child in edges if parent == one), default=1) - 1
    generations: dict[int, list[Ancestor]] = {}
    for one, member in shown.items():
        generations.setdefault(level[one], []).append(member)
    return generations
