"""`discovery export`: write a candidate, once the file is known to compute what was archived."""

from __future__ import annotations

import ast
import shlex
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from discovery.cli.archives import archive_url, opened, option_for
from discovery.cli.catalogue import contract_named
from discovery.cli.files import write_text
from discovery.cli.platforms import runs_candidates
from discovery.exporters.base import Ancestor, ExportContext, Exporter, ExportError
from evaluators.options import OptionsError
from evaluators.plugins import load_plugin
from sandbox.candidate import MAX_SOURCE_BYTES, Candidate
from sandbox.gate import MAX_LINES, check_source
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.archive import Archive
    from db.records import Entry, Proposal, TrialRecord
    from sandbox.contract import Contract

CANDIDATE_FORMATS = frozenset(["python"])  # whose text is itself in candidate form, so that it can be run and compared


@dataclass(frozen=True)
class Target:
    """Where to write (None: stdout), in which format, and whether an existing file may go."""

    path: Path | None
    format: str = "python"
    force: bool = False


def export(archive: str | None, prefix: str, target: Target) -> None:
    """Raises OptionsError, ArchiveError, ExportError, InfrastructureError, OSError."""
    exporter: Exporter = load_plugin("exporters", target.format)()
    with opened(archive) as stored:
        entry = stored.entry(prefix)
        contract = contract_named(entry.candidate.contract)
        output = f" -o {shlex.quote(str(target.path))}" if target.path else ""
        option = option_for(archive_url(archive), stored.url)
        command = f"discovery export {entry.candidate.short_id}{output}{option}"
        trials = [_summary(t) for t in stored.trials(entry.candidate.id, campaign=entry.campaign)]
        text = exporter.export(entry, trials, _context(stored, entry, contract, command))
    checked = target.format in CANDIDATE_FORMATS
    if checked:
        verify(entry.candidate, text, contract)
    if target.path is None:
        sys.stdout.write(text)
        return
    write_text(target.path, text, target.force)
    compared = "not run" if not runs_candidates() else "computes what was archived" if checked else "not compared"
    console = Console(stderr=True, highlight=False)
    console.print(Text(f"wrote {one_line(str(target.path))}: {one_line(entry.name, 80)}, {compared}"), soft_wrap=True)


def _summary(trial: TrialRecord) -> TrialRecord:
    """Without the values per world, which are many and in the archive."""
    return replace(trial, metrics=tuple(m for m in trial.metrics if "/" not in m.name))


def _context(stored: Archive, entry: Entry, contract: Contract, command: str) -> ExportContext:
    lineage = stored.lineage(entry.candidate.id, entry.campaign)
    return ExportContext(
        contract=contract,
        command=command,
        exported_at=datetime.now(UTC).replace(microsecond=0),
        version=version("objective-discovery"),
        model=_model(stored.proposal_of(entry.candidate.id, entry.campaign)),
        lineage=tuple(Ancestor(a.candidate_id, a.name, a.origin) for a in lineage if a.depth > 0),
    )


def _model(proposal: Proposal) -> str | None:
    """The language model behind a proposal, None if there was none."""
    if proposal.reply is None:
        return None
    try:
        uses_llm = bool(load_plugin("proposers", proposal.proposer).uses_llm)
    except (OptionsError, ImportError, AttributeError):  # a proposer that is not installed here
        uses_llm = True
    return proposal.reply.model if uses_llm else None


def verify(archived: Candidate, text: str, contract: Contract) -> None:
    """Whether a module computes what the archived candidate computes: gate everywhere, and the fingerprint on Linux.

    Raises:
        ExportError: it does not. InfrastructureError: nothing could be run.
    """
    exported = Candidate(contract.name, _within_limits(text))
    for what, candidate in (("the archived loss", archived), ("the exported module", exported)):
        gate = check_source(candidate, contract)
        if not gate.accepted:
            raise ExportError(f"{what} is refused ({one_line(str(gate.violations[0]), 200)}); nothing was exported")
    if not runs_candidates():
        return
    from sandbox.check import check_candidate
    from sandbox.fingerprint import distance
    from sandbox.server import OracleServer

    with OracleServer() as server:
        _, theirs = check_candidate(server, archived, contract)
        _, ours = check_candidate(server, exported, contract)
    if theirs is None or theirs.fingerprint is None:
        failure = theirs.failure if theirs is not None else None
        raise ExportError(f"the archived loss does not pass its checks ({failure}); nothing was exported")
    if ours is None or ours.fingerprint is None or distance(theirs.fingerprint, ours.fingerprint) > 0:
        raise ExportError("the exported module computes something else than the archived loss; nothing was exported")


def _within_limits(text: str) -> str:
    """The module as it is, or its code alone where provenance and comments make it longer than a candidate may be."""
    if len(text.encode()) <= MAX_SOURCE_BYTES and text.count("\n") < MAX_LINES:
        return text
    tree = ast.parse(text)
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    return ast.unparse(tree)
