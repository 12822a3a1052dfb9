"""Filling prompt templates. Candidate text enters them as fenced data only."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from db.messages import Prompt, PromptPart, Role
from db.records import Score
from discovery.config_errors import ConfigError
from discovery.contest import PRIVILEGED
from discovery.protocols import Past, Plan
from evaluators.base import MetricSpec
from evaluators.objectives import Objective
from sandbox.allowlist import IMPORTS
from sandbox.candidate import MAX_SOURCE_BYTES, Candidate
from sandbox.contract import Contract
from sandbox.failure import Failure, FailureKind
from sandbox.text import clean_text, one_line

TEMPLATES = Path(__file__).parent / "templates"
KINDS = ("system", "user", "repair")

MAX_REPLY = 6_000  # characters of the model's own reply sent back with a repair: 1,500 tokens at the usual 4 a token
MAX_THOUGHT = 1_200
MAX_LINE = 300

_PART_BREAK = "\x1e"  # clean_text strips it from everything that comes from outside, so text cannot forge a break

# what a template may raise: Jinja2's own errors, and Python's from an expression in it
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True)
class PromptContext:
    """What every prompt of a campaign shares.

    Attributes:
        contract: the candidates' interface; signature, inputs and rules are derived from it.
        metric: the metric that ranks.
        task: one or two sentences on what is trained and measured.
        known: published losses that are named as not new.
        described: names of those that are also described in a line; None: all. There are more known losses than a prompt
            should explain, and most language models know them by name.
        about_privileged: whether losses are looked for that are told more than labels (`discovery.contest`).
    """

    contract: Contract
    metric: MetricSpec
    task: str
    known: Sequence[Objective] = ()
    described: Collection[str] | None = None
    about_privileged: bool = False


def fence(text: str, language: str = "") -> str:
    """Text in a Markdown code fence that is longer than any run of backticks inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def status(score: Score | None, failure: Failure | None, privileged: bool = False) -> str:
    """``score 0.8123 (2 seeds)``, ``failed: KIND: message``, or ``still in training``; one line.

    A score of a loss that is told more than labels says so.
    """
    if failure is not None:
        return one_line(f"failed: {failure}", MAX_LINE)
    if score is None:
        return "still in training"
    seeds = len(score.by_seed)
    return f"score {score.mean:.4f} ({seeds} seed{'s' if seeds > 1 else ''})" + (
        f", {PRIVILEGED}" if privileged else ""
    )


def past_line(past: Past) -> str:
    """A past loss as one line of the brief list."""
    return f"{one_line(past.name, 80) or 'unnamed'}: {status(past.score, past.failure, bool(past.privileged))}"


