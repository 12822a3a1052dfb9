"""A candidate's files, made and verified as `discovery export` does."""

from __future__ import annotations

import io
import shlex
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from discovery.cli.archives import option_for
from discovery.cli.catalogue import contract_named
from discovery.cli.export import array_values, model_behind
from discovery.cli.platforms import runs_candidates
from discovery.cli.show import file_stem
from discovery.exporters.base import Exporter
from discovery.exporting import Typed, make_export
from discovery.gathering import of_archived
from evaluators.options import OptionsError, nearest
from evaluators.plugins import make_plugin, plugin_names
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.archive import Archive


@dataclass(frozen=True)
class Download:
    """A file for the browser to save; a zip archive where files belong to the text."""

    file_name: str
    media_type: str
    content: bytes


class Exports:
    """Each runs the loss in confined processes, so whoever asks for them does so one at a time."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def export(self, prefix: str, name: str, campaign: str | None) -> Download:
        """Raises OptionsError for an unknown format, ArchiveError, ExportError, InfrastructureError."""
        if name not in plugin_names("exporters"):  # only registered ones: this text came in an address
            raise OptionsError(f"no format {one_line(name, 60)!r}; {nearest(name, plugin_names('exporters'))}")
        exporter: Exporter = make_plugin("exporters", name)
        entry = self._archive.entry(prefix, campaign)
        dossier = of_archived(self._archive, entry, contract_named(entry.candidate.contract))
        dossier = replace(dossier, model=model_behind(dossier.proposal), arrays=array_values(self._archive, dossier))
        stem = file_stem(entry.name)
        option = option_for(self._archive.url, self._archive.url)
        command = shlex.join(
            ["discovery", "export", entry.candidate.short_id, "--format", name, "-o", stem + exporter.suffix]
        )
        with ExitStack() as stack:
            server = None
            if runs_candidates():
                from sandbox.server import OracleServer

                server = stack.enter_context(OracleServer())
            made = make_export(exporter, dossier, Typed(command + option, option, f"{stem}_files"), server).export
        if not made.attachments:
            return Download(stem + exporter.suffix, "text/plain; charset=utf-8", made.text.encode("utf-8", "replace"))
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as together:
            together.writestr(stem + exporter.suffix, made.text.encode("utf-8", "replace"))
            for attached, content in made.attachments.items():
                together.writestr(f"{stem}_files/{attached}", content)
        return Download(f"{stem}.zip", "application/zip", packed.getvalue())
