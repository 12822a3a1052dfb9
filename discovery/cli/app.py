"""The commands and their options. What they do is imported when one is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discovery.cli.archive_commands import archive_app
from discovery.cli.browsing import browsing
from discovery.cli.options import ArchiveUrl, Json, Yes

app = typer.Typer(
    name="discovery",
    help="Discover training objectives: propose losses, sandbox them, train with them, keep everything.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    rich_markup_mode=None,  # plain help: its Markdown renderer takes longer to import than everything else
    context_settings={"help_option_names": ["-h", "--help"]},
)
objectives_app = typer.Typer(help="List or show the known objectives.", rich_markup_mode=None)
app.add_typer(objectives_app, name="objectives")
app.add_typer(archive_app, name="archive")
app.add_typer(browsing)

NoSandbox = Annotated[
    bool,
    typer.Option(
        "--unsafe-no-sandbox",
        help="Run candidates without the system-call filter, where this machine has none. Recorded with every trial.",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting; repeatable.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"objective-discovery {version('objective-discovery')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _global(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks instead of one line; allowed anywhere.")] = False,
) -> None:
    del version, debug  # the border takes --debug out before the arguments come here
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("campaign.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented campaign configuration."""
    from discovery.cli.files import init

    init(path, force)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The campaign's YAML file.")],
    archive: ArchiveUrl = None,
    settings: Settings = None,
    leader_to: Annotated[
        Path | None,
        typer.Option(
            "--export-leader",
            help="Write the leading loss here at the end, better than the baselines or not, replacing the file.",
        ),
    ] = None,
    unsafe_no_sandbox: NoSandbox = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run a campaign, or go on with an interrupted one."""
    from discovery.cli.run import Afterwards, run

    raise typer.Exit(run(config, archive, settings or [], Afterwards(leader_to, as_json), unsafe_no_sandbox, yes))


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="A campaign's YAML file: its archive, cluster and endpoint are looked at too.")
    ] = None,
    archive: ArchiveUrl = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Say what this machine offers, and test live that candidates are confined."""
    from discovery.cli.doctor import doctor

    raise typer.Exit(doctor(config, archive, settings or [], as_json))


@objectives_app.callback(invoke_without_command=True)
def objectives(context: typer.Context, as_json: Json = False) -> None:
    """List or show the known objectives."""
    if context.invoked_subcommand is None:
        from discovery.cli.catalogue import objectives

        objectives(as_json)


@objectives_app.command("show")
def objectives_show(
    name: Annotated[str, typer.Argument(help="For instance dpo.")],
    contract: Annotated[str | None, typer.Option("--contract", help="Where several families have the name.")] = None,
    as_json: Json = False,
) -> None:
    """Show one known objective with its equation, paper and code."""
    from discovery.cli.catalogue import show_objective

    show_objective(name, contract, as_json)


@objectives_app.command("bench")
def objectives_bench(
    evaluator: Annotated[
        str, typer.Option("--evaluator", help="See `discovery evaluators`.")
    ] = "preference.enumerable",
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=10_000, help="Seeds 0 to N-1.")] = 20,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This objective; repeatable. Default: all.")
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Trials running at the same time.")] = 2,
    settings: Settings = None,
    unsafe_no_sandbox: NoSandbox = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The ranking as a Markdown table on stdout.")] = False,
    yes: Yes = False,
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Measure the known objectives on the same seeds and rank them.

    Takes a while; stop it with Ctrl-C, and the same command goes on. --set gives options of the evaluator.
    """
    from discovery.cli.bench import Bench, bench

    wanted = Bench(evaluator, seeds, tuple(only or ()), tuple(settings or ()), slots, unsafe_no_sandbox, yes)
    raise typer.Exit(bench(wanted, archive, as_json, markdown))


@app.command()
def evaluators(
    name: Annotated[str | None, typer.Argument(help="One of them, with its metrics and options.")] = None,
    as_json: Json = False,
) -> None:
    """List the evaluators, or show one."""
    from discovery.cli.catalogue import evaluators, show_evaluator

    if name is None:
        evaluators(as_json)
    else:
        show_evaluator(name, as_json)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="A file that defines the loss.")],
    contract: Annotated[str, typer.Option("--contract", help="Interface it is written for.")] = "preference.pairs",
    unsafe_no_sandbox: NoSandbox = False,
    as_json: Json = False,
) -> None:
    """Gate and probe one loss file.

    As a campaign does before training. Exit code 2 if a campaign would refuse it, also as a copy of a known loss.
    """
    from discovery.cli.files import check

    raise typer.Exit(check(file, contract, as_json, unsafe_no_sandbox))


@app.command()
def nearest(
    loss: Annotated[str, typer.Argument(metavar="FILE.py|NAME|ID", help="A file, a known objective or a candidate.")],
    contract: Annotated[str, typer.Option("--contract", help="Interface it is written for.")] = "preference.pairs",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to show.")] = 5,
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Say which known objectives a loss behaves most like, at any beta."""
    from discovery.cli.nearest import nearest_known

    nearest_known(loss, contract, archive, as_json, limit)


