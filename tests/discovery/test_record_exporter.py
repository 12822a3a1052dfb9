"""The JSON document: strict, versioned, and with everything in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from db.records import TrialRecord
from discovery.exporters.record import SCHEMA, RecordExporter
from discovery.exporters.testing import CONTEXT, HOSTILE, ExporterConformance, dossier
from discovery.exporting import Typed, make_export
from evaluators.base import Metric
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.failure import Failure, FailureKind
from sandbox.reports import Fingerprint
from sandbox.server import OracleServer
from tests.support.command import discovery
from tests.support.small_archive import CRASHED, OTHER, REFUSED, SOURCE, TASK, WINNER, make_archive


class TestConformance(ExporterConformance):
    def make_exporter(self):
        return RecordExporter()


def refuse(literal: str) -> Any:
    raise AssertionError(f"not strict JSON: {literal}")


def read(text: str) -> dict[str, Any]:
    assert text.isascii()
    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_words():
    probe = replace(
        dossier().probe, facts={"largest": math.inf}, fingerprint=Fingerprint(((math.nan, -math.inf, 1.5),))
    )
    trial = TrialRecord(3, "a", "t", "e", 0, "done", 1, (Metric("kl", math.inf, False, "nats", math.nan),))
    values = read(RecordExporter().export(replace(dossier(), probe=probe, trials=(trial,)), CONTEXT).text)
    assert values["schema"] == SCHEMA
    assert values["probe"]["facts"] == {"largest": "inf"}
    assert values["probe"]["fingerprint"] == [["nan", "-inf", 1.5]]
    assert values["trials"][0]["metrics"][0]["value"] == "inf"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_text(text):
    values = read(RecordExporter().export(dossier(name=text, thought=text), CONTEXT).text)
    assert values["name"] == values["thought"] == text.replace("\ud800", "?")


def test_the_formula_is_in_it_where_there_is_one():
    ipo = dossier(source=known_objectives(PAIRS.name)["ipo"].candidate.source)
    with OracleServer() as server:
        found = make_export(RecordExporter(), ipo, Typed(), server)
    assert r"\frac{1}{2\,\beta}" in read(found.export.text)["formula"]["latex"]
    assert read(RecordExporter().export(dossier(), CONTEXT).text)["formula"]["why_not"] == CONTEXT.no_formula


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("record") / "small.db")


def exported(archive, candidate: str) -> dict[str, Any]:
    ended = discovery("export", candidate, "--format", "json", "--archive", archive)
    assert ended.code == 0, ended.stderr
    return read(ended.stdout)


def test_everything_the_archive_knows_is_in_it(archive):
    values = exported(archive, WINNER.short_id)
    assert values["id"] == WINNER.id
    assert values["source"] == SOURCE
    assert values["campaign"]["name"] == "small"
    assert values["campaign"]["ranking"]["metric"] == "frontier"
    assert values["proposal"]["messages"][0] == {"role": "system", "content": "You invent losses."}
    assert values["proposal"]["reply"]["text"] == "the raw reply"
    assert values["proposal"]["reply"]["prompt_tokens"] == 1000
    assert values["model"] == "a-model"
    assert values["parameters"] == list(PAIRS.required)
    assert values["gate"] == {"accepted": True, "violations": [], "notes": []}
    assert values["probe"]["properties"]["batch_coupled"] is False
    assert len(values["probe"]["fingerprint"]) == 6
    assert [a["name"] for a in values["lineage"]] == ["dpo"]
    assert [(t["seed"], t["status"]) for t in values["trials"]] == [
        (0, "done"),
        (1, "done"),
        (1000, "done"),
        (1000, "done"),
    ]
    assert values["trials"][0]["details"]["versions"] == {"torch": "2.13.0"}
    assert set(values["tasks"]) == {TASK.id, OTHER.id}
    assert values["score"] == {
        "metric": "frontier",
        "higher_is_better": True,
        "by_seed": {"0": 0.875, "1": 0.875},
        "mean": 0.875,
    }
    ranked, fresh, other = values["measurements"]
    assert (ranked["ranks"], fresh["fresh_seeds"], other["evaluator"]) == (True, True, "preference.sentiment")
    assert [v["name"] for v in ranked["versus"]] == ["dpo", "ipo"]
    assert ranked["versus"][0]["difference"]["mean"] == pytest.approx(0.875 - 0.78125)


def test_failures_are_exported_with_their_reasons(archive):
    crashed, refused = exported(archive, CRASHED.short_id), exported(archive, REFUSED.short_id)
    assert (crashed["status"], crashed["failure"]["kind"]) == ("failed", "NON_FINITE")
    assert crashed["trials"][0]["failure"]["message"].startswith("call 7")
    assert refused["status"] == "refused"
    assert "imports os" in refused["gate"]["violations"][-1]["problem"]


def test_failed_is_written_by_the_exporter_itself():
    failed = dossier(failure=Failure(FailureKind.CRASH, "boom"), status="failed")
    assert read(RecordExporter().export(failed, CONTEXT).text)["failure"] == {"kind": "CRASH", "message": "boom"}
