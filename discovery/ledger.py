"""What a campaign has used of its budgets, and the numbers of its proposals."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from db.messages import Prompt, Reply
from discovery.config import BudgetConfig
from discovery.protocols import Prices

PER_CANDIDATE = 10  # proposals allowed per budgeted candidate where the budget names no number
_CHARS_PER_TOKEN = 4  # for endpoints that do not say what a reply took
_UNITS = {
    "candidates": "losses accepted",
    "proposals": "proposals made",
    "usd": "US dollars",
    "device_hours": "device-hours",
}


@dataclass
class Ledger:
    """Hard budgets: what is in flight counts as if it were accepted and as dear as the dearest so far.

    Every proposal of a campaign has a number: baselines, questions and repairs share one sequence. Questions also count by
    themselves, from 0: that is the index that strategies and proposers see. The number of a question whose reply was lost
    with an earlier run is asked again, so that the campaign ends with as many proposals as if it had never stopped.
    """

    limits: BudgetConfig
    in_flight: int = 0
    accepted: int = 0
    tokens: int = 0
    usd: float = 0.0
    prices: Prices | None = None  # of the proposer's model
    baselines: set[str] = field(default_factory=set)
    imported: set[int] = field(default_factory=set)  # numbers of losses that a person gave
    _next: int = 0
    _lost: list[int] = field(default_factory=list)
    _not_questions: list[int] = field(default_factory=list)  # sorted
    _dearest: int = 0
    _dearest_usd: float = 0.0
    _trial_s: float = 0.0  # that trials held workers, of all attempts that ended
    _attempts: int = 0

    # numbers

    def take_question(self) -> int:
        """The number of a new question."""
        return self._lost.pop(0) if self._lost else self._take()

    def take_other(self) -> int:
        """The number of a baseline or a repair."""
        number = self._take()
        insort(self._not_questions, number)
        return number

    def question_index(self, number: int) -> int:
        """How many questions come before the one of this number."""
        return number - bisect_left(self._not_questions, number)

    @property
    def next_question(self) -> int:
        """How many questions come before the one that is asked next."""
        return self.question_index(self._lost[0] if self._lost else self._next)

    def restore(self, number: int, is_question: bool) -> None:
        """A stored proposal of an earlier run; call in ascending order."""
        self._lost.extend(range(self._next, number))
        self._next = number + 1
        if not is_question:
            insort(self._not_questions, number)

    def _take(self) -> int:
        self._next += 1
        return self._next - 1

    # budgets

    @property
    def proposals(self) -> int:
        """Proposals asked for so far, repairs included."""
        return self._next - len(self._lost) - len(self.baselines) - len(self.imported)

    @property
    def most_proposals(self) -> int | None:
        """Proposals allowed, repairs included; None without a limit."""
        if self.limits.proposals is not None or self.limits.candidates is None:
            return self.limits.proposals
        return PER_CANDIDATE * self.limits.candidates

    def has_room(self, trials: int = 0) -> bool:
        """Whether one more question fits all budgets; `trials` are then still to run, those of its answer among them."""
        return self.full(trials) is None

    def full(self, trials: int = 0) -> str | None:
        """Name of the first budget that one more question does not fit; None if it fits all."""
        full = self.limits.candidates is not None and self.accepted + self.in_flight >= self.limits.candidates
        return "candidates" if full else self._full(self.in_flight + 1, trials)

    def has_room_for_repair(self, trials: int = 0) -> bool:
        """Whether a question in flight may be followed by a repair of its answer."""
        return self._full(max(1, self.in_flight), trials) is None

    def trained(self, seconds: float, attempts: int = 1) -> None:
        """Count attempts at trials that have ended, and the time that they held workers."""
        self._trial_s += seconds
        self._attempts += attempts

    def pay(self, reply: Reply, prompt: Prompt | None = None) -> None:
        """Count a reply's tokens and cost; with its prompt given, tokens that the endpoint did not count are estimated."""
        tokens = sum(_tokens(reply, prompt))
        self.tokens += tokens
        self._dearest = max(self._dearest, tokens)
        self.usd += reply.cost or 0.0
        self._dearest_usd = max(self._dearest_usd, reply.cost or 0.0)

    def cost(self, reply: Reply, prompt: Prompt) -> float | None:
        """US dollars for a reply at today's prices, estimated as its tokens are; None where nobody told them."""
        return None if self.prices is None else self.prices.of(*_tokens(reply, prompt))

    def most(self, prompt: Prompt, reply_tokens: int | None) -> tuple[int, int]:
        """The most tokens that a question and its reply can take; without a bound on replies, what the dearest took."""
        asked = sum(len(p.text) for p in prompt.parts) // _CHARS_PER_TOKEN
        return asked, self._dearest if reply_tokens is None else reply_tokens

    @property
    def spent(self) -> float | None:
        """US dollars so far; None where nobody told prices."""
        return None if self.prices is None else self.usd

    def lose(self, tokens: int, usd: float) -> None:
        """Count questions that were on their way when an earlier run ended: they may have been answered, and paid for."""
        self.tokens += tokens
        self.usd += usd

    def _full(self, replies: int, trials: int) -> str | None:
        """Name of the first budget, that of candidates aside, that so many replies and trials do not fit."""
        limits = self.limits
        fit = {
            "proposals": self.most_proposals is None or self.proposals < self.most_proposals,
            "tokens": _fits(self.tokens, replies, self._dearest, limits.tokens),
            "usd": _fits(self.usd, replies, self._dearest_usd, limits.usd),
            "device_hours": self._has_device_time(trials),
        }
        return next((name for name, fits in fit.items() if not fits), None)

    def used(self, budget: str) -> str:
        """How much of a budget is used, e.g. ``28,100 of 30,000 tokens``."""
        used: dict[str, tuple[float, float | None]] = {
            "candidates": (self.accepted, self.limits.candidates),
            "proposals": (self.proposals, self.most_proposals),
            "tokens": (self.tokens, self.limits.tokens),
            "usd": (round(self.usd, 4), self.limits.usd),
            "device_hours": (round(self._trial_s / 3600, 3), self.limits.device_hours),
        }
        spent, limit = used[budget]
        return f"{spent:,} of {limit:,} {_UNITS.get(budget, budget)}"

    def _has_device_time(self, trials: int) -> bool:
        if self.limits.device_hours is None:
            return True
        mean_s = self._trial_s / self._attempts if self._attempts else 0.0  # the baselines go first, and tell
        return self._trial_s + trials * mean_s <= 3600 * self.limits.device_hours


def _fits(spent: float, replies: int, dearest: float, limit: float | None) -> bool:
    """Before the first reply nobody knows what one takes: then one is asked for, if anything is left."""
    if limit is None:
        return True
    return spent + replies * dearest <= limit if dearest else replies <= 1 and spent < limit


def _tokens(reply: Reply, prompt: Prompt | None) -> tuple[int, int]:
    """Of question and answer, as the endpoint counted them; estimated where it did not, if the prompt is given."""
    asked = sum(len(p.text) for p in prompt.parts) if prompt is not None else 0
    answered = len(reply.text) if prompt is not None else 0
    return (
        asked // _CHARS_PER_TOKEN if reply.prompt_tokens is None else reply.prompt_tokens,
        answered // _CHARS_PER_TOKEN if reply.completion_tokens is None else reply.completion_tokens,
    )