class PromptBuilder:
    """Builds the prompts of one campaign. Pure: equal plans give equal prompts.

    Args:
        context: what all prompts share.
        overrides: paths of templates in place of the built-in `system`, `user` and `repair`; None values are ignored.

    Raises:
        ConfigError: an override that is missing or unreadable, has a syntax error, or uses a variable that does not exist.
    """

    def __init__(self, context: PromptContext, overrides: Mapping[str, str | None] | None = None) -> None:
        self._context = context
        self._environment = SandboxedEnvironment(
            loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )  # autoescape stays off: this is Markdown for a model, not HTML
        self._environment.filters.update(fence=fence, capital=lambda text: text[:1].upper() + text[1:])
        self._environment.globals["part_break"] = _PART_BREAK
        self._shared = self._variables()
        given = {kind: path for kind, path in (overrides or {}).items() if path is not None}
        self._templates = {kind: self._load(kind, given.get(kind)) for kind in KINDS}
        for kind, path in given.items():
            self._try_out(kind, path)
        self._system = self._render("system", "system", {})

    def build(self, plan: Plan) -> Prompt:
        """The prompt that asks for a new loss: the system parts, one part per loss shown in full, the list, the ask."""
        return Prompt((*self._system, *self._render("user", "user", _of_plan(plan))))

    def repair(self, prompt: Prompt, reply: str, failure: str, checked: Candidate | None = None) -> Prompt:
        """The same question, then the model's reply and the error it led to, both word for word.

        Only the last reply is shown, so a repair is never longer than its question by more than a reply, an error and, where
        the code was mended before it was checked, that code.

        Args:
            prompt: what was asked; itself a repair prompt from the second repair on.
            reply: the raw reply, cut at `MAX_REPLY` characters and freed of control characters.
            failure: the error text, e.g. `str(Failure)` or the gate's violations, one a line.
            checked: the candidate that the reply was read as; if it was mended, the error counts lines in it.
        """
        answer = PromptPart("assistant", clean_text(reply, MAX_REPLY).strip() or "(empty reply)")
        asked = self._render("repair", "user", {"failure": clean_text(failure, 4000), **_mended(checked)})
        question = takewhile(lambda part: part.role != "assistant", prompt.parts)
        return Prompt((*question, answer, *asked))

    def _variables(self) -> dict[str, Any]:
        contract = self._context.contract
        return {
            "function": contract.function,
            "signature": contract.signature(),
            "description": contract.description,
            "tensors": contract.tensors,
            "scalars": contract.scalars,
            "optional": contract.optional,
            "privileged": [t.name for t in contract.tensors if t.privileged],
            "about_privileged": self._context.about_privileged,
            "scale_scalar": contract.scale_scalar,
            "smallest_batch": contract.smallest_batch,
            "modules": [f"`{m}`" for m in IMPORTS],
            "known": [{"name": o.name, "summary": self._summary(o)} for o in self._context.known],
            "task": self._context.task,
            "metric": self._context.metric,
        }

    def _summary(self, objective: Objective) -> str:
        described = self._context.described
        return objective.summary.rstrip(".") if described is None or objective.name in described else ""

    def _load(self, kind: str, path: str | None) -> Template:
        if path is None:
            return self._environment.get_template(f"{kind}.j2")
        try:
            return self._environment.from_string(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"prompts.{kind}: no template file {path!r}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"prompts.{kind}: {path!r} is not a UTF-8 text file") from None
        except OSError as error:
            raise ConfigError(f"prompts.{kind}: cannot read {path!r}: {error.strerror}") from None
        except _TEMPLATE_ERRORS as error:
            line = getattr(error, "lineno", None)
            raise ConfigError(f"prompts.{kind}: {path}{f', line {line}' if line else ''}: {_said(error)}") from None

    def _try_out(self, kind: str, path: str) -> None:
        """Render an override once with and once without past losses, so that it cannot fail hours into a campaign."""
        if kind not in KINDS:
            raise ConfigError(f"prompts has no template {kind!r}; there are {', '.join(KINDS)}")
        scored = Past("0" * 64, "a", "b", "c", "known", score=Score("m", True, {0: 1.0}))
        failed = Past("1" * 64, "a", "b", "c", "proposed", failure=Failure(FailureKind.CRASH, "d"))
        trials: Mapping[str, Callable[[], Prompt]] = {
            "system": lambda: Prompt(self._render("system", "system", {})),
            "user": lambda: Prompt(self._render("user", "user", _of_plan(Plan(0, 0)))),
            "repair": lambda: Prompt(self._render("repair", "user", {"failure": "d", "notes": ["e"], "source": "f"})),
        }
        try:
            prompt = trials[kind]()
            if kind == "user":
                self._render("user", "user", _of_plan(Plan(1, 0, (scored,), (failed,))))
        except _TEMPLATE_ERRORS as error:
            raise ConfigError(f"prompts.{kind}: {path}: {_said(error)}") from None
        if not prompt.parts:
            raise ConfigError(f"prompts.{kind}: {path} gives an empty prompt")

    def _render(self, kind: str, role: Role, values: Mapping[str, Any]) -> tuple[PromptPart, ...]:
        text = self._templates[kind].render({**self._shared, **values})
        texts = (piece.strip("\n") for piece in text.split(_PART_BREAK))
        return tuple(PromptPart(role, piece) for piece in texts if piece.strip())


def _mended(checked: Candidate | None) -> dict[str, Any]:
    """What a repair says about code that was not checked as it came."""
    notes = [one_line(note, MAX_LINE) for note in checked.notes] if checked is not None else []
    source = clean_text(checked.source, MAX_REPLY) if checked is not None and notes else ""
    return {"notes": notes, "source": source}


def _of_plan(plan: Plan) -> dict[str, Any]:
    """The variables of the `user` template."""
    best = _best((*plan.in_full, *plan.in_brief))
    return {
        "index": plan.index,
        "in_full": [_view(p) for p in plan.in_full],
        "in_brief": [_view(p) for p in plan.in_brief],
        "best": _view(best) if best else None,
    }


def _best(shown: Iterable[Past]) -> Past | None:
    """The best scored one of those that compete; the first of equals.

    Plans that explore do not show it first, and sometimes only in brief.
    """
    scored = [
        (p.score.mean if p.score.higher_is_better else -p.score.mean, p) for p in shown if p.score and not p.apart
    ]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _view(past: Past) -> dict[str, str]:
    """A past loss as templates see it; control characters are gone from every value."""
    return {
        "name": one_line(past.name, 80) or "unnamed",
        "thought": one_line(past.thought, MAX_THOUGHT),
        "code": clean_text(past.source, MAX_SOURCE_BYTES),
        "origin": past.origin,
        "status": status(past.score, past.failure, bool(past.privileged)),
        "line": past_line(past),
    }


def _said(error: Exception) -> str:
    return one_line(getattr(error, "message", None) or str(error) or type(error).__name__, 160)
