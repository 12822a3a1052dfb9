"""`discovery lineage`: a candidate's ancestors and descendants as trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from discovery.browse.lineage import family
from discovery.cli.archives import opened
from discovery.cli.terminal import number, print_json, stdout_console
from discovery.contest import PRIVILEGED
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.records import Ancestor
    from discovery.browse.lineage import Family

_Relatives = Callable[[str], Sequence[str]]


def lineage(archive: str | None, prefix: str, campaign: str | None, with_children: bool, as_json: bool) -> None:
    """Raises OptionsError, ArchiveError."""
    with opened(archive) as stored:
        found = family(stored, prefix, campaign, with_children)
    if as_json:
        values = {"candidate": found.candidate_id, "campaign": found.campaign, "members": list(found.members.values())}
        print_json(values | {"edges": found.edges})
        return
    console = stdout_console()
    console.print(Text(f"campaign {one_line(found.campaign, 60)}: made from", style="dim"))
    _print(console, found, lambda one: [p for p in dict.fromkeys(found.members[one].parents) if p in found.members])
    if with_children:
        console.print(Text("\nmade from it", style="dim"))
        _print(console, found, lambda one: found.children.get(one, ()))


def _print(console: Console, found: Family, relatives: _Relatives) -> None:
    """A tree; one that appears before is not followed again. Deep lineages need no deep stack."""
    root = Tree(_label(found.members[found.candidate_id], "bold"), guide_style="dim")
    seen, todo = {found.candidate_id}, [(found.candidate_id, root)]
    while todo:
        one, branch = todo.pop(0)
        for other in relatives(one):
            again = other in seen
            leaf = branch.add(_label(found.members[other], "dim" if again else "", again))
            if not again:
                seen.add(other)
                todo.append((other, leaf))
    console.print(root)


def _label(one: Ancestor, style: str, again: bool = False) -> Text:
    score = number(one.score) if one.score is not None else one.status
    name = one_line(one.name, 50) or "unnamed"
    kind = f", {PRIVILEGED}" if one.privileged else ""
    return Text(f"{name} ({one.candidate_id[:10]}) {score}{kind}{', see above' if again else ''}", style=style)
