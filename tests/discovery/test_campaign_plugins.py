"""Evaluators, proposers and strategies from another package: by entry point of an installed one, and by `module:attr`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from discovery.campaign import Campaign
from discovery.config import make_config
from evaluators.plugins import plugin_names
from tests.support.campaigns import kept, settings

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "dummy-objectives"
version = "1"

[project.entry-points."objective_discovery.evaluators"]
"dummy.task" = "dummy_objectives:DummyEvaluator"

[project.entry-points."objective_discovery.strategies"]
dummy = "dummy_objectives:DummyStrategy"

[tool.setuptools]
py-modules = ["dummy_objectives"]
"""

MODULE = """
from benchmarks.sleep_evaluator import SleepEvaluator
from db.records import Reply
from discovery.protocols import Plan
from tests.support.chat_server import distinct_loss


class DummyEvaluator(SleepEvaluator):
    name = "dummy.task"

    def __init__(self, options=None, cache_dir=None):
        super().__init__({"seconds": 0.0})


class DummyStrategy:
    name, summary = "dummy", "shows nothing"

    def __init__(self, options, seed):
        self.told = []

    def ask(self, index):
        return Plan(index, 1000 + index)

    def tell(self, outcome):
        self.told.append(outcome)


class DummyProposer:
    name, summary, uses_llm, repairs = "dummy", "counts", False, False

    def __init__(self, options, contract, seed):
        pass

    async def propose(self, request):
        return Reply(distinct_loss({}, request.plan.index), f"dummy {request.plan.seed}", 0.0)

    async def aclose(self):
        pass
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small real package, built and installed by pip into a folder of its own."""
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "dummy_objectives.py").write_text(MODULE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=120)
    monkeypatch.syspath_prepend(str(target))


@pytest.mark.usefixtures("installed")
def test_a_campaign_made_of_another_packages_parts(tmp_path: Path) -> None:
    assert "dummy.task" in plugin_names("evaluators")
    made = make_config(
        settings(
            tmp_path,
            objective={"evaluator": "dummy.task", "seeds": 1},
            strategy={"kind": "dummy"},
            proposer={"kind": "dummy_objectives:DummyProposer"},
            baselines=["dpo"],
            budget={"candidates": 2},
            workers={"trial_slots": 1},
        )
    )
    assert Campaign(made).run().status == "finished"
    found = kept(tmp_path / "archive.db")
    assert [p.name for p in found.accepted] == ["mixture_0", "mixture_1"]
    assert [p.reply.model for p in found.accepted if p.reply] == ["dummy 1000", "dummy 1001"]
    assert {t.evaluator for t in found.trials.values()} == {"dummy.task"}
