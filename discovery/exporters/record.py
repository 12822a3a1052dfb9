"""Everything the archive knows about a loss, as one JSON document for other programs.

Strict JSON: a number that is not finite is the text ``nan``, ``inf`` or ``-inf``, as in the archive, and everything outside
ASCII is escaped. `schema` changes when a field changes its meaning or goes; new fields may appear without that.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar

from discovery.dossier import Dossier
from discovery.exporters.base import Export, ExportContext, Exporter
from discovery.formulas.writer import latex, text
from discovery.json_values import plain

SCHEMA = "objective-discovery.loss/1"


class RecordExporter(Exporter):
    """Writes one object; takes failed losses too, with what they failed of."""

    name: ClassVar[str] = "json"
    summary: ClassVar[str] = "everything the archive knows about it, as strict JSON"
    suffix: ClassVar[str] = ".json"
    takes_failed: ClassVar[bool] = True

    def export(self, dossier: Dossier, context: ExportContext) -> Export:
        return Export(
            json.dumps(
                plain(_values(dossier, context), spell_non_finite=True), indent=2, ensure_ascii=True, allow_nan=False
            )
            + "\n"
        )


def _values(dossier: Dossier, context: ExportContext) -> dict[str, Any]:
    entry, proposal, campaign = dossier.entry, dossier.proposal, dossier.campaign
    return {
        "schema": SCHEMA,
        "exported": {"at": context.exported_at, "by": f"objective-discovery {context.version}", "command": context.command},
        "id": entry.candidate.id,
        "name": entry.name,
        "thought": entry.thought,
        "contract": dossier.contract,
        "parameters": dossier.parameters,
        "privileged": dossier.privileged,
        "source": entry.candidate.source,
        "formula": _formula(context),
        "status": entry.status if entry.campaign else "known",
        "failure": entry.failure,
        "origin": entry.origin,
        "proposer": entry.proposer,
        "campaign_name": entry.campaign or None,
        "model": dossier.model,
        "proposed_at": entry.created_at,
        "parents": entry.parents,
        "lineage": dossier.lineage,
        "gate": {"accepted": dossier.gate.accepted, "violations": dossier.gate.violations, "notes": dossier.gate.notes},
        "probe": _probe(dossier),
        "campaign": None if campaign is None else {
            "name": campaign.name, "status": campaign.status, "evaluator": campaign.evaluator, "ranking": campaign.ranking,
            "created_at": campaign.created_at, "config": campaign.config,
        },
        "proposal": None if proposal is None else {
            "index": proposal.index, "repair_of": proposal.repair_of, "duplicate_of": proposal.duplicate_of,
            "messages": proposal.prompt.messages() if proposal.prompt else None, "reply": proposal.reply,
        },
        "score": None if entry.score is None else {**vars(entry.score), "mean": entry.score.mean},
        "measurements": dossier.measurements,
        "trials": [{**_fields(t), "arrays": dossier.arrays.get(t.id, {})} for t in dossier.trials],
        "tasks": {task: {"task": record.task, "facts": record.facts} for task, record in dossier.tasks.items()},
    }  # fmt: skip


def _formula(context: ExportContext) -> dict[str, Any]:
    if context.formula is None:
        return {"latex": None, "text": None, "why_not": context.no_formula}
    return {"latex": latex(context.formula), "text": text(context.formula), "why_not": None}


def _probe(dossier: Dossier) -> dict[str, Any] | None:
    probe = dossier.probe
    if probe is None:
        return None
    found = probe.fingerprint or dossier.entry.fingerprint
    return {
        "failure": probe.failure,
        "properties": probe.properties,
        "facts": probe.facts,
        "nearest": probe.nearest,
        "fingerprint": found.values if found else None,
    }


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
