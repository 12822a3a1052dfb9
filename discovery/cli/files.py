"""Files of the person's own: write a configuration, check a loss."""

from __future__ import annotations

import os
import shlex
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from discovery.cli.border import BAD_INPUT
from discovery.cli.catalogue import contract_named
from discovery.cli.platforms import require_linux
from discovery.cli.probed import properties
from discovery.cli.tables import key_values
from discovery.cli.terminal import print_json, print_next, stdout_console, words
from discovery.contest import PRIVILEGED, told
from discovery.nearby import meant
from evaluators.options import OptionsError
from sandbox.candidate import MAX_SOURCE_BYTES, Candidate
from sandbox.failure import Failure, FailureKind
from sandbox.mend import read_candidate
from sandbox.text import clean_text, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from sandbox.contract import Conditions, Contract
    from sandbox.reports import GateReport, Match, ProbeReport
    from sandbox.server import OracleServer


def init(path: Path, force: bool) -> None:
    """`discovery init`. Raises OptionsError, OSError."""
    from discovery.config_reference import default_config_text

    write_text(path, default_config_text(), force)
    console = stdout_console()
    console.print(Text(f"wrote {one_line(str(path))}"), soft_wrap=True)
    print_next(console, f"discovery run {shlex.quote(str(path))}")


def write_text(path: Path, text: str, force: bool) -> None:
    """Write a whole file or nothing. Raises OptionsError if it is there already, OSError if it cannot be written."""
    write_bytes(path, text.encode(), force)


def require_writable(path: Path, force: bool) -> None:
    """Raises OptionsError if there is no place for a file there."""
    if path.is_dir():
        raise OptionsError(f"{str(path)!r} is a directory; name a file")
    if path.exists() and not force:
        raise OptionsError(f"{str(path)!r} exists already; --force overwrites it")
    if not path.parent.is_dir():
        raise OptionsError(f"there is no directory {str(path.parent)!r}; make it first")


