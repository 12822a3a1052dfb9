"""Evaluators, proposers and strategies from another package: by entry point of an installed one, and by `module:attr`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from db.endings import Ending, Reason
from discovery.campaign import Campaign
from discovery.config import CampaignConfig, make_config
from discovery.search import SearchError
from evaluators.plugins import plugin_names
from sandbox.failure import FailureKind, PluginError
from tests.support.campaigns import kept, settings
from tests.support.command import discovery_process
from tests.support.command_runs import ROOT

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
from db.messages import Reply
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


OWN = """
from benchmarks.sleep_evaluator import SleepEvaluator


class Own(SleepEvaluator):
    def __init__(self, options=None, cache_dir=None):
        super().__init__({"seconds": 0.0})

    def run(self, oracle, seed):
        FAULT
        return super().run(oracle, seed)
"""


def test_an_evaluator_that_fails_on_every_baseline_ends_it_and_once_mended_it_goes_on(tmp_path: Path) -> None:
    module = tmp_path / "own_evaluator.py"
    module.write_text(OWN.replace("FAULT", "self.nowhere"))
    line = 1 + OWN[: OWN.index("FAULT")].count("\n")
    plan = settings(tmp_path, objective={"evaluator": "own_evaluator:Own", "seeds": 2}, budget={"candidates": 0})
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(plan))
    (tmp_path / "elsewhere").mkdir()  # a plug-in beside the configuration is found from any folder

    def run() -> tuple[int, list[str]]:
        ended = discovery_process(
            "run", tmp_path / "campaign.yaml", cwd=tmp_path / "elsewhere", environment={"PYTHONPATH": str(ROOT)}
        )
        return ended.code, ended.stderr.splitlines()

    code, said = run()
    assert code == 1
    assert len(said) == 1
    assert "own_evaluator:Own, run with seed" in said[0]
    assert f"AttributeError: 'Own' object has no attribute 'nowhere' ({module}:{line})" in said[0]
    assert said[0].endswith(
        "every loss so far has failed so, none was at fault: mend it and run the same command again"
    )
    found = kept(tmp_path / "archive.db")
    assert found.status == "stopped by an error"
    assert found.ended == Ending(Reason.PLUGIN, said[0].removeprefix("error: "))
    assert 2 <= found.attempts <= 4  # nothing was tried again
    assert {t.failure.kind for t in found.trials.values() if t.failure} == {FailureKind.PLUGIN}
    module.write_text(OWN.replace("FAULT", "pass"))
    assert run() == (0, [])
    found = kept(tmp_path / "archive.db")
    assert [t.status for t in found.trials.values()] == ["done"] * 4


FAULTY = """
from db.messages import Reply
from discovery.protocols import Plan
from discovery.strategies.conversation import ConversationStrategy
from tests.support.chat_server import distinct_loss


class NoPlan(ConversationStrategy):
    def ask(self, index):
        return None


class Deaf(ConversationStrategy):
    def tell(self, outcome):
        return outcome.nowhere


class OddProposer:
    name, summary, uses_llm, repairs = "odd", "fails on every second question", False, False

    def __init__(self, options, contract, seed):
        self.always = options.get("always", False)

    async def propose(self, request):
        if self.always or request.plan.index % 2:
            return {}["missing"]
        return Reply(distinct_loss({}, request.plan.index), "odd", 0.0)

    async def aclose(self):
        pass
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "faulty_parts.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("faulty_parts", None)


def small(folder: Path, **changes: Any) -> CampaignConfig:
    plan = settings(folder, baselines=["dpo"], budget={"candidates": 2, "proposals": 20}, **changes)
    return make_config({**plan, "workers": {"trial_slots": 1}})


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("NoPlan", r"faulty_parts:NoPlan, ask \(.*faulty_parts\.py:9\) returned a NoneType, not a Plan"),
        ("Deaf", r"faulty_parts:Deaf, tell \d+: AttributeError: .*\(.*faulty_parts\.py:15\)"),
    ],
)
def test_a_faulty_strategy_is_named_with_file_and_line(tmp_path: Path, strategy: str, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        Campaign(small(tmp_path, strategy={"kind": f"faulty_parts:{strategy}"})).run()


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_a_faulty_proposer_costs_questions_and_ends_it_only_if_it_never_answers(tmp_path: Path) -> None:
    said: list[str] = []
    made = small(tmp_path, proposer={"kind": "faulty_parts:OddProposer"})
    assert Campaign(made, lambda event: said.append(event.text)).run().status == "finished"
    assert any("propose 1: KeyError: 'missing'" in text and "faulty_parts.py:26)" in text for text in said)
    other = small(tmp_path, name="other", proposer={"kind": "faulty_parts:OddProposer", "always": True})
    with pytest.raises(SearchError, match=r"KeyError: 'missing' \(.*faulty_parts\.py:26\)"):
        Campaign(other).run()
