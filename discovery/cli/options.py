"""Options that many commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Machine-readable: nothing but JSON on stdout.")]
ArchiveUrl = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="URL",
        help="SQLite file, SQLAlchemy URL or env:NAME. Default: $DISCOVERY_ARCHIVE, else runs/discovery.db.",
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="A table for spreadsheets: nothing but CSV on stdout.")]
CandidateId = Annotated[
    str,
    typer.Argument(metavar="ID|NAME", help="A candidate or known loss: its name, its id, or the beginning of the id."),
]
OfCampaign = Annotated[str | None, typer.Option("--campaign", help="Default: the newest that has it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before what takes long.")]
MOST = 1_000_000_000  # rows and the like: databases count no further than to 2**63
