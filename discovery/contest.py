"""Which losses compete with which.

A loss that reads a privileged input (a reward, a soft label) knows more than one that sees labels alone, so a better score
of it says nothing about the loss. The two kinds stand in the same tables, marked, and do not compete:

- A loss is compared with the leading baseline of its own kind. Where there is none it is compared with the leading one of
  the other kind, and every such comparison says that it is not like with like.
- What leads a campaign sees labels alone: in what is shown as leading, in what is promoted, in what is exported as the
  leader, and in what a proposer is told to beat. Only where all baselines of a campaign (those of its promotions too) are
  privileged is the campaign about privileged losses, and then those lead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from db.records import Entry, EntryFilter

if TYPE_CHECKING:
    from db.archive import Archive
    from db.session import CampaignRef

PRIVILEGED = "privileged"
MEANING = f"{PRIVILEGED}: reads scores or soft labels, which tell more than labels do"
UNLIKE = "unlike"
UNLIKE_MEANING = f"{UNLIKE}: one of the two is privileged and the other sees labels alone, so it is not like with like"


class HasKind(Protocol):
    """What knows which inputs tell it more than labels do: an entry, a known objective."""

    @property
    def privileged(self) -> tuple[str, ...]:
        """Their names; empty for a loss that sees labels alone."""


def alike(one: HasKind, other: HasKind) -> bool:
    """Whether two losses are of one kind, so that comparing them is comparing like with like."""
    return bool(one.privileged) == bool(other.privileged)


def is_about_privileged(baselines: Iterable[HasKind]) -> bool:
    """Whether a campaign with these baselines is about privileged losses: where it has baselines, and all of them are."""
    kinds = [bool(b.privileged) for b in baselines]
    return bool(kinds) and all(kinds)


def competes(one: HasKind, about_privileged: bool) -> bool:
    """Whether a loss may lead a campaign that is, or is not, about privileged losses."""
    return bool(one.privileged) == about_privileged


def contest_of(archive: Archive, campaign: CampaignRef) -> bool:
    """Whether a stored campaign is about privileged losses. Raises ArchiveError."""
    return is_about_privileged(archive.entries(campaign, EntryFilter(origin="known")))


def leader_of_campaign(archive: Archive, campaign: CampaignRef) -> Entry | None:
    """What leads a campaign, a baseline or not; None where nothing that may lead is ranked. Raises ArchiveError."""
    competing = EntryFilter(status="ranked", privileged=contest_of(archive, campaign))
    return next(iter(archive.entries(campaign, competing, limit=1)), None)


@dataclass(frozen=True)
class Opponent:
    """The baseline that a loss is compared with. `alike`: whether they are of one kind."""

    entry: Entry
    alike: bool


def opponent_of(one: HasKind, baselines: Sequence[Entry]) -> Opponent | None:
    """The leading baseline of the loss's kind, else the leading one; None without baselines.

    Args:
        one: the loss; if it is itself the leading baseline of its kind it comes back.
        baselines: the leading one first.
    """
    same = next((b for b in baselines if alike(one, b)), None)
    if same is not None:
        return Opponent(same, alike=True)
    return Opponent(baselines[0], alike=False) if baselines else None


def told(one: HasKind) -> str:
    """``chosen_score, rejected_score, which tell more than labels do``; empty for a loss that sees labels alone."""
    names = ", ".join(one.privileged)
    return f"{names}, which {'tells' if len(one.privileged) == 1 else 'tell'} more than labels do" if names else ""
