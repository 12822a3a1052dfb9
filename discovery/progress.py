"""What a campaign is doing right now, for whoever watches it: a live view, a log, a notebook."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from db.records import Score
from discovery.copies import Copies

_RATE_WINDOW = 30  # finished trials that the rate is taken over


@dataclass(frozen=True)
class Running:
    """One trial in progress."""

    name: str
    stage: str
    seed: int
    since: float  # time.monotonic()


@dataclass(frozen=True)
class Event:
    """One line of news. `kind` is a short word to filter or colour by; `text` may quote candidates and is hostile."""

    kind: str  # stage, prepare, accepted, refused, trial, scored, failed, note
    text: str


@dataclass
class Progress:
    """Live counters; the campaign writes, watchers on the same thread read."""

    stage: str = "starting"
    metric: str = ""
    higher_is_better: bool = True
    started: float = field(default_factory=time.monotonic)
    trials_done: int = 0
    trials_waiting: int = 0
    trials_expected: int = 0  # of this stage, as far as the budget says
    trials_finished_in_stage: int = 0
    running: dict[int, Running] = field(default_factory=dict)
    proposals: int = 0
    proposals_in_flight: int = 0
    accepted: int = 0
    candidates_budget: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None  # spent so far, where prices are known
    failures: Counter[str] = field(default_factory=Counter)
    copies: Copies = field(default_factory=Copies)  # of the failures by the kind DUPLICATE
    baselines: dict[str, Score] = field(default_factory=dict)
    leader: tuple[str, Score] | None = None
    listener: Callable[[Event], None] = lambda event: None
    _finish_times: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self.started

    def say(self, kind: str, text: str) -> None:
        """Tell whoever listens."""
        self.listener(Event(kind, text))

    def trial_finished(self) -> None:
        self.trials_done += 1
        self.trials_finished_in_stage += 1
        self._finish_times.append(time.monotonic())

    @property
    def trials_per_s(self) -> float | None:
        """Over the last finished trials; None before there are two."""
        times = self._finish_times
        if len(times) < 2 or times[-1] == times[0]:
            return None
        return (len(times) - 1) / (times[-1] - times[0])

    @property
    def seconds_left(self) -> float | None:
        """Estimate for the present stage; None while it cannot be known."""
        rate = self.trials_per_s
        if rate is None:
            return None
        return max(0, self.trials_expected - self.trials_finished_in_stage) / rate

    def offer_leader(self, name: str, score: Score) -> bool:
        """Remember the score if it leads those so far; whether it does."""
        if self.leader is not None and (score.mean - self.leader[1].mean) * (1 if score.higher_is_better else -1) <= 0:
            return False
        self.leader = (name, score)
        return True
