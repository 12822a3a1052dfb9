import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from db.messages import Prompt, Reply
from discovery.proposers.replay import ReplayProposer, read_recording, recorded_line
from discovery.proposers.testing import ProposerConformance
from discovery.protocols import Plan, ProposerError, ProposerExhausted, Request
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS
from tests.support.chat_server import distinct_loss


def write(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n\n")
    return path


def ask(path: Path, index: int, attempt: int = 0) -> Reply:
    proposer = ReplayProposer({"path": str(path)}, PAIRS, 0)
    return asyncio.run(proposer.propose(Request(Prompt(()), Plan(index, 1), attempt)))


class TestConformance(ProposerConformance):
    @pytest.fixture(autouse=True)
    def _recording(self, tmp_path: Path) -> None:
        self.path = write(tmp_path / "r.jsonl", *({"reply": distinct_loss({}, i)} for i in range(8)))

    def make_proposer(self, seed: int = 0, **options: Any) -> ReplayProposer:
        return ReplayProposer({"path": str(self.path), **options}, PAIRS, seed)


def test_replies_count_up_and_repairs_follow_theirs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.jsonl",
        {"reply": "a"},
        {"reply": "a repaired", "attempt": 1},
        {"reply": "a repaired twice", "attempt": 2},
        {"reply": "b", "model": "m", "prompt_tokens": 3, "completion_tokens": 4, "latency_s": 1.5},
        {"reply": "f", "index": 5},
        {"reply": "g"},
    )
    found = {key: reply.text for key, reply in read_recording(path).items()}
    repaired = {(0, 1): "a repaired", (0, 2): "a repaired twice"}
    assert found == {(0, 0): "a", **repaired, (1, 0): "b", (5, 0): "f", (6, 0): "g"}
    assert ask(path, 0, 2).text == "a repaired twice"
    assert ask(path, 1) == Reply("b", "m", 1.5, 3, 4)


def test_end_of_recording_is_not_a_missing_reply(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"reply": "a"}, {"reply": "c", "index": 2})
    with pytest.raises(ProposerExhausted, match="ends after reply 2"):
        ask(path, 3)
    for index, attempt in ((1, 0), (0, 1)):
        with pytest.raises(ProposerError, match="holds no") as caught:
            ask(path, index, attempt)
        assert not isinstance(caught.value, ProposerExhausted)
        assert not caught.value.fatal


def test_recorded_line_round_trip(tmp_path: Path) -> None:
    reply = Reply("te\nxt \u2028", "m", 0.25, 1, None)
    path = write(tmp_path / "r.jsonl", recorded_line(reply, 0), recorded_line(reply, 0, attempt=1))
    assert read_recording(path) == {(0, 0): reply, (0, 1): reply}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[]", 'line 2: a recorded reply is an object with the key "reply"'),
        ({"model": "m"}, '"reply"'),
        ({"reply": 3}, "'reply' cannot be 3"),
        ({"reply": "a", "tokens": 3}, "unknown key 'tokens'"),
        ({"reply": "a", "index": -1}, "'index' cannot be -1"),
        ({"reply": "a", "index": True}, "'index' cannot be True"),
        ('{"reply": "a", "latency_s": NaN}', "'latency_s' cannot be nan"),
        ({"reply": "a", "index": 0}, "recorded twice"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: Any, says: str) -> None:
    with pytest.raises(OptionsError) as caught:
        read_recording(write(tmp_path / "r.jsonl", {"reply": "first"}, line))
    assert says in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="No such file"):
        read_recording(tmp_path / "absent.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionsError, match="UTF-8"):
        read_recording(tmp_path / "binary")
    with pytest.raises(OptionsError, match="holds no reply"):
        read_recording(write(tmp_path / "empty"))
    with pytest.raises(OptionsError, match="needs the option 'path'"):
        ReplayProposer({}, PAIRS, 0)
