"""Conformance suite of proposers: inherit it in a test module, say how to make one, and pytest runs the rest."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from db.messages import Prompt, PromptPart, Reply
from discovery.protocols import Plan, Preflight, Proposer, Request
from discovery.replies import parse_reply
from evaluators.options import OptionsError
from sandbox.contract import Contract


class ProposerConformance:
    """What every proposer must keep. Override `make_proposer`; the rest has defaults for the preference family.

    Attributes:
        repeatable: a fresh proposer with the same seed answers the same request alike (set False for a live model).
        secrets: texts that must not show in `repr` or messages.
    """

    repeatable: ClassVar[bool] = True
    secrets: ClassVar[tuple[str, ...]] = ()

    def make_proposer(self, seed: int = 0, **options: Any) -> Proposer:
        """A fresh proposer; `options` go on top of those it needs. Its class must raise OptionsError on unknown ones."""
        raise AssertionError("override make_proposer")

    def contract(self) -> Contract:
        """The contract of the losses it proposes."""
        from evaluators.preference.contract import PAIRS

        return PAIRS

    def make_request(self, index: int = 0, seed: int | None = None) -> Request:
        """A first proposal's request without parents."""
        system = PromptPart(
            "system", f"Propose a loss as JSON with thought, name and code.\n{self.contract().signature()}"
        )
        prompt = Prompt((system, PromptPart("user", "Propose one.")))
        return Request(prompt, Plan(index, index + 1000 if seed is None else seed))

    def ask(self, requests: list[Request], seed: int = 0) -> list[Reply]:
        """Answers of one fresh proposer to concurrent requests, in order."""

        async def gather() -> list[Reply]:
            proposer = self.make_proposer(seed)
            try:
                return await asyncio.gather(*(proposer.propose(r) for r in requests))
            finally:
                await proposer.aclose()

        return asyncio.run(gather())

    def test_names_itself(self) -> None:
        kind = type(self.make_proposer())
        assert kind.name
        assert kind.name == kind.name.strip().lower()
        assert kind.summary
        assert "\n" not in kind.summary
        assert isinstance(kind.uses_llm, bool)
        assert isinstance(kind.repairs, bool)

    def test_unknown_option_is_one_clear_line(self) -> None:
        message = ""
        try:
            self.make_proposer(no_such_option=1)
        except OptionsError as error:
            message = str(error)
        assert "no_such_option" in message
        assert "\n" not in message

    def test_answers_with_a_readable_idea(self) -> None:
        (reply,) = self.ask([self.make_request()])
        idea = parse_reply(reply.text, self.contract().function)
        assert f"def {self.contract().function}" in idea.code
        assert idea.name
        assert reply.model
        assert reply.latency_s >= 0.0
        assert reply.attempts >= 1
        for count in (reply.prompt_tokens, reply.completion_tokens):
            assert count is None or count >= 0

    def test_answers_concurrent_requests_in_their_order(self) -> None:
        requests = [self.make_request(i) for i in range(6)]
        together = self.ask(requests)
        assert len(together) == len(requests)
        if self.repeatable:
            alone = [self.ask([r])[0] for r in requests]
            assert [r.text for r in together] == [r.text for r in alone]

    def test_same_seed_same_reply(self) -> None:
        if self.repeatable:
            first, second = (self.ask([self.make_request(3)], seed=7)[0].text for _ in range(2))
            assert first == second

    def test_closing_twice_is_harmless(self) -> None:
        async def close_twice() -> None:
            proposer = self.make_proposer()
            await proposer.propose(self.make_request())
            await proposer.aclose()
            await proposer.aclose()

        asyncio.run(close_twice())

    def test_a_preflight_passes_and_answers_are_as_without_it(self) -> None:
        async def ask_after_it() -> Reply:
            proposer = self.make_proposer()
            try:
                if isinstance(proposer, Preflight):
                    await proposer.preflight()
                return await proposer.propose(self.make_request())
            finally:
                await proposer.aclose()

        reply = asyncio.run(ask_after_it())
        assert parse_reply(reply.text, self.contract().function).code

    def test_shows_no_secret(self) -> None:
        proposer = self.make_proposer()
        shown = f"{proposer!r} {vars(proposer)!r}"
        assert not any(secret in shown for secret in self.secrets)
