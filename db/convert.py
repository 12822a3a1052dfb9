"""Frozen values to table columns and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy.engine import RowMapping

from db.arrays import pack_fingerprint, unpack_fingerprint
from db.messages import Reply
from db.records import Proposal
from db.types import is_storable, plain
from evaluators.base import LARGEST, Metric, TrialReport
from evaluators.objectives import privileged_inputs
from sandbox.candidate import Candidate
from sandbox.contract import Conditions
from sandbox.failure import Failure, FailureKind
from sandbox.reports import Fingerprint, GateReport, Match, Nearest, ProbeReport, Properties, Violation

T = TypeVar("T", bound=Sized)
Columns = dict[str, Any]
_MOST = 1_000  # entries of a list in a report; probes store 41 points of a curve, gates 12 violations
_LARGEST_BATCH = 100_000  # of a fingerprint's conditions


def failure_columns(failure: Failure | None) -> Columns:
    if failure is None:
        return {"failure_kind": None, "failure_message": None}
    return {"failure_kind": str(failure.kind), "failure_message": failure.message}


def failure_of(row: RowMapping) -> Failure | None:
    """The failure in the columns `failure_kind` and `failure_message`."""
    return Failure(FailureKind(row["failure_kind"]), row["failure_message"]) if row["failure_kind"] else None


def candidate_columns(candidate: Candidate) -> Columns:
    exact = None if is_storable(candidate.source) else candidate.source.encode("utf-8", "surrogatepass")
    return {"id": candidate.id, "contract": candidate.contract, "source": candidate.source, "source_bytes": exact}


def candidate_of(row: RowMapping) -> Candidate:
    exact = row["source_bytes"]
    return Candidate(row["contract"], row["source"] if exact is None else exact.decode("utf-8", "surrogatepass"))


def gate_json(gate: GateReport) -> Columns:
    return {
        "parameters": list(gate.parameters),
        "violations": [{"line": v.line, "problem": v.problem, "instead": v.instead} for v in gate.violations],
        **({"notes": list(gate.notes)} if gate.notes else {}),
        "privileged": list(gate.privileged),
    }


def gate_of(value: Mapping[str, Any] | None, contract: str) -> GateReport | None:
    """Reports from before privileged inputs were told apart are of one of our own contracts, which knows its inputs."""
    if value is None:
        return None
    violations = tuple(
        Violation(_whole(v["line"]), *_texts((v["problem"], v["instead"]))) for v in _few(value["violations"])
    )
    parameters = _texts(value["parameters"])
    privileged = _texts(value["privileged"]) if "privileged" in value else privileged_inputs(contract, parameters)
    return GateReport(violations, parameters, _texts(value.get("notes", ())), privileged)


def privileged_of(text: str) -> tuple[str, ...]:
    """Names out of a column of `standings`."""
    return tuple(text.split())


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise ValueError("a report with something else where texts belong")
    return tuple(_few(values))


def _few(values: T) -> T:
    if len(values) > _MOST:
        raise ValueError(f"a report with {len(values):,} entries in one place")
    return values


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a report with something else where a whole number belongs")
    return value


def probe_json(probe: ProbeReport) -> Columns:
    """Everything but the fingerprint's values, which have their own column."""
    failure, properties, found = probe.failure, probe.properties, probe.fingerprint
    conditions = found.conditions if found is not None else None
    return {
        "failure": None if failure is None else {"kind": str(failure.kind), "message": failure.message},
        "properties": None if properties is None else dict(vars(properties)),
        "facts": dict(probe.facts),
        "curve": list(probe.curve),
        "conditions": None if conditions is None else dict(vars(conditions)),
        "single": found is not None and found.single,
        "nearest": None
        if probe.nearest is None
        else {k: [dict(vars(m)) for m in v] for k, v in vars(probe.nearest).items()},
    }


def probe_of(value: Mapping[str, Any] | None, fingerprint: Fingerprint | None) -> ProbeReport | None:
    if value is None:
        return None
    failure, properties = value["failure"], value["properties"]
    if properties is not None:
        properties = _properties_of(properties)
    return ProbeReport(
        failure=None if failure is None else Failure(FailureKind(failure["kind"]), *_texts((failure["message"],))),
        properties=properties,
        fingerprint=_taken(fingerprint, value.get("conditions"), value.get("single", False)),
        facts={name: float(v) for name, v in _few(value["facts"]).items()},  # float reads "nan" and "inf" too
        curve=_curve_of(value.get("curve", ())),
        nearest=_nearest_of(value.get("nearest")),
    )


