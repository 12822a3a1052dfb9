"""A loss as a Python module that needs nothing but torch, with its provenance in the docstring.

The candidate's code is carried over as it is: only its own module docstring moves into ours, because a module has one, and
its function gets type annotations. Nothing is executed here. The result is parsed and compared with the archived source,
statement by statement, before it is returned, so neither a name nor a thought can change what the module does.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import ClassVar

from discovery.dossier import Dossier
from discovery.exporters.base import CALL, Export, ExportContext, Exporter, Runnable
from discovery.exporters.header import WIDTH, arguments, docstring, name_of, thought_comment
from discovery.exporters.sources import parse_accepted, require_same, split_docstring, typed


class PythonExporter(Exporter):
    """Writes `loss(...)` and its helpers; `import` the file and call it."""

    name: ClassVar[str] = "python"
    summary: ClassVar[str] = "a self-contained, typed Python module that needs only torch"
    suffix: ClassVar[str] = ".py"

    def export(self, dossier: Dossier, context: ExportContext) -> Export:
        """The module. Raises ExportError if the source does not parse, imports something else, or fails to verify."""
        candidate, contract = dossier.entry.candidate, dossier.contract
        tree = parse_accepted(candidate.source, candidate.short_id)
        own_doc, code = split_docstring(candidate.source, tree)
        if dossier.gate.accepted:
            code = typed(code, contract)
        title = f"Training objective {name_of(dossier)}, exported by objective-discovery."
        head = docstring(title, dossier, context, _use(dossier), own_doc)
        text = f"{head}\n{thought_comment(dossier)}{code.strip(chr(10))}\n"
        require_same(text, tree, contract, candidate.short_id)
        return Export(text)

    def runnables(self, export: Export, dossier: Dossier) -> Sequence[Runnable]:
        """The whole file."""
        function = dossier.contract.function
        return [Runnable("the module", export.text, f"def {CALL}(**inputs):\n    return {function}(**inputs)\n")]


def _use(dossier: Dossier) -> Iterable[str]:
    function = dossier.contract.function
    yield "Use, with one value per example in every tensor:"
    yield ""
    passed = ", ".join(f"{name}=..." for name in dossier.parameters)
    yield from textwrap.wrap(
        f"{function}({passed}).mean().backward()",
        WIDTH,
        initial_indent="    ",
        subsequent_indent=" " * (5 + len(function)),
    )
    yield ""
    yield from arguments(dossier)
