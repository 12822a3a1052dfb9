"""A loss as a subclass of TRL's `DPOTrainer` that trains with it: one file to import or to run.

TRL's own method does the forward pass and logs its metrics; the loss replaces what it returns. A loss whose examples
influence each other in a batch sees the whole batch of an optimiser step at once, however it is cut into micro-batches.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from discovery.dossier import Dossier
from discovery.exporters.base import CALL, Export, ExportContext, Exporter, ExportError, Runnable
from discovery.exporters.header import WIDTH, docstring, name_of, thought_comment
from discovery.exporters.rendering import BEGIN, END, render_around
from discovery.exporters.sources import (
    parse_accepted,
    require_free,
    split_docstring,
    split_future,
    typed,
)
from evaluators.objectives import known_objectives
from sandbox.contract import TensorInput
from sandbox.elementwise import is_elementwise
from sandbox.syntax import parse
from sandbox.text import one_line

# what the trainer has, by the name of a contract's input
_GIVEN: Mapping[str, str] = {
    "policy_chosen_logps": "chosen",
    "policy_rejected_logps": "rejected",
    "reference_chosen_logps": "ref_chosen",
    "reference_rejected_logps": "ref_rejected",
    "beta": "self.beta",
    "progress": "self._progress()",
    "chosen_length": "chosen_tokens",
    "rejected_length": "rejected_tokens",
}
_SCRIPT_NAMES = ("main", "_refuse", "_require_effect", "_model_settings", "_splits")
_SCRIPT_MODULES = ("dataclasses", "importlib", "os", "sys")
_OURS = frozenset(
    ["Any", "NoReturn", "torch", "trl", "Version", "DPOTrainer", "LossTrainer", "_NOT_HERE", "_NEEDS", "_NO_USE"]
).union(_SCRIPT_MODULES, _SCRIPT_NAMES)
_ADAPTER = """
def {call}(**inputs):
    trainer = LossTrainer.__new__(LossTrainer)
    trainer.average_log_prob = False
    trainer.beta = inputs.get("beta")
    done, last = inputs.get("progress", 0.0).as_integer_ratio()
    trainer.state = _State(done, last + 1)
    names = {names}
    return trainer._losses(*(inputs.get(name, 0) for name in names))
"""
_STUBS = """
class DPOTrainer:
    pass


class _State:
    def __init__(self, global_step, max_steps):
        self.global_step, self.max_steps = global_step, max_steps
"""


class TrlExporter(Exporter):
    """Writes `LossTrainer`; the file is a script too, with TRL's command line options."""

    name: ClassVar[str] = "trl"
    summary: ClassVar[str] = "a subclass of TRL's DPOTrainer that trains with the loss (trl >= 1.15)"
    suffix: ClassVar[str] = ".py"

    def export(self, dossier: Dossier, context: ExportContext) -> Export:
        """The file. Raises ExportError if the trainer lacks an input that the loss reads."""
        candidate, contract = dossier.entry.candidate, dossier.contract
        require_inputs(dossier)
        tree = parse_accepted(candidate.source, candidate.short_id)
        require_free(tree, _OURS, candidate.short_id)
        own_doc, code = split_docstring(candidate.source, tree)
        future, code = split_future(code)
        coupled = batch_coupled(dossier)
        title = f"TRL trainer for the loss {name_of(dossier)}, exported by objective-discovery."
        text = render_around(
            "trl.py.j2",
            typed(code.strip("\n"), contract).strip("\n"),
            candidate.short_id,
            docstring=docstring(title, dossier, context, _use(coupled), own_doc).rstrip("\n"),
            future=future,
            thought=thought_comment(dossier),
            function=contract.function,
            arguments=[(i.name, _value(i)) for i in contract.inputs if i.name in dossier.parameters],
            progress="progress" in dossier.parameters,
            coupled=coupled,
            card_name=literal(card_name(dossier)),
            citation=literal(citation(dossier, context)),
            begin=BEGIN,
            end=END,
        )
        return Export(text)

    def runnables(self, export: Export, dossier: Dossier) -> Sequence[Runnable]:
        """The loss by itself, and the way that the trainer calls it; TRL is replaced by an empty class."""
        tree = parse(export.text)
        kept = [ast.unparse(n) for n in tree.body[1:] if not _needs_trl(n)]
        kept.sort(key=lambda text: not text.startswith("from __future__"))
        futures = [text for text in kept if text.startswith("from __future__")]
        source = "\n".join([*futures, _STUBS, *kept[len(futures) :]])
        order = ["chosen", "rejected", "ref_chosen", "ref_rejected", "chosen_tokens", "rejected_tokens"]
        by_value = {_GIVEN[name]: name for name in dossier.parameters}
        names = [by_value.get(value, "") for value in order]
        function = dossier.contract.function
        return [
            Runnable("the loss in the file", source, f"def {CALL}(**inputs):\n    return {function}(**inputs)\n"),
            Runnable("the trainer's call of the loss", source, _ADAPTER.format(call=CALL, names=names)),
        ]


