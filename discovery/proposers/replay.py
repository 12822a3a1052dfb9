"""Recorded replies, for exact reproduction: no language model is asked.

A recording is JSON Lines, one reply each: {"reply": "...", "index": 0, "attempt": 0, "model": "...", "prompt_tokens": 1,
"completion_tokens": 1, "latency_s": 0.5}; only "reply" is required. Without "index" replies count up from 0; a reply
with "attempt" n > 0 and no index is the n-th repair of the reply before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from db.messages import Reply
from discovery.protocols import ProposerError, ProposerExhausted, Request
from evaluators.options import OptionsError, nearest, option, parse_options
from sandbox.contract import Contract

_FIELDS: dict[str, tuple[type, ...]] = {
    "reply": (str,),
    "index": (int,),
    "attempt": (int,),
    "model": (str,),
    "prompt_tokens": (int, type(None)),
    "completion_tokens": (int, type(None)),
    "latency_s": (int, float),
}


@dataclass(frozen=True)
class ReplayOptions:
    """Options of the `replay` proposer."""

    path: str = option("", "recording to play: JSON Lines, one reply each (required)")

    def __post_init__(self) -> None:
        if not self.path:
            raise OptionsError("proposer replay needs the option 'path': a JSON Lines file of recorded replies")


class ReplayProposer:
    """Gives reply number `plan.index` of a recording, and the recorded repairs of it.

    Raises:
        OptionsError: no such file, or a line that is not a recorded reply (named by number).
    """

    name: ClassVar[str] = "replay"
    summary: ClassVar[str] = "recorded replies from a file; no language model is asked"
    uses_llm: ClassVar[bool] = False
    repairs: ClassVar[bool] = True
    Options = ReplayOptions

    def __init__(self, options: Mapping[str, Any], contract: Contract, seed: int) -> None:
        self.options = parse_options(ReplayOptions, options, "proposer replay")
        self._replies = read_recording(Path(self.options.path).expanduser())
        self._last = max(index for index, _ in self._replies)

    def has_ended(self, index: int) -> ProposerExhausted | None:
        """Where the recording ends before this index."""
        return ProposerExhausted(f"{self.options.path} ends after reply {self._last}") if index > self._last else None

    async def propose(self, request: Request) -> Reply:
        """The recorded reply.

        Raises:
            ProposerExhausted: the recording ends before this index.
            ProposerError: not fatal; this index or this repair of it was not recorded.
        """
        index = request.plan.index
        if (ended := self.has_ended(index)) is not None:
            raise ended
        reply = self._replies.get((index, request.attempt))
        if reply is None:
            what = f"repair {request.attempt} of reply {index}" if request.attempt else f"reply {index}"
            raise ProposerError(f"{self.options.path} holds no {what}", fatal=False)
        return reply

    async def aclose(self) -> None:
        """Nothing to close."""


def read_recording(path: Path) -> dict[tuple[int, int], Reply]:
    """Recorded replies by (index, attempt). Raises OptionsError: missing, not readable, empty, or a bad line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise OptionsError(f"cannot read the recording {path}: {reason}; proposer replay takes JSON Lines") from error
    replies: dict[tuple[int, int], Reply] = {}
    index = -1
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _record(line, f"{path}, line {number}")
        attempt = record.get("attempt", 0)
        index = record.get("index", max(index, 0) if attempt else index + 1)
        if (index, attempt) in replies:
            raise OptionsError(f"{path}, line {number}: reply {index}, attempt {attempt} is recorded twice")
        replies[index, attempt] = Reply(
            text=record["reply"],
            model=record.get("model", "replay"),
            latency_s=float(record.get("latency_s", 0.0)),
            prompt_tokens=record.get("prompt_tokens"),
            completion_tokens=record.get("completion_tokens"),
        )
    if not replies:
        raise OptionsError(f"the recording {path} holds no reply")
    return replies


def recorded_line(reply: Reply, index: int, attempt: int = 0) -> str:
    """One line of a recording, without its newline."""
    record = {
        "index": index,
        "attempt": attempt,
        "reply": reply.text,
        "model": reply.model,
        "latency_s": reply.latency_s,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    return json.dumps(record)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"{where}: not JSON; each line is one recorded reply") from error
    if not isinstance(record, dict) or "reply" not in record:
        raise OptionsError(f'{where}: a recorded reply is an object with the key "reply"')
    for key, value in record.items():
        if key not in _FIELDS:
            raise OptionsError(f"{where}: unknown key {key!r}; {nearest(key, list(_FIELDS))}")
        negative = isinstance(value, (int, float)) and not value >= 0
        if not isinstance(value, _FIELDS[key]) or isinstance(value, bool) or negative:
            raise OptionsError(f"{where}: {key!r} cannot be {value!r:.60}")
    return record
