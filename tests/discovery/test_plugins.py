"""Plug-ins by name, and what those that propose and search are held to."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.messages import Prompt, Reply
from db.records import Proposal
from discovery import guarded
from discovery.cli.export import model_behind
from discovery.protocols import Plan, Prices, ProposerError, ProposerExhausted, Request
from evaluators.options import OptionsError
from evaluators.plugins import load_installed, load_plugin
from sandbox.failure import PluginError

NAMED = "chosen_by_the_archive:Proposer"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "chosen_by_the_archive.py").write_text(
        "class Proposer:\n    name = summary = 'x'\n    uses_llm = repairs = False\n"
        "    async def propose(self, request): ...\n    async def aclose(self): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "chosen_by_the_archive"
    sys.modules.pop("chosen_by_the_archive", None)


def test_a_name_from_an_archive_imports_nothing_that_is_not_registered(module: str) -> None:
    with pytest.raises(OptionsError, match="unknown name"):
        load_installed("proposers", NAMED)
    assert model_behind(Proposal(0, "proposed", NAMED, "a", "b", reply=Reply("c", "some-model", 0.1))) == "some-model"
    assert module not in sys.modules
    assert load_plugin("proposers", NAMED).uses_llm is False  # a person may
    assert module in sys.modules


def test_what_a_proposer_says_besides_is_its_own_fault_where_it_fails() -> None:
    class Fails:
        @property
        def prices(self) -> Any:
            return self.price

        @property
        def max_reply_tokens(self) -> Any:
            return 1 / 0

        def has_ended(self, index: int) -> Any:
            return [][index]

    class Odd:
        prices, max_reply_tokens = (1.0, 2.0), "4096"

        def has_ended(self, index: int) -> Any:
            return "nothing left"

    for made, words in (
        (Fails(), ("AttributeError", "ZeroDivisionError", "IndexError")),
        (Odd(), ("tuple", "str", "str")),
    ):
        asked: Any = (guarded.prices, guarded.max_reply_tokens, lambda proposer: guarded.has_ended(proposer, 0))
        for ask, word in zip(asked, words, strict=True):
            with pytest.raises(PluginError, match=rf"test_plugins:.*{type(made).__name__}.*{word}"):
                ask(made)


def test_what_it_does_not_say_is_nothing_and_what_it_says_is_passed_on() -> None:
    class Whole:
        prices, max_reply_tokens, end = Prices(1.0, 2.0), 4096, ProposerExhausted("the list ends")

        def has_ended(self, index: int) -> ProposerExhausted:
            return self.end

    silent: Any = object()
    assert (guarded.prices(silent), guarded.max_reply_tokens(silent), guarded.has_ended(silent, 0)) == (
        None,
        None,
        None,
    )
    whole: Any = Whole()
    found = guarded.prices(whole), guarded.max_reply_tokens(whole), guarded.has_ended(whole, 0)
    assert found == (Whole.prices, 4096, Whole.end)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "returned a NoneType, not a Reply"),
        (Reply(b"bytes", "m", 0.0), "returned a Reply whose text is a bytes, not a str"),  # type: ignore[arg-type]
        (Reply("text", ["m"], 0.0), "returned a Reply whose model is a list, not a str"),  # type: ignore[arg-type]
        (ProposerError("lost", fatal=False, billed=7), "billed a int, not a Reply"),  # type: ignore[arg-type]
    ],
)
def test_an_answer_that_is_none_ends_the_asking(answer: Any, said: str) -> None:
    class Odd:
        async def propose(self, request: Request) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    proposer: Any = Odd()
    with pytest.raises(ProposerError, match=said) as caught:
        asyncio.run(guarded.propose(proposer, Request(Prompt(()), Plan(0, 0))))
    assert caught.value.fatal
    assert caught.value.billed is None


def test_what_was_billed_without_an_answer_passes_the_border() -> None:
    billed = Reply("", "m", 0.0, 3000, 4096)

    class Billed:
        async def propose(self, request: Request) -> Any:
            raise ProposerError("an error inside a 200", fatal=False, billed=billed)

    proposer: Any = Billed()
    with pytest.raises(ProposerError, match="an error inside") as caught:
        asyncio.run(guarded.propose(proposer, Request(Prompt(()), Plan(0, 0))))
    assert caught.value.billed is billed


def test_a_plan_that_shows_something_else_than_losses_is_the_strategys_fault() -> None:
    class Shows:
        def ask(self, index: int) -> Plan:
            return Plan(index, 0, in_full=("dpo",))  # type: ignore[arg-type]

    strategy: Any = Shows()
    with pytest.raises(
        PluginError, match=r"ask \(.*test_plugins\.py:\d+\) returned a Plan that shows a str, not a Past"
    ):
        guarded.ask(strategy, 3)