def _properties_of(value: Mapping[str, Any]) -> Properties:
    inputs = _texts(value["inputs_with_gradient"])
    for name, found in value.items():
        text = name.startswith("limit_at")
        if name != "inputs_with_gradient" and not isinstance(found, (str if text else bool, type(None))):
            raise ValueError(f"a report with something else where {name} belongs")
    return Properties(**{**value, "inputs_with_gradient": inputs})


def _curve_of(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(v) for v in _few(values))


def _taken(found: Fingerprint | None, conditions: Mapping[str, Any] | None, single: bool) -> Fingerprint | None:
    """A fingerprint with what is stored beside it."""
    if found is None or conditions is None:
        return found
    scales, batch = tuple(float(s) for s in _few(conditions["scales"])), _whole(conditions["batch"])
    if batch > _LARGEST_BATCH:  # a probe would draw that many
        raise ValueError(f"a fingerprint of {batch:,} examples")
    return replace(found, conditions=Conditions(_whole(conditions["seed"]), batch, scales), single=bool(single))


def _nearest_of(value: Mapping[str, Any] | None) -> Nearest | None:
    if value is None:
        return None
    return Nearest(**{k: tuple(_match_of(m) for m in _few(v)) for k, v in value.items()})


def _match_of(value: Mapping[str, Any]) -> Match:
    name, factor = _texts((value["name"], value.get("factor", "")))
    return Match(name, float(value["scale"]), float(value["distance"]), factor)


def report_columns(gate: GateReport | None, probe: ProbeReport | None) -> Columns:
    """Candidate columns that the checks fill; only those that there is something for."""
    columns: Columns = {}
    if gate is not None:
        columns |= {"gate": gate_json(gate), "parameters": list(gate.parameters)}
    if probe is not None:
        columns["probe"] = probe_json(probe)
        if probe.fingerprint is not None:
            columns["fingerprint"] = pack_fingerprint(probe.fingerprint)
            columns["fingerprint_rows"] = len(probe.fingerprint.values)
    return columns


def fingerprint_of(row: RowMapping) -> Fingerprint | None:
    data = row["fingerprint"]
    return None if data is None else unpack_fingerprint(data, row["fingerprint_rows"])


def search_text(name: str, thought: str, source: str) -> str:
    """What a text search looks through; a search folds what it looks for in the same way."""
    return "\n".join((name, thought, source)).casefold()


def proposal_columns(proposal: Proposal) -> Columns:
    """What a proposal row says besides its prompt, candidate and state."""
    columns: Columns = {
        "number": proposal.index,
        "origin": proposal.origin,
        "proposer": proposal.proposer,
        "name": proposal.name,
        "thought": proposal.thought,
        "repair_of": proposal.repair_of,
    }
    reply = proposal.reply
    if reply is not None:
        columns |= {
            "reply_text": reply.text,
            "reply_model": reply.model,
            "reply_latency_s": reply.latency_s,
            "reply_attempts": reply.attempts,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "reply_cost": reply.cost,
            "reply_problem": reply.problem,
        }
    return columns


def reply_of(row: RowMapping) -> Reply | None:
    if row["reply_text"] is None:
        return None
    return Reply(
        text=row["reply_text"],
        model=row["reply_model"],
        latency_s=row["reply_latency_s"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        attempts=row["reply_attempts"],
        cost=row["reply_cost"],
        problem=row["reply_problem"],
    )


@lru_cache(maxsize=1024)
def _word(text: str) -> str:
    """A text that comes again and again, made storable."""
    return str(plain(text))


def metric_columns(trial_id: int, position: int, metric: Metric) -> Columns:
    """Plain values, texts made storable: they go to the database driver as they are."""
    stderr = metric.stderr
    return {
        "trial_id": trial_id,
        "name": _word(metric.name),
        "position": position,
        "value": float(metric.value),
        "higher_is_better": metric.higher_is_better,
        "unit": _word(metric.unit),
        "stderr": float(stderr) if stderr is not None and abs(stderr) <= LARGEST else None,
    }


def trial_details(report: TrialReport) -> Columns:
    """How a trial was measured; `docs/archive.md` documents the keys."""
    return {
        "timings": dict(vars(report.timings)),
        "device": report.device,
        "threads": report.threads,
        "versions": dict(report.versions),
        "peak_memory_mb": report.peak_memory_mb,
        "oracle_calls": report.oracle_calls,
        "setup": dict(report.setup),
        "sandbox": report.sandbox,
    }
