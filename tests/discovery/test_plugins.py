"""Plug-ins by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.records import Proposal, Reply
from discovery.cli.export import model_behind
from evaluators.options import OptionsError
from evaluators.plugins import load_installed, load_plugin

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
