"""`discovery tail`: follow a campaign that runs in another terminal."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from discovery.browse.following import Follower
from discovery.cli.archives import opened
from discovery.cli.border import INTERRUPTED
from discovery.cli.terminal import number
from discovery.contest import PRIVILEGED
from discovery.interrupts import interrupts
from discovery.json_values import plain
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.records import Happening
    from discovery.browse.following import News

_LISTEN_S = 0.1  # between two looks for Ctrl-C


def tail(archive: str | None, campaign: str, last: int, every_s: float, as_json: bool) -> int:
    """Print what is new until the campaign is over or Ctrl-C; returns the exit code. Raises OptionsError, ArchiveError."""
    say = _say_json if as_json else _say
    leaving = False

    def leave() -> None:  # a handler of our own: background jobs of a shell inherit one that ignores Ctrl-C
        nonlocal leaving
        leaving = True

    with opened(archive) as stored, interrupts(leave):
        follower = Follower(stored, campaign, last)
        while not leaving:
            news = follower.look()
            say(news)
            sys.stdout.flush()
            if news.is_over:
                return 0
            until = time.monotonic() + every_s
            while not leaving and (left := until - time.monotonic()) > 0:
                time.sleep(min(left, _LISTEN_S))
    return INTERRUPTED  # how one leaves it: nothing to explain


def _say(news: News) -> None:
    for one in news.happenings:
        print(f"{one.at:%H:%M:%S} {_told(one)}")
    if news.leader is not None and news.leader.score is not None:
        score = news.leader.score
        name = one_line(news.leader.name, 60)
        kind = f", {PRIVILEGED}" if news.leader.privileged else ""
        print(f"leads so far: {name} ({news.leader.candidate.short_id}) {score.metric} {number(score.mean)}{kind}")
    if news.is_over:
        record = news.campaign
        print(f"{one_line(record.name, 60)}: {one_line(record.status, 30)}, {record.trials_done} trials done")
        for line in news.end.lines if news.end is not None else ():
            print(one_line(line, 1000))


def _told(one: Happening) -> str:
    name = one_line(one.name, 60) or "unnamed"
    shown = f"{name} ({one.candidate_id[:10]})" if one.candidate_id else name
    failure = one_line(str(one.failure), 200) if one.failure else ""
    if one.seed is None:
        return f"{'refused ' if failure else 'accepted'} {shown}{': ' if failure else ''}{failure}"
    kind = f", {PRIVILEGED}" if one.privileged else ""
    return f"{'failed  ' if failure else 'trial   '} {shown} seed {one.seed}: {failure or _value(one)}{kind}"


def _value(one: Happening) -> str:
    """The score; with names where it is not what the campaign ranks by."""
    if one.value is None:
        return "done"
    if one.metric is None:
        return number(one.value)
    return f"{one_line(one.metric, 40)} {number(one.value)} on {one_line(one.evaluator or '', 60)}"


def _say_json(news: News) -> None:
    for one in news.happenings:
        _line({"event": "verdict" if one.seed is None else "trial"} | vars(one))
    if news.leader is not None and news.leader.score is not None:
        leader = news.leader
        _line(
            {
                "event": "leader",
                "candidate_id": leader.candidate.id,
                "name": leader.name,
                "score": news.leader.score.mean,
                "privileged": leader.privileged,
            }
        )
    if news.is_over:
        record = news.campaign
        _line({"event": "end", "status": record.status, "trials_done": record.trials_done, "ended": record.ended})


def _line(values: dict[str, Any]) -> None:
    """One JSON object, ASCII only, on a line of its own."""
    print(json.dumps(plain(values), ensure_ascii=True, allow_nan=False))
