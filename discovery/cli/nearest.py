"""`discovery nearest`: which known objectives a loss behaves most like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from discovery.cli.catalogue import contract_named
from discovery.cli.files import accepted_loss
from discovery.cli.losses import find_loss
from discovery.cli.platforms import require_linux
from discovery.cli.tables import add_figure, add_name, add_word, print_table, table
from discovery.cli.terminal import print_json, stderr_console, stdout_console
from sandbox.text import one_line

if TYPE_CHECKING:
    from sandbox.reports import Match


def nearest_known(loss: str, contract_name: str, archive: str | None, as_json: bool, limit: int) -> None:
    """Measure a file, an archived candidate or a known objective, and rank the known ones by distance.

    Raises:
        OptionsError: there is no such loss, or gate or probe refuse it. ArchiveError, InfrastructureError.
    """
    require_linux("nearest")
    contract = contract_named(contract_name)
    name, candidate = find_loss(loss, contract, archive)
    from evaluators.objectives import known_losses, machine_conditions
    from sandbox.server import OracleServer

    console = stderr_console() if as_json else stdout_console()
    with OracleServer() as server:
        gate, probe = accepted_loss(console, server, name, candidate, contract, machine_conditions())
        assert probe.fingerprint is not None
        known = known_losses(server, contract, machine_conditions())
        copy = known.match(probe.fingerprint, probe.properties, gate.parameters)
        found = known.nearest(probe.fingerprint, probe.curve, limit)
    if as_json:
        print_json({"candidate": candidate.id, "copy_of": copy, **vars(found)})
        return
    scalar = contract.scale_scalar
    console.print(Text(f"{one_line(name, 80)} ({candidate.short_id}) as {contract.name}", style="bold"))
    if copy is not None:
        console.print(Text(f"{copy.refusal(scalar).message}: a campaign would not train it", style="yellow"))
    _print(
        found.by_fingerprint,
        scalar,
        "By fingerprint, the normalised gradients on drawn inputs: 0 for a copy, 1.4 for nothing in common",
    )
    if found.by_curve:
        title = "By loss curve over the margin, centred and normalised: 0 for the same, 2 for its mirror image"
        _print(found.by_curve, scalar, title)


def _print(matches: tuple[Match, ...], scalar: str | None, title: str) -> None:
    grid = table()
    add_name(grid, "objective", least=20)
    add_figure(grid, "distance")
    add_word(grid, f"at {scalar} x" if scalar else "")
    for match in matches:
        grid.add_row(match.name, f"{match.distance:.4f}", f"{match.scale:.4g}" if scalar else "")
    console = stdout_console()
    console.print(Text(f"\n{title}"), soft_wrap=True)
    print_table(console, grid)
