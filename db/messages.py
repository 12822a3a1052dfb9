"""What is asked of a proposer and what it answers. Frozen; importable without SQLAlchemy."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.text import one_line

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class PromptPart:
    """One message, or a piece of one. Parts repeat between prompts and are stored once by `sha256`."""

    role: Role
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.role}\n{self.text}".encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Prompt:
    """What is sent to a proposer. Consecutive parts of one role make one message, joined by a blank line."""

    parts: tuple[PromptPart, ...]

    def messages(self) -> list[dict[str, str]]:
        """The chat messages, as the OpenAI protocol spells them."""
        merged: list[dict[str, str]] = []
        for part in self.parts:
            if merged and merged[-1]["role"] == part.role:
                merged[-1]["content"] += "\n\n" + part.text
            else:
                merged.append({"role": part.role, "content": part.text})
        return merged

    @property
    def sha256(self) -> str:
        return hashlib.sha256("".join(p.sha256 for p in self.parts).encode()).hexdigest()


MAX_REPLY_TEXT = 300_000  # characters of a reply that are kept; the parser refuses less
MAX_TOKENS = 10_000_000  # of one request; a larger count is a mistake, and would use up any budget
_MAX_ATTEMPTS = 10**6


def token_count(value: Any) -> int | None:
    """A count of tokens, whoever says so; None for what is none (a truth value, a text, NaN, below 0 or absurdly large)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value) if value == int(value) else None


@dataclass(frozen=True)
class Reply:
    """What a proposer answered, raw, in limits that any database holds. All texts are hostile.

    Attributes:
        prompt_tokens, completion_tokens: None where the endpoint does not say. Of all requests that it took.
        attempts: requests it took, retries included.
        cost: US dollars; None where nobody knows the price.
        problem: one line that says why there is no answer in it (refused, all tokens spent on reasoning); None if there is.
    """

    text: str
    model: str
    latency_s: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    attempts: int = 1
    cost: float | None = None
    problem: str | None = None

    def __post_init__(self) -> None:
        fit = {
            "text": self.text[:MAX_REPLY_TEXT],
            "model": self.model[:200],
            "latency_s": self.latency_s if math.isfinite(self.latency_s) else 0.0,
            "prompt_tokens": token_count(self.prompt_tokens),
            "completion_tokens": token_count(self.completion_tokens),
            "attempts": min(max(self.attempts, 1), _MAX_ATTEMPTS),
            "problem": None if self.problem is None else one_line(self.problem, 400),
        }
        for name, value in fit.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Idea:
    """A parsed reply: what the model wants to try. All three are hostile text."""

    name: str
    thought: str
    code: str
