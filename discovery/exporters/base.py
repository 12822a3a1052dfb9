"""What an exporter is. It reads archived values and returns a file; it runs no candidate code and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Protocol

from discovery.dossier import Dossier

if TYPE_CHECKING:
    from discovery.formulas.tree import Formula

CALL = "exported_call"  # the function that a `Runnable` defines


class ExportError(ValueError):
    """A candidate that cannot be exported: one line that says why, and what is missing. Exit code 2."""


@dataclass(frozen=True)
class Curve:
    """A loss along the margin at one beta, as the oracle measured it: values of equal length, plain floats.

    Attributes:
        name: of the loss.
        margins: log-ratio margin d in nats.
        losses: per example.
        slopes: d loss / d margin, by moving the chosen log-prob.
    """

    name: str
    margins: tuple[float, ...]
    losses: tuple[float, ...]
    slopes: tuple[float, ...]


@dataclass(frozen=True)
class ExportContext:
    """What an export records besides the dossier.

    Attributes:
        command: the command line that made the file.
        exported_at: when, timezone-aware.
        version: of this project.
        formula: read from the source and found equal to the loss by numbers; None where there is none.
        no_formula: why there is none.
        curves: the loss and known ones beside it, if the exporter asked for them and candidates can be run here.
        folder: name of the folder beside the file that attachments go to.
        archive: the `--archive` that other commands about the loss need, with a space before it; empty if none.
    """

    command: str
    exported_at: datetime
    version: str
    formula: Formula | None = None
    no_formula: str = "it was not looked for"
    curves: Sequence[Curve] = ()
    folder: str = "export_files"
    archive: str = ""


@dataclass(frozen=True)
class Export:
    """The file's text, and files that belong to it by name; those are written into a folder beside it."""

    text: str
    attachments: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Runnable:
    """A way to call what was exported, so that it can be compared with the archived loss in a confined process.

    Attributes:
        what: for messages.
        source: the exported module, or the part of it that needs nothing but torch.
        adapter: source that defines `exported_call(**inputs)`, with the inputs of the contract, appended to it.
        tolerance: largest relative difference; 0 means equal to the last bit.
    """

    what: str
    source: str
    adapter: str
    tolerance: float = 0.0


class Exporter(Protocol):
    """One output format. Pure: equal arguments give equal bytes. All text of an entry is hostile.

    Inherit from it to get the defaults.

    Attributes:
        suffix: the usual file ending, with its dot.
        takes_failed: whether losses that were refused or failed in training can be written.
        wants_curves: whether `ExportContext.curves` is needed.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    suffix: ClassVar[str]
    takes_failed: ClassVar[bool] = False
    wants_curves: ClassVar[bool] = False

    def export(self, dossier: Dossier, context: ExportContext) -> Export:
        """The file.

        Raises:
            ExportError: the candidate cannot be expressed in this format, or the result did not verify.
        """
        ...

    def runnables(self, export: Export, dossier: Dossier) -> Sequence[Runnable]:
        """What of the file computes the loss; nothing for a format that is only read."""
        return ()
