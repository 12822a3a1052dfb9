"""`discovery stats`: a campaign in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from discovery.browse.campaign_stats import campaign_stats
from discovery.cli.archives import opened
from discovery.cli.leaderboard import end_values
from discovery.cli.listings import campaign_values
from discovery.cli.tables import add_figure, add_name, add_note, key_values, name_cell, print_table, table
from discovery.cli.terminal import dollars, duration, number, print_end, print_json, stdout_console, words
from discovery.contest import PRIVILEGED
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.browse.campaign_stats import CampaignStats, ProposerStats

_STEPS_SHOWN = 15


def stats(archive: str | None, campaign: str, as_json: bool) -> None:
    """Raises OptionsError, ArchiveError."""
    with opened(archive) as stored:
        found = campaign_stats(stored, campaign)
    if as_json:
        rows = [vars(p) | {"success_rate": p.success_rate, "tokens_per_accepted": p.tokens_per_accepted,
                           "usd_per_accepted": p.usd_per_accepted}
                for p in found.proposers]  # fmt: skip
        shown = {name: value for name, value in vars(found).items() if name != "scored"}  # that is a listing
        shown |= {"campaign": campaign_values(found.campaign), **end_values(found.end)}
        print_json(shown | {"proposers": rows, "device_hours": found.device_hours})
        return
    console = stdout_console()
    console.print(Text(f"campaign {one_line(found.campaign.name, 60)}: {one_line(found.campaign.status, 30)}", "bold"))
    print_end(console, found.end)
    if found.proposers:
        _print_proposers(console, found)
    grid = key_values()
    grid.add_row("refused by the checks", words(_counts(found.check_failures)))
    grid.add_row("failed in training", words(_counts(found.training_failures)))
    saved = f", which saved {found.trials_saved} trials, about {found.hours_saved:.2g} device-hours"
    grid.add_row("copies", f"{found.copies.parts}{saved if found.trials_saved else ''}")
    grid.add_row("tokens", _tokens(found))
    grid.add_row("money", _money(found))
    if found.lost_requests:
        dearest = f", {dollars(found.lost_usd)}" if found.lost_usd else ""
        at_most = f"{found.lost_tokens:,} tokens{dearest} at most"
        grid.add_row(
            "lost requests", f"{found.lost_requests}, with {at_most}: a driver ended before their replies came"
        )
    times = ", ".join(f"{one_line(d.device, 20)} {d.seconds / 3600:.3g} in {d.trials} trials" for d in found.devices)
    grid.add_row("device-hours", words(times or "none yet"))
    console.print(grid)
    _print_leaders(console, found)


def _counts(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in failures.items()) or "none"


def _tokens(found: CampaignStats) -> str:
    if not found.prompt_tokens + found.completion_tokens:
        return "none: no language model was asked, or none were counted"
    each = found.tokens_per_accepted
    per = f"; {each:,.0f} per accepted loss" if each is not None else ""
    return f"{found.prompt_tokens:,} in, {found.completion_tokens:,} out{per}"


def _money(found: CampaignStats) -> str:
    if found.usd is None:
        return "not known: the config names no prices"
    each = found.usd_per_accepted
    return dollars(found.usd) + (f"; {dollars(each)} per accepted loss" if each is not None else "")


def _print_proposers(console: Console, found: CampaignStats) -> None:
    grid = table()
    add_name(grid, "proposer")
    add_note(grid, "model", least=12)
    for header in ("made", "accepted", "ranked", "success", "copies: known", "own", "tokens/accepted"):
        add_figure(grid, header)
    for one in found.proposers:
        grid.add_row(
            name_cell(one.proposer),
            name_cell(one.model if one.model and one.model != one.proposer else "-"),
            *_figures(one),
        )
    print_table(console, grid, ("tokens/accepted", "model", "success", "made", "ranked", "accepted"))
    console.print("success: ranked ones among all that were made\n", style="dim")


def _figures(one: ProposerStats) -> list[str]:
    each = one.tokens_per_accepted
    tokens = f"{each:,.0f}" if each else "-"
    success = f"{100 * one.success_rate:.0f}%"
    made = (one.proposals, one.accepted, one.ranked, success, one.copies.known, one.copies.own)
    return [*(str(n) for n in made), tokens]


def _print_leaders(console: Console, found: CampaignStats) -> None:
    """How the leading score grew, and the leading baseline for comparison."""
    if not found.leaders:
        console.print("\nno loss is ranked yet" + (" that may lead" if found.apart is not None else ""), style="dim")
        _print_apart(console, found)
        return
    ranking = found.campaign.ranking
    among = f", among {PRIVILEGED} losses" if found.about_privileged else ""
    console.print(Text(f"\nLeading {one_line(ranking.metric, 40)} so far{among}", style="bold"))
    grid = table()
    add_figure(grid, "after")
    add_figure(grid, "score")
    add_name(grid, "loss")
    for step in found.leaders[-_STEPS_SHOWN:]:
        after = duration((step.at - found.campaign.created_at).total_seconds())
        grid.add_row(after, number(step.score), name_cell(f"{step.candidate_id[:10]} {step.name}"))
    print_table(console, grid, ("after",))
    if len(found.leaders) > _STEPS_SHOWN:
        console.print(f"{len(found.leaders) - _STEPS_SHOWN} earlier steps: --json", style="dim")
    if found.baselines:
        leading = found.baselines[0]
        kind = f" ({PRIVILEGED})" if leading.privileged else ""
        console.print(
            Text(f"leading baseline: {one_line(leading.name, 40)}{kind} {number(leading.score)}", style="dim")
        )
    _print_apart(console, found)


def _print_apart(console: Console, found: CampaignStats) -> None:
    """The leading one of the losses that do not compete with those above."""
    one = found.apart
    if one is None:
        return
    what, reads = f"{PRIVILEGED} loss", f", which reads {', '.join(one.privileged)}"
    if not one.privileged:
        what, reads = "loss that sees labels alone", ""
    which = f"{one.candidate_id[:10]} {one_line(one.name, 40)} {number(one.score)}{reads}"
    said = f"apart from these, the leading {what}: {which}"
    console.print(words(said, "magenta", 400))