def require_inputs(dossier: Dossier) -> None:
    """Raises ExportError naming what the loss reads and a DPOTrainer does not have."""
    entry, contract = dossier.entry, dossier.contract
    missing = [n for n in dossier.parameters if n not in _GIVEN]
    if not missing:
        return
    shown = f"{one_line(entry.name, 60) or 'unnamed'} ({entry.candidate.short_id}, {contract.name})"
    paired = {"policy_chosen_logps", "policy_rejected_logps"} <= set(contract.required)
    has = (
        "it trains on pairs and has the log-probs of a chosen and a rejected response, their lengths, beta and progress"
    )
    raise ExportError(
        f"TRL's DPOTrainer has no {', '.join(missing)}, which {shown} reads: {has}"
        + (
            ""
            if paired
            else "; this loss takes single responses, so use --format python or torch in a trainer for them"
        )
    )


def batch_coupled(dossier: Dossier) -> bool:
    """Whether examples of a batch may influence each other; yes where nobody has measured it or proved the contrary."""
    if dossier.probe is not None and dossier.probe.properties is not None:
        return dossier.probe.properties.batch_coupled
    return not is_elementwise(dossier.entry.candidate.source, dossier.contract)


def card_name(dossier: Dossier) -> str:
    """What a model was trained with, as TRL's model card says it. Hostile text breaks out of neither Markdown nor BibTeX."""
    entry, name = dossier.entry, _harmless(name_of(dossier))
    if entry.origin == "known":
        return f"{name}, a published loss in the form that objective-discovery has"
    campaign = f", campaign {_harmless(entry.campaign)}" if entry.campaign else ""
    return f"{name}, a loss from objective-discovery (candidate {entry.candidate.short_id}{campaign})"


def citation(dossier: Dossier, context: ExportContext) -> str:
    """A BibTeX entry for the loss: where it comes from, and the paper of a published one."""
    entry, contract = dossier.entry, dossier.contract
    published = known_objectives(contract.name).get(entry.name) if entry.origin == "known" else None
    made = entry.created_at or context.exported_at
    by = f"published as {_harmless(published.paper, 300)}" if published else f"proposed by {_harmless(entry.proposer)}"
    lines = [
        f"@misc{{objective_discovery_{entry.candidate.short_id},",
        f"    title = {{{{{_harmless(name_of(dossier))}: a training loss}}}},",
        f"    note = {{Candidate {entry.candidate.id},",
        f"        {by},",
        f"        exported by objective-discovery {_harmless(context.version)}}},",
        f"    year = {made.year if published is None else context.exported_at.year}",
        "}",
    ]
    return "\n".join(lines)


def literal(text: str) -> str:
    """Text as a Python literal, one line of it per line of the file."""
    lines = [json.dumps(line) for line in text.splitlines(keepends=True)]
    return lines[0] if len(lines) == 1 else "(\n" + "".join(f"            {line}\n" for line in lines) + "        )"


def _harmless(text: str, limit: int = 80) -> str:
    return re.sub(r"[^A-Za-z0-9 _.,:;+()/-]", "?", one_line(text, limit))


def _value(item: object) -> str:
    assert hasattr(item, "name")
    value = _GIVEN[item.name]
    counts = value.endswith("_tokens") and isinstance(item, TensorInput) and item.dtype == "float32"
    return f"{value}.to(chosen.dtype)" if counts else value


def _needs_trl(node: ast.stmt) -> bool:
    """Our imports of TRL, the version check, and the script at the end."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        text = ast.unparse(node)
        return text.startswith(("import trl", "from trl", "from packaging", *(f"import {n}" for n in _SCRIPT_MODULES)))
    return isinstance(node, ast.If) or (isinstance(node, ast.FunctionDef) and node.name in _SCRIPT_NAMES)


def _use(coupled: bool) -> Iterable[str]:
    yield "Use, with a dataset of prompt, chosen and rejected (plain or conversational):"
    yield ""
    yield "    trainer = LossTrainer(model, args=DPOConfig(beta=0.1), train_dataset=data, processing_class=tokenizer)"
    yield "    trainer.train()"
    yield ""
    for paragraph in (_SCRIPT, _COUPLED if coupled else _SEPARATE, _SUMS):
        yield from textwrap.wrap(paragraph, WIDTH)
        yield ""


_SCRIPT = (
    "Or run this file with TRL's options: --model_name_or_path, --dataset_name, --output_dir, --beta, --use_peft and so on; "
    "one that would have no effect is refused. "
    "Precomputed reference log-probs, PEFT, gradient accumulation and evaluation work as in DPOTrainer."
)
_COUPLED = (
    "Batches. Examples of a batch influence each other in this loss. With gradient accumulation or several processes it is "
    "called once per optimiser step on the whole batch, and each micro-batch is back-propagated with its share, which takes "
    "one more forward pass per micro-batch. So gradient_accumulation_steps=4 with 2 examples each trains as one batch of 8 "
    "does, and a batch of another size is another objective. Evaluation sees one evaluation batch at a time: its loss "
    "compares only between equal batch sizes."
)
_SEPARATE = (
    "Batches. Each example's loss depends on that example alone, so a micro-batch needs to see nothing else. As in "
    "DPOTrainer, each micro-batch of an optimiser step weighs the same: if the last one is smaller, its examples weigh more."
)
_SUMS = (
    "Log-probs are sums over the completion's tokens. LossTrainer(..., average_log_prob=True) divides them by their number "
    "first, as TRL itself does for ipo since 0.29."
)
