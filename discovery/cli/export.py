"""`discovery export`: write a loss in another form, once what is written is known to compute what was archived."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from discovery.cli.archives import archive_url, opened, option_for
from discovery.cli.catalogue import contract_named
from discovery.cli.files import require_writable, write_bytes, write_text
from discovery.cli.losses import else_known, known_names
from discovery.cli.platforms import runs_candidates
from discovery.cli.streams import unfiltered
from discovery.cli.terminal import stderr_console
from discovery.exporters.base import Exporter, ExportError
from evaluators.objectives import Objective, known_families, known_objectives
from evaluators.options import OptionsError
from evaluators.plugins import load_installed, make_plugin
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.archive import Archive
    from db.records import Proposal
    from discovery.dossier import Dossier
    from discovery.exporting import Exported


@dataclass(frozen=True)
class Target:
    """Where to write (None: stdout), in which format, and whether an existing file may go."""

    path: Path | None
    format: str = "python"
    force: bool = False


@dataclass(frozen=True)
class Wanted:
    """Which loss: a known objective by name, or a candidate by name or the beginning of its id, as typed."""

    loss: str
    campaign: str | None = None
    contract: str | None = None


def export(archive: str | None, wanted: Wanted, target: Target) -> None:
    """Raises OptionsError, ArchiveError, ExportError, InfrastructureError, OSError."""
    exporter: Exporter = make_plugin("exporters", target.format)
    if target.force and target.path is None:
        raise OptionsError("--force has no effect without -o FILE; leave it out")
    dossier, option = _dossier(archive, wanted)
    if target.path is not None:
        require_writable(target.path, target.force)
    from discovery.exporting import Typed, make_export

    typed = Typed(_command(dossier, wanted, target) + option, option, _folder(target.path))
    with ExitStack() as stack:
        server = None
        if runs_candidates():
            from sandbox.server import OracleServer

            server = stack.enter_context(OracleServer())
        made = make_export(exporter, dossier, typed, server)
    if target.path is None:
        _to_stdout(made, exporter)
    else:
        _to_files(made, target.path, target.force)


def _dossier(archive: str | None, wanted: Wanted) -> tuple[Dossier, str]:
    """What is known of the loss, and the `--archive` that the command needs to find it again."""
    from discovery.gathering import of_archived, of_known

    objective = _known(wanted)
    if objective is not None and archive is None:
        if wanted.campaign is not None:
            raise OptionsError(f"--campaign looks into an archive for {wanted.loss}; name it with --archive")
        return of_known(objective, contract_named(objective.contract)), ""
    with else_known(wanted.loss, [] if objective else known_names()), opened(archive) as stored:
        option = option_for(archive_url(archive), stored.url)
        if objective is not None:  # an archive that has it knows its scores
            ids = {e.candidate.id for e in stored.entries(wanted.campaign)}
            if objective.candidate.id not in ids and wanted.campaign is not None:
                raise OptionsError(f"the campaign {one_line(wanted.campaign, 60)!r} has no {wanted.loss}")
            if objective.candidate.id not in ids:
                return of_known(objective, contract_named(objective.contract)), ""
        prefix = wanted.loss if objective is None else objective.candidate.id
        entry = stored.entry(prefix, wanted.campaign)
        if wanted.contract not in (None, entry.candidate.contract):
            raise OptionsError(f"{entry.candidate.short_id} is for {entry.candidate.contract}, not {wanted.contract}")
        dossier = of_archived(stored, entry, contract_named(entry.candidate.contract))
        return replace(dossier, model=model_behind(dossier.proposal), arrays=array_values(stored, dossier)), option


def _known(wanted: Wanted) -> Objective | None:
    """The known objective of that name; None where only an archive can know it. Raises OptionsError."""
    families = known_families() if wanted.contract is None else [wanted.contract]
    found = [known_objectives(f)[wanted.loss] for f in families if wanted.loss in known_objectives(f)]
    if len(found) > 1:
        raise OptionsError(f"{wanted.loss!r} is in {', '.join(o.contract for o in found)}; choose one with --contract")
    return found[0] if found else None


def _command(dossier: Dossier, wanted: Wanted, target: Target) -> str:
    given = dossier.entry.name if not dossier.entry.campaign else dossier.entry.candidate.short_id
    words = ["discovery", "export", given]
    words += ["--format", target.format] if target.format != "python" else []
    words += ["--campaign", wanted.campaign] if wanted.campaign else []
    words += ["--contract", wanted.contract] if wanted.contract else []
    words += ["-o", str(target.path)] if target.path else []
    return shlex.join(words)


def model_behind(proposal: Proposal | None) -> str | None:
    """The language model behind a proposal, None if there was none."""
    if proposal is None or proposal.reply is None:
        return None
    try:
        uses_llm = bool(load_installed("proposers", proposal.proposer).uses_llm)
    except (OptionsError, ImportError, AttributeError):  # a proposer that is not installed here
        uses_llm = True
    return proposal.reply.model if uses_llm else None


def array_values(stored: Archive, dossier: Dossier) -> Mapping[int, Mapping[str, Mapping[str, object]]]:
    """Shape, type and range of each trial's arrays."""
    from discovery.gathering import array_summaries

    return {t.id: array_summaries(stored.arrays(t.id)) for t in dossier.trials}


def _folder(path: Path | None) -> str:
    return f"{path.stem}_files" if path is not None else "export_files"


def _to_stdout(made: Exported, exporter: Exporter) -> None:
    if made.export.attachments:
        raise ExportError(f"--format {exporter.name} writes more than one file; name one with -o FILE{exporter.suffix}")
    # into a file every character counts: what computes has been compared; what does not is written by `header`, clean
    out = sys.stdout if sys.stdout.isatty() else unfiltered(sys.stdout)
    out.write(made.export.text)


def _to_files(made: Exported, path: Path, force: bool) -> None:
    """Attachments first, so that the file never refers to what is not there."""
    folder = path.parent / _folder(path)
    if made.export.attachments:
        if folder.exists() and not force:
            raise OptionsError(f"{str(folder)!r} exists already; --force overwrites what is in it")
        with ExitStack() as unfinished:
            if not folder.exists():
                unfinished.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            for name, content in made.export.attachments.items():
                write_bytes(folder / name, content, force=True)
            write_text(path, made.export.text, force)
            unfinished.pop_all()
    else:
        write_text(path, made.export.text, force)
    compared = "not run" if not runs_candidates() else "computes what was archived" if made.compared else "not compared"
    beside = f" and {len(made.export.attachments)} files in {folder.name}/" if made.export.attachments else ""
    console = stderr_console()
    standing = f"; {made.dossier.standing}" if made.dossier.standing else ""
    shown = f"wrote {one_line(str(path))}{beside}: {one_line(made.dossier.entry.name, 80)}, {compared}{standing}"
    console.print(Text(shown), soft_wrap=True)
