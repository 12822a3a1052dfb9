"""Any OpenAI-compatible endpoint: OpenAI itself, vLLM, Ollama, llama.cpp's server and the like.

Protocol: https://platform.openai.com/docs/api-reference/chat. The official client is imported at the first request.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import os
import random
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from db.messages import Prompt, Reply
from discovery.answers import Answer, read_answer
from discovery.connection import make_client, proxy_variable
from discovery.endpoint import Fault, Secret, UnfitAnswerError, Usage, Wire, fault_of, public_url, valid_url
from discovery.protocols import Prices, ProposerError, Request
from evaluators.options import OptionsError, option, parse_options
from sandbox.contract import Contract

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "no-key"  # the client insists on some key; servers without keys ignore it
LONGEST_WAIT_S = 120.0  # a server that asks for more patience is reported, not obeyed
PREFLIGHT_S = 10.0

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,47}\Z")
_JSON_MODES = ("auto", "on", "off")
_NO_JSON_MODE = re.compile(r"response.?format|json.?(?:mode|object|schema)|grammar", re.IGNORECASE)
_NO_SYSTEM_ROLE = re.compile(
    r"system.{0,40}(?:role|message|prompt|instruction)|roles?\b.{0,60}\bsystem|roles? must alternate|developer instruction",
    re.IGNORECASE,
)
_REFUSALS = (0, 401, 402, 403, 404, 429)  # not 400: the test request itself may not suit a server


@dataclass(frozen=True)
class OpenAIOptions:
    """Options of the `openai` proposer. null leaves a setting to the server."""

    model: str = option("", "model name as the endpoint knows it (required)")
    base_url: str | None = option(None, f"endpoint, usually ending in /v1; null means {OPENAI_URL}")
    api_key_env: str | None = option(
        "OPENAI_API_KEY", "NAME of the environment variable with the key; null or empty for a server without keys"
    )
    temperature: float | None = option(None, "sampling temperature; reasoning models accept only their default")
    top_p: float | None = option(None, "nucleus sampling mass")
    max_tokens: int | None = option(4096, "most tokens a reply, reasoning included; none leaves it to the server")
    reasoning_effort: str | None = option(
        None, "for reasoning models: none, minimal, low, medium or high; null leaves it to the model", words=("none",)
    )
    json_mode: str = option(
        "auto", "ask the server for JSON: on, off, or auto (on until the server refuses it)", words=_JSON_MODES
    )
    send_seed: bool = option(False, "send each proposal's seed, so that servers that honour it repeat themselves")
    timeout_s: float = option(180.0, "longest a request may take from start to end")
    max_retries: int = option(5, "further requests after a 429, a 5xx, a time-out or a lost connection")
    backoff_s: float = option(1.0, "wait before the first retry; doubles each time, with jitter")
    usd_per_million_prompt_tokens: float | None = option(
        None, "what the model costs, in US dollars; null: unknown, and budget.usd cannot be kept"
    )
    usd_per_million_completion_tokens: float | None = option(None, "the same for replies, reasoning included")
    extra_body: dict | None = option(  # type: ignore[type-arg]  # noqa: RUF009
        None, "more fields for the request body, sent as they are"
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise OptionsError("proposer openai needs the option 'model': the name the endpoint knows, e.g. gpt-5-mini")
        if self.json_mode not in _JSON_MODES:
            raise OptionsError(f"proposer openai: json_mode takes {', '.join(_JSON_MODES)}, not {self.json_mode!r}")
        if self.timeout_s <= 0 or self.backoff_s < 0 or self.max_retries < 0:
            raise OptionsError("proposer openai: timeout_s must be positive, backoff_s and max_retries not negative")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise OptionsError("proposer openai: max_tokens must be at least 1")
        prices = (self.usd_per_million_prompt_tokens, self.usd_per_million_completion_tokens)
        if (prices[0] is None) != (prices[1] is None):
            raise OptionsError(
                "proposer openai: give both prices, usd_per_million_prompt_tokens and ..._completion_tokens"
            )
        if any(price is not None and not 0 <= price < math.inf for price in prices):
            raise OptionsError("proposer openai: a price is a number of US dollars, 0 or more")
        if self.base_url is not None and not valid_url(self.base_url):
            raise OptionsError(
                f"proposer openai: base_url {public_url(self.base_url)!r} is not a URL such as http://localhost:8000/v1"
            )


class OpenAIProposer:
    """Asks a language model behind an OpenAI-compatible chat endpoint. Many requests may be in flight at once.

    The number of requests a reply took, retries included, is in `Reply.attempts`. The key stays out of every message,
    `repr` and log; it is read from the environment once, here.

    Raises:
        OptionsError: a bad option, or the key's variable is not set.
    """

    name: ClassVar[str] = "openai"
    summary: ClassVar[str] = "a language model behind any OpenAI-compatible endpoint"
    uses_llm: ClassVar[bool] = True
    repairs: ClassVar[bool] = True
    Options = OpenAIOptions

    def __init__(self, options: Mapping[str, Any], contract: Contract, seed: int) -> None:
        self.options = parse_options(OpenAIOptions, options, "proposer openai")
        self._contract, self._seed = contract, seed
        self._key = _read_key(self.options.api_key_env)
        self._url = self.options.base_url or OPENAI_URL
        self._proxy = proxy_variable(self._url)
        self._wire = Wire(
            where=public_url(self._url),
            model=self.options.model,
            variable=self.options.api_key_env,
            key=self._key,
        )
        self._client: Any = None
        self._has_answered = False
        self._json_refused = False
        self._system_refused = False
        self._length_name = "max_tokens"

    def __repr__(self) -> str:
        return f"OpenAIProposer(model={self.options.model!r}, base_url={self._wire.where!r})"

    @property
    def max_reply_tokens(self) -> int | None:
        return self.options.max_tokens

    @property
    def prices(self) -> Prices | None:
        asked, answered = self.options.usd_per_million_prompt_tokens, self.options.usd_per_million_completion_tokens
        return None if asked is None or answered is None else Prices(asked, answered)

    async def propose(self, request: Request) -> Reply:
        """One reply; waits and asks again where that can help. Counts what all its requests were billed.

        Raises:
            ProposerError: fatal for a refused key, an unknown model, nobody there; not fatal where the endpoint was
                busy or failing beyond the retries, or where one refusal stands against earlier answers.
        """
        await self._connect()
        jitter = random.Random(f"{self._seed}/{request.plan.index}/{request.plan.seed}/{request.attempt}")
        started, attempts, failures, refusals, usage = time.perf_counter(), 0, 0, 0, Usage()
        while True:
            attempts += 1
            body = self._body(request)
            outcome = await self._ask(body)
            usage += outcome.usage
            if isinstance(outcome, Answer):
                self._has_answered = True
                return self._reply(outcome, usage, time.perf_counter() - started, attempts)
            if self._adapt(outcome, body):
                continue
            failures += 1
            refusals += outcome.fatal
            if not self._may_ask_again(outcome, failures):
                message = self._wire.redact(outcome.message) + (f" ({attempts} requests)" if attempts > 1 else "")
                answer = Answer("", message, None, usage)
                billed = self._reply(answer, usage, time.perf_counter() - started, attempts) if usage else None
                # no single odd answer outweighs good ones before it
                fatal = outcome.fatal and (not self._has_answered or (refusals > 1 and not outcome.about_question))
                raise ProposerError(message, fatal=fatal, billed=billed)
            wait = self._wait_s(outcome, failures, jitter)
            log.info("proposal %d: %s; asking again in %.1f s", request.plan.index, outcome.short, wait)
            await asyncio.sleep(wait)

    def _may_ask_again(self, fault: Fault, failures: int) -> bool:
        if failures > self.options.max_retries or (fault.wait_s or 0.0) > LONGEST_WAIT_S:
            return False
        return fault.retry or (fault.fatal and self._has_answered and not fault.about_question)

    def _wait_s(self, fault: Fault, failures: int, jitter: random.Random) -> float:
        backoff = self.options.backoff_s
        if fault.wait_s is None:
            return min(backoff * 2.0 ** (failures - 1), LONGEST_WAIT_S / 2) * jitter.uniform(0.5, 1.0)
        return fault.wait_s + backoff * jitter.uniform(
            0.0, 0.25
        )  # not all of those that were told the same moment at once

    async def preflight(self) -> None:
        """Try key, model and connection with a request or two; whatever is no clear refusal is left to `propose`.

        Raises:
            ProposerError: fatal: a refused key, an unknown model, nobody there, no chat endpoint.
        """
        await self._connect()
        with suppress(TimeoutError):
            async with asyncio.timeout(PREFLIGHT_S):
                if not await self._is_listed():
                    await self._try_a_word()

    async def _is_listed(self) -> bool:
        """Whether the list of models names ours. Keys may be barred from the list, and servers may lack it."""
        import openai

        try:
            listed = await self._client.models.with_raw_response.list()
            body = json.loads(listed.http_response.content)
        except (ValueError, RecursionError):
            return False
        except (openai.OpenAIError, UnfitAnswerError) as error:
            fault = fault_of(error, self._wire, PREFLIGHT_S, self._proxy)
            if fault.fatal and not fault.status:
                raise ProposerError(self._wire.redact(fault.message), fatal=True) from None
            return False
        models = body.get("data") if isinstance(body, dict) else None
        return isinstance(models, list) and any(
            isinstance(m, dict) and m.get("id") == self.options.model for m in models
        )

    async def _try_a_word(self) -> None:
        messages = [{"role": "user", "content": "Say yes."}]
        outcome = await self._ask({"model": self.options.model, "messages": messages, self._length_name: 1})
        if isinstance(outcome, Fault) and (outcome.foreign or (outcome.fatal and outcome.status in _REFUSALS)):
            raise ProposerError(self._wire.redact(outcome.message), fatal=True)

    async def aclose(self) -> None:
        """Close the connections. May be called again; a later `propose` opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connect(self) -> None:
        """Raises ProposerError: fatal; the environment names a proxy or certificates that cannot be used."""
        if self._client is None:
            await asyncio.to_thread(importlib.import_module, "openai")  # a second of imports
        if self._client is None:  # no lock: a lock belongs to one event loop, and nothing is awaited from here on
            self._client = make_client(self._url, self._key.value or NO_KEY, self.options.timeout_s)

    def _body(self, request: Request) -> dict[str, Any]:
        options = self.options
        body: dict[str, Any] = {
            "model": options.model,
            "messages": _without_system(request.prompt) if self._system_refused else request.prompt.messages(),
            "temperature": options.temperature,
            "top_p": options.top_p,
            "reasoning_effort": options.reasoning_effort,
            self._length_name: options.max_tokens,
            "extra_body": options.extra_body,
        }
        if options.send_seed:
            body["seed"] = (request.plan.seed + request.attempt) % 2**31
        if options.json_mode == "on" or (options.json_mode == "auto" and not self._json_refused):
            body["response_format"] = {"type": "json_object"}
        return {key: value for key, value in body.items() if value is not None}

    async def _ask(self, body: dict[str, Any]) -> Answer | Fault:
        """One request. What comes back is read here and not by the client, whose models take what is sent on trust."""
        import openai

        try:
            async with asyncio.timeout(self.options.timeout_s):  # the client's own limit is per read
                response = await self._client.chat.completions.with_raw_response.create(**body)
        except (openai.OpenAIError, UnfitAnswerError, TimeoutError, ValueError) as error:
            return fault_of(error, self._wire, self.options.timeout_s, self._proxy)
        return read_answer(response.http_response.content, self._wire)

    def _adapt(self, fault: Fault, body: dict[str, Any]) -> bool:
        """Whether a refusal was about something we can leave out or rename; remembers it for later requests."""
        said = fault.message
        refused, failed = fault.status in (400, 422), fault.status >= 500
        if not refused and not failed:
            return False
        has_json = "response_format" in body and self.options.json_mode == "auto"
        has_system = any(m["role"] == "system" for m in body["messages"])
        if has_json and (_NO_JSON_MODE.search(said) or (refused and "json" in said.lower())):
            if not self._json_refused:
                log.warning("the endpoint refuses JSON mode; going on without it")
            self._json_refused = True
            return True
        if has_system and _NO_SYSTEM_ROLE.search(said):
            if not self._system_refused:
                log.warning("the model takes no system message; its text goes into the user's")
            self._system_refused = True
            return True
        if "max_tokens" in body and "max_completion_tokens" in said.lower():
            self._length_name = "max_completion_tokens"
            return True
        # another request in flight may have learnt it meanwhile
        return (
            (has_json and self._json_refused)
            or (has_system and self._system_refused)
            or ("max_tokens" in body and self._length_name != "max_tokens")
        )

    def _reply(self, answer: Answer, usage: Usage, latency_s: float, attempts: int) -> Reply:
        return Reply(
            text=answer.text,
            model=answer.model or self.options.model,
            latency_s=latency_s,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            attempts=attempts,
            problem=answer.problem,
        )


def _without_system(prompt: Prompt) -> list[dict[str, str]]:
    """The chat messages for a model that knows no system role: what it should know comes first in the user's turn."""
    return Prompt(tuple(replace(p, role="user") if p.role == "system" else p for p in prompt.parts)).messages()


def _read_key(variable: str | None) -> Secret:
    """The key from the environment. Raises OptionsError, never naming a value that may be a key itself."""
    if not variable:
        return Secret("")
    if not _VARIABLE.match(variable):
        raise OptionsError(
            "proposer openai: api_key_env takes the NAME of an environment variable (capitals, e.g. OPENAI_API_KEY), "
            "not a key"
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise OptionsError(
            f"proposer openai: the environment variable {variable} is not set; export the key there, "
            "or set proposer.api_key_env to null for a server without keys"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OptionsError(f"proposer openai: the value of {variable} is not a key (blanks or non-ASCII characters)")
    return Secret(key)
