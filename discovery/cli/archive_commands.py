"""`discovery archive`: upgrading, copying and checking whole archives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from discovery.cli.options import ArchiveUrl, Json

if TYPE_CHECKING:
    from rich.status import Status

_SHOWN = 5  # rows named of each kind of problem

archive_app = typer.Typer(help="Upgrade, copy or check a whole archive.", rich_markup_mode=None, no_args_is_help=True)


@archive_app.command()
def upgrade(archive: ArchiveUrl = None, as_json: Json = False) -> None:
    """Bring an archive that an older version wrote to this version's schema. Make a copy of it first."""
    from db.models import SCHEMA_VERSION
    from db.redact import redact_url
    from db.schema import upgrade
    from discovery.cli.archives import archive_url
    from discovery.cli.terminal import print_json, stdout_console, words

    url = archive_url(archive)
    before, shown = upgrade(url), redact_url(url)
    if as_json:
        print_json({"archive": shown, "before": before or None, "after": SCHEMA_VERSION})
        return
    said = f"has schema {SCHEMA_VERSION} already" if before == SCHEMA_VERSION else f"now has schema {SCHEMA_VERSION}"
    was = "" if before == SCHEMA_VERSION else f" (it had {before or 'none'})"
    stdout_console().print(words(f"{shown} {said}{was}", limit=500))


@archive_app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A file or URL, as for --archive.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Another, new or empty.")],
    as_json: Json = False,
) -> None:
    """Copy an archive, from SQLite to PostgreSQL for instance, and compare the copy with it row by row.

    Campaigns may run in SRC meanwhile. What DST gets is stored all at once or not at all.
    """
    from db.copying import copy
    from db.redact import redact_url
    from discovery.cli.archives import archive_url, option_for
    from discovery.cli.terminal import print_json, print_next, stdout_console, words

    from_, to = archive_url(source), archive_url(destination)
    with _status() as status:
        counts = copy(from_, to, lambda what, rows: status.update(f"{what}: {rows:,} rows"))
    shown = redact_url(to)
    if as_json:
        print_json({"source": redact_url(from_), "destination": shown, "rows": counts, "verified": True})
        return
    console = stdout_console()
    console.print(words(f"{shown}: {sum(counts.values()):,} rows of {len(counts)} tables, each compared", limit=500))
    print_next(console, f"discovery campaigns{option_for(to, shown)}")


@archive_app.command("check")
def check_archive(archive: ArchiveUrl = None, as_json: Json = False) -> None:
    """Look for damage: links, impossible states, hashes, and standings that differ from their trials.

    Only reads. Exit code 1 if something is wrong.
    """
    from db.checking import LOOKS, check
    from db.redact import redact_url
    from discovery.cli.archives import archive_url
    from discovery.cli.terminal import print_json, stdout_console, words

    url = archive_url(archive)
    found: dict[str, list[str]] = {}
    with _status() as status:
        for problem in check(url, status.update):
            found.setdefault(problem.what, []).append(problem.where)
    if as_json:
        problems = [{"what": what, "where": where} for what, where in found.items()]
        print_json({"archive": redact_url(url), "looked_at": LOOKS, "problems": problems})
    else:
        console = stdout_console()
        for what, where in found.items():
            more = f" and {len(where) - _SHOWN:,} more" if len(where) > _SHOWN else ""
            console.print(words(f"{what}: {', '.join(where[:_SHOWN])}{more}", limit=1000))
        said = f"{sum(map(len, found.values())):,} problems: restore a backup" if found else "nothing is wrong"
        console.print(words(f"{redact_url(url)}: {said} (looked at {', '.join(LOOKS)})", limit=1000))
    raise typer.Exit(1 if found else 0)


def _status() -> Status:
    """A line on stderr that says what is being done, where somebody looks."""
    from discovery.cli.terminal import stderr_console

    return stderr_console().status("opening")
