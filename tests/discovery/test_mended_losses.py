"""What is mended is mended on every path alike, and said wherever the loss is shown."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from db.convert import gate_json, gate_of
from db.messages import Idea
from db.records import Proposal
from discovery.imports import read_losses
from discovery.prompts.builder import MAX_REPLY
from discovery.search import Search
from discovery.workers import Check
from evaluators.cli import _objective
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.failure import Failure, FailureKind
from sandbox.gate import check_source
from sandbox.mend import read_candidate
from sandbox.reports import GateReport
from tests.discovery.test_loss_files import DISCOPOP, METHOD
from tests.discovery.test_prompts import builder, conversation, shown
from tests.support.command import discovery

SIMPO = """import numpy as np
import torch
import torch.nn.functional as F


def simpo(policy_chosen_logps, policy_rejected_logps, beta, gamma=0.7):
    print("here")
    return -F.logsigmoid(3.0 * beta * (policy_chosen_logps - policy_rejected_logps) - gamma)


if __name__ == "__main__":
    print(simpo(torch.zeros(2), torch.zeros(2), 0.1))
"""
WAYS = {"as it is": SIMPO, "with a mark and CRLF": "\ufeff" + SIMPO.replace("\n", "\r\n")}
CANDIDATE = read_candidate(SIMPO, PAIRS)


@pytest.mark.parametrize("way", WAYS)
def test_one_text_is_one_candidate_on_every_path(way, tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(WAYS[way].encode())
    listed = tmp_path / "mine.json"
    listed.write_bytes(("\ufeff" + json.dumps([{"name": "simpo", "code": WAYS[way]}])).encode())
    seen = []

    async def check(candidate, against_known=True):
        seen.append(candidate)
        return Check(check_source(candidate, PAIRS), None, Failure(FailureKind.CRASH, "enough"))

    search = SimpleNamespace(parts=SimpleNamespace(contract=PAIRS), names={}, check=check)
    proposal = Proposal(index=0, origin="proposed", proposer="p", name="", thought="")
    judged = asyncio.run(Search._check(search, proposal, Idea("simpo", "", WAYS[way])))  # type: ignore[arg-type]
    read = [
        judged.candidate, _objective(PAIRS, str(path)), read_losses(path, PAIRS)[0].candidate,
        read_losses(listed, PAIRS)[0].candidate, read_candidate(WAYS[way], PAIRS),
    ]  # fmt: skip
    assert {c.id for c in read if c} == {CANDIDATE.id}
    assert {c.notes for c in read if c} == {CANDIDATE.notes}
    assert seen == [judged.candidate]
    assert judged.gate is not None
    assert judged.gate.notes == CANDIDATE.notes


def test_check_says_what_was_mended(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(WAYS["with a mark and CRLF"].encode())
    ended = discovery("check", path)
    assert ended.code == 0, ended.stdout
    for note in CANDIDATE.notes:
        assert f"mended: {note}" in " ".join(ended.stdout.split())
    values = json.loads(discovery("check", path, "--json").stdout)
    assert values["candidate"] == CANDIDATE.id
    assert values["notes"] == list(CANDIDATE.notes)
    nearest = json.loads(discovery("nearest", path, "--json").stdout)  # notes go elsewhere than the values
    assert nearest["candidate"] == CANDIDATE.id


def test_an_imported_loss_keeps_its_notes_and_is_exported_in_every_form(tmp_path):
    path, archive = tmp_path / "mine.py", tmp_path / "a.db"
    path.write_text(SIMPO)
    imported = discovery("import", path, "--archive", archive)
    assert imported.code == 0, imported.stdout
    assert "mended: left out the import of numpy" in " ".join(imported.stdout.split())
    shown_there = discovery("show", CANDIDATE.short_id, "--archive", archive).stdout
    assert "left out the import of numpy" in " ".join(shown_there.split())
    values = json.loads(discovery("show", CANDIDATE.short_id, "--archive", archive, "--json").stdout)
    assert values["gate"]["notes"] == list(CANDIDATE.notes)
    for kind in ("python", "torch", "trl"):
        ended = discovery(
            "export", CANDIDATE.short_id, "--format", kind, "-o", tmp_path / f"{kind}.py", "--archive", archive
        )
        assert ended.code == 0, ended.error
    again = read_losses(tmp_path / "python.py", PAIRS)[0].candidate
    assert again is not None
    assert again.notes == ()
    assert check_source(again, PAIRS).accepted


def test_line_ends_within_json_are_no_difference(tmp_path):
    made = {}
    for end in ("\n", "\r\n"):
        path = tmp_path / "tests.json"
        code = METHOD.format(name="dpo", body=DISCOPOP["dpo"]).replace("\n", end)
        path.write_text(json.dumps([{"name": "dpo", "code": code}]))
        made[end] = read_losses(path, PAIRS)[0]
    assert made["\n"] == made["\r\n"]
    assert made["\n"].candidate is not None
    assert check_source(made["\n"].candidate, PAIRS).accepted


def test_a_repair_shows_the_code_whose_lines_the_error_counts():
    plain = builder().repair(conversation(), "reply", "CRASH: line 5: a")
    unchanged = known_objectives(PAIRS.name)["dpo"].candidate
    assert shown(builder().repair(conversation(), "reply", "CRASH: line 5: a", unchanged)) == shown(plain)
    text = shown(builder().repair(conversation(), "reply", "CRASH: line 5: a", CANDIDATE))
    for note in CANDIDATE.notes:
        assert note in text
    assert CANDIDATE.source.rstrip() in text
    assert "import numpy as np" not in text
    long = read_candidate(SIMPO + "# " + "`" * 18_000, PAIRS)
    assert len(shown(builder().repair(conversation(), "r", "e", long))) < len(shown(plain)) + 4 * MAX_REPLY


def test_notes_are_stored_with_the_verdict():
    report = check_source(CANDIDATE, PAIRS)
    assert gate_of(json.loads(json.dumps(gate_json(report))), "x") == report
    assert gate_of({"violations": [], "parameters": ["a"]}, "x") == GateReport(
        (), ("a",)
    )  # from before there were notes