@app.command()
def evaluate(
    loss: Annotated[str, typer.Argument(metavar="FILE.py|NAME|ID", help="A file, a known objective or a candidate.")],
    evaluator: Annotated[
        str, typer.Option("--evaluator", help="See `discovery evaluators`.")
    ] = "preference.enumerable",
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N|LIST", help="A count, or seeds such as 1000,1001. Default: 1.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="LOSS", help="Another loss on the same seeds, for the difference."),
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided", help="Stop at the seed that decides between the two; --seeds is the most (20)."
        ),
    ] = False,
    settings: Settings = None,
    unsafe_no_sandbox: NoSandbox = False,
    yes: Yes = False,
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Train with one loss and score it.

    Outside of a campaign, one seed after the other; --set gives options of the evaluator. With --against the two are
    compared on the same seeds; with --until-decided by an interval that holds after each seed, so that looking is free.
    """
    from discovery.cli.evaluate import Trials, evaluate

    trials = Trials(evaluator, seeds, tuple(settings or ()), unsafe_no_sandbox, yes, against, until_decided)
    evaluate(loss, trials, archive, as_json)


@app.command("import")
def import_losses(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER", help="Loss files, folders of them, or DiscoPOP's tests.json.")
    ],
    collection: Annotated[
        str, typer.Option("--as", metavar="NAME", help="What the archive lists them under.")
    ] = "imported",
    contract: Annotated[str, typer.Option("--contract", help="Interface they are written for.")] = "preference.pairs",
    archive: ArchiveUrl = None,
    as_json: Json = False,
) -> None:
    """Take losses from files into the archive.

    Each is gated and probed like a candidate. Exit code 2 if none could be taken.
    """
    from discovery.cli.imports import import_losses

    raise typer.Exit(import_losses(paths, contract, archive, collection, as_json))


@app.command()
def export(
    loss: Annotated[
        str,
        typer.Argument(metavar="ID|NAME", help="A known objective; or a candidate: its name or id."),
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: stdout.")] = None,
    export_format: Annotated[
        str, typer.Option("--format", help="python, torch, trl, card, json, or another exporter.")
    ] = "python",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    campaign: Annotated[str | None, typer.Option("--campaign", help="Default: the newest that has it.")] = None,
    contract: Annotated[
        str | None, typer.Option("--contract", help="Where several families have a known objective of that name.")
    ] = None,
    archive: ArchiveUrl = None,
) -> None:
    """Write a loss as a file of its own, to train with or to read.

    It holds its provenance, and is run and compared with the archived loss before it is written. A known objective needs no
    archive; with --archive, its scores there go into the file.
    """
    from discovery.cli.export import Target, Wanted, export

    export(archive, Wanted(loss, campaign, contract), Target(output, export_format, force))


@app.command()
def dashboard(
    archive: ArchiveUrl = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. One that other machines reach asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes a free one.")] = 8321,
) -> None:
    """Show an archive in the web browser, campaigns live while they run.

    Only reads. Needs the extra [web]; works without internet.
    """
    from discovery.cli.archives import archive_url
    from discovery.web.server import serve

    serve(archive_url(archive), host, port, typer.echo)
