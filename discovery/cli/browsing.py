"""The commands that read an archive and their options. What they do is imported when one is called."""

from __future__ import annotations

from typing import Annotated

import typer

from discovery.cli.options import MOST, ArchiveUrl, CandidateId, Csv, Json, OfCampaign

browsing = typer.Typer(rich_markup_mode=None)


@browsing.command()
def campaigns(archive: ArchiveUrl = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """List the campaigns of an archive."""
    from discovery.cli.listings import Form, campaigns

    campaigns(archive, Form(as_json, as_csv))


@browsing.command()
def candidates(
    campaign: Annotated[
        str | None, typer.Option("--campaign", help="Only this one. Default: all, newest first.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="EXPRESSION", help="Over metrics and facts: 'frontier > 0.5 and final_kl < 1'."
        ),
    ] = None,
    status: Annotated[str | None, typer.Option("--status", help="ranked, accepted, failed or refused.")] = None,
    proposer: Annotated[str | None, typer.Option("--proposer", help="Who proposed it, for instance openai.")] = None,
    origin: Annotated[str | None, typer.Option("--origin", help="known, imported, proposed or repaired.")] = None,
    search: Annotated[str | None, typer.Option("--search", help="Text in name, thought or code.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="NAME",
            help="A metric or a fact, in the better direction; NAME:asc or NAME:desc otherwise.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MOST, help="Rows at most.")] = 30,
    offset: Annotated[int, typer.Option("--offset", min=0, max=MOST, help="Rows to leave out.")] = 0,
    archive: ArchiveUrl = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """List candidate losses by score.

    Those without a score follow: in training, failed, refused.
    """
    from discovery.cli.listings import Filter, Form, candidates

    wanted = Filter(campaign, status, origin, proposer, search, where, sort, limit, offset)
    candidates(archive, wanted, Form(as_json, as_csv))


@browsing.command()
def show(
    candidate: CandidateId,
    campaign: OfCampaign = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="Also what its proposer was sent.")] = False,
    reply: Annotated[bool, typer.Option("--reply", help="Also what its proposer answered.")] = False,
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Show one candidate in full.

    Code, idea, parents, checks, loss curve, scores per seed and stage, failures, and where the data came from.
    """
    from discovery.cli.show import Texts, show

    show(archive, candidate, campaign, Texts(prompt, reply), as_json)


@browsing.command()
def compare(
    candidates: Annotated[
        list[str], typer.Argument(metavar="ID|NAME...", help="The first is compared with each other.")
    ],
    campaign: OfCampaign = None,
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Compare candidates with the first of them.

    Their code, their loss curves, and the differences of their metrics, paired over common seeds.
    """
    from discovery.cli.compare import compare

    compare(archive, candidates, campaign, as_json)


@browsing.command()
def lineage(
    candidate: CandidateId,
    children: Annotated[bool, typer.Option("--children", help="Also what was made from it.")] = False,
    campaign: OfCampaign = None,
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Show what a candidate was made from, as a tree."""
    from discovery.cli.lineage import lineage

    lineage(archive, candidate, campaign, children, as_json)


@browsing.command()
def leaderboard(
    campaign: Annotated[str, typer.Argument(help="Its name.")],
    regimes: Annotated[
        bool,
        typer.Option("--regimes", help="Also each world by itself, where the evaluator reports the metric per world."),
    ] = False,
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Show where a campaign stands.

    Each stage's ranking with paired differences to the leading baseline, as a run shows it at its end.
    """
    from discovery.cli.leaderboard import leaderboard

    leaderboard(archive, campaign, as_json, regimes)


@browsing.command()
def tail(
    campaign: Annotated[str, typer.Argument(help="Its name.")],
    last: Annotated[int, typer.Option("--lines", min=0, max=MOST, help="What happened last before, in lines.")] = 10,
    every_s: Annotated[
        float, typer.Option("--every", min=0.1, max=3600, metavar="SECONDS", help="Time between looks.")
    ] = 2.0,
    archive: ArchiveUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Follow a campaign that runs in another terminal.

    Until it is over or Ctrl-C. Only reads.
    """
    from discovery.cli.tail import tail

    raise typer.Exit(tail(archive, campaign, last, every_s, as_json))


@browsing.command()
def stats(
    campaign: Annotated[str, typer.Argument(help="Its name.")], archive: ArchiveUrl = None, as_json: Json = False
) -> None:
    """Say what a campaign's proposals came to, and what they cost."""
    from discovery.cli.stats import stats

    stats(archive, campaign, as_json)