def write_bytes(path: Path, content: bytes, force: bool) -> None:
    """The same for bytes."""
    require_writable(path, force)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")
    with ExitStack() as unfinished:
        unfinished.callback(Path(temporary).unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        os.replace(temporary, path)
        unfinished.pop_all()


def read_loss(path: Path, contract: Contract) -> Candidate:
    """The candidate in a file; its notes say what was mended. Raises OptionsError."""
    if not path.is_file():
        raise OptionsError(f"{str(path)!r} is not a file" if path.exists() else f"no file {str(path)!r}{meant(path)}")
    if path.stat().st_size > 50 * MAX_SOURCE_BYTES:
        raise OptionsError(f"{str(path)!r} is too large for a loss: at most {MAX_SOURCE_BYTES} bytes")
    try:
        return read_candidate(path.read_text(encoding="utf-8"), contract)
    except UnicodeDecodeError:
        raise OptionsError(f"{str(path)!r} is not a UTF-8 text file") from None


def check(path: Path, contract_name: str, as_json: bool, unsafe_no_sandbox: bool = False) -> int:
    """`discovery check`: 0 if a campaign would train it, else 2. Raises OptionsError, InfrastructureError.

    The source of a known objective itself is no copy: a campaign trains it as a baseline.
    """
    require_linux("check")
    contract = contract_named(contract_name)
    candidate = read_loss(path, contract)
    from evaluators.objectives import known_objectives, machine_conditions
    from sandbox.check import check_candidate, refusal
    from sandbox.server import OracleServer

    itself = next((n for n, o in known_objectives(contract.name).items() if o.candidate.id == candidate.id), None)
    with OracleServer(unsafe_no_sandbox) as server:
        gate, probe = check_candidate(server, candidate, contract, conditions=machine_conditions())
        failure = refusal(gate, probe)
        match = _known(server, contract, gate, probe) if failure is None and itself is None else None
    known = itself or (match.describe(contract.scale_scalar) if match else None)
    failure = match.refusal(contract.scale_scalar) if match else failure
    verdict = Verdict(one_line(str(path)), candidate, gate, probe, failure)
    if as_json:
        print_json(_as_values(verdict) | {"known": known})
    else:
        _print_check(verdict, itself)
    return 0 if failure is None else BAD_INPUT


@dataclass(frozen=True)
class Verdict:
    """What a check found. `name` is what the loss is called in messages."""

    name: str
    candidate: Candidate
    gate: GateReport
    probe: ProbeReport | None
    failure: Failure | None


def _known(server: OracleServer, contract: Contract, gate: GateReport, probe: ProbeReport | None) -> Match | None:
    """The known loss that it computes, if any."""
    from evaluators.objectives import known_losses, machine_conditions

    if probe is None or probe.fingerprint is None:
        return None
    known = known_losses(server, contract, machine_conditions())
    return known.match(probe.fingerprint, probe.properties, gate.parameters)


def _as_values(verdict: Verdict) -> dict[str, Any]:
    probe = verdict.probe
    return {
        "candidate": verdict.candidate.id,
        "contract": verdict.candidate.contract,
        "accepted": verdict.failure is None,
        "failure": verdict.failure,
        "violations": verdict.gate.violations,
        "notes": verdict.gate.notes,
        "parameters": verdict.gate.parameters,
        "privileged": verdict.gate.privileged,
        "properties": probe.properties if probe else None,
        "facts": probe.facts if probe else {},
    }


def accepted_loss(
    console: Console,
    server: OracleServer,
    name: str,
    candidate: Candidate,
    contract: Contract,
    conditions: Conditions | None = None,
) -> tuple[GateReport, ProbeReport]:
    """What gate and probe say of a loss that a command goes on with; its fingerprint is taken under `conditions`.

    Raises:
        OptionsError: they refuse it; the gate's violations are printed before. InfrastructureError: ours.
    """
    from sandbox.check import check_candidate, refusal

    gate, probe = check_candidate(server, candidate, contract, conditions=conditions)
    failure = refusal(gate, probe)
    print_notes(console, name, gate)
    if not gate.accepted:
        print_violations(console, name, gate)
        raise OptionsError(f"{name} is refused by the gate for what is listed above")
    if failure is not None or probe is None:
        raise OptionsError(f"{name} is refused: {one_line(str(failure), 600)}")
    return gate, probe


def print_notes(console: Console, name: str, gate: GateReport) -> None:
    """What was mended in a source before it was judged, one a line."""
    for note in gate.notes:
        console.print(words(f"{name}: mended: {note}", "dim", limit=600), soft_wrap=True)


def print_violations(console: Console, name: str, gate: GateReport) -> None:
    """Each refused line of a source with what to do instead, one a line."""
    for violation in gate.violations:
        where = f"{name}:{violation.line}: " if violation.line else f"{name}: "
        console.print(words(f"{where}{violation.problem}. {violation.instead}", limit=600), soft_wrap=True)


def _print_check(verdict: Verdict, itself: str | None) -> None:
    console, failure = stdout_console(), verdict.failure
    heading = Text("accepted ", "bold green") if failure is None else Text("refused ", "bold red")
    console.print(heading + Text(f"{verdict.name} ({verdict.candidate.short_id}) as {verdict.candidate.contract}"))
    print_notes(console, verdict.name, verdict.gate)
    print_violations(console, verdict.name, verdict.gate)
    if failure is not None and verdict.gate.accepted:
        console.print(Text(clean_text(str(failure))), soft_wrap=True)
    if itself:
        console.print(Text(f"this is the known objective {itself}"))
    if failure is None or failure.kind is FailureKind.DUPLICATE:
        grid = key_values()
        grid.add_row("reads", ", ".join(verdict.gate.parameters))
        if verdict.gate.privileged:
            grid.add_row(PRIVILEGED, f"it reads {told(verdict.gate)}")
        for label, value in properties(verdict.probe):
            grid.add_row(label, value)
        console.print(grid)
