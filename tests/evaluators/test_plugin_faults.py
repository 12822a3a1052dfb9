"""Whose fault it is: an evaluator of somebody else, faulty in every way that people are, is blamed with file and line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.options import OptionsError
from evaluators.plugin_border import describe, plugin_border
from evaluators.plugins import load_plugin, make_plugin
from evaluators.promises import calls_of, checked_report, prepare
from sandbox.failure import FailureKind, InfrastructureError, PluginError

HEAD = """
import errno
import numpy as np
import torch
from dataclasses import replace
from benchmarks.sleep_evaluator import SleepEvaluator
from evaluators.base import Metric, TrialReport


class HostileError(Exception):
    def __init__(self, a, b):  # cannot be unpickled
        super().__init__(a)

    def __str__(self):
        return "two\\nlines \\x1b[31m red " + "x" * 5000


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Own(TrialReport):
    pass


class Mine(SleepEvaluator):
    def __init__(self, options=None, cache_dir=None):
        super().__init__({"seconds": 0.0})

"""
# method and its body, what is said about it; {line} is the number of the body's first line
RUNS = {
    "division": ("return 1 / 0", "ZeroDivisionError: division by zero ({file}:{line})"),
    "deep in a library": ("return torch.ones(2) @ torch.ones(3)", "({file}:{line})"),
    "hostile": ('raise HostileError("x", "y")', "HostileError: two lines [31m red xxx"),
    "speechless": ("raise Speechless()", "Speechless ({file}:{line})"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3 ({file}:{line})"),
    "nothing": ("return None", "returned a NoneType, not a TrialReport"),
    "a number": ("return 0.5", "returned a float, not a TrialReport"),
    "own class": ("return Own(**vars(super().run(oracle, seed)))", "returned a Own, not a TrialReport"),
    "seed": ("return super().run(oracle, seed + 1)", "reported seed 8 when it was asked for 7"),
    "no metrics": ("return replace(super().run(oracle, seed), metrics=())", "reported no score, which it promises"),
    "misnamed": (
        'return replace(super().run(oracle, seed), metrics=(Metric("scores", 1.0, True, "1"),))',
        "reported no score, which it promises; did you mean 'scores'?",
    ),
    "NaN": (
        'return replace(super().run(oracle, seed), metrics=(Metric("score", float("nan"), True, "1"),))',
        "metric score is not finite or over 1e+150; an evaluator must raise instead ({file}:{line})",
    ),
    "tensor": (
        'return replace(super().run(oracle, seed), metrics=(Metric("score", torch.ones(()), True, "1"),))',
        "reported the metric score as a Tensor, not a number",
    ),
    "stderr": (
        'return replace(super().run(oracle, seed), metrics=(Metric("score", 1.0, True, "1", "small"),))',
        "standard error as a str, not a number",
    ),
    "direction": (
        'return replace(super().run(oracle, seed), metrics=(Metric("score", 1.0, False, "1"),))',
        "reported score with another direction",
    ),
    "list for array": ('return replace(super().run(oracle, seed), arrays={"a": [1]})', "reported a as a list"),
    "objects": (
        'return replace(super().run(oracle, seed), arrays={"a": np.array([object()])})',
        "reported a as an array of objects",
    ),
}
PREPARES = {
    "raises": ("return {}['missing']", "prepare: KeyError: 'missing' ({file}:{line})"),
    "nothing": ("return None", "prepare ({file}:{above}) returned a NoneType, not a mapping"),
    "text": ("return {'accuracy': 'high'}", "returned accuracy as a str, not a number"),
    "NaN": ("return {'accuracy': float('nan')}", "returned accuracy as nan; an evaluator must raise instead"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("their_evaluator", None)


def faulty(folder: Path, signature: str, body: str) -> tuple[object, dict[str, object]]:
    text = f"{HEAD}    def {signature}:\n        {body}\n"
    (folder / "their_evaluator.py").write_text(text)
    line = text.count("\n")
    evaluator = make_plugin("evaluators", "their_evaluator:Mine", {})
    return evaluator, {"file": folder / "their_evaluator.py", "line": line, "above": line - 1}


class _Oracle:
    class candidate:  # noqa: N801
        id = "0"


@pytest.mark.parametrize("case", RUNS)
def test_a_fault_in_run_is_the_evaluators_with_file_and_line(folder: Path, case: str) -> None:
    body, said = RUNS[case]
    evaluator, place = faulty(folder, "run(self, oracle, seed)", body)
    with pytest.raises(PluginError) as caught, plugin_border(evaluator, "run with seed 7"):
        checked_report(evaluator, evaluator.run(_Oracle(), 7), 7)  # type: ignore[arg-type, attr-defined]
    message = str(caught.value)
    assert message.startswith("their_evaluator:Mine, run")
    assert said.format(**place) in message
    assert "\n" not in message
    assert "\x1b" not in message
    assert caught.value.failure.kind is FailureKind.PLUGIN
    assert not caught.value.failure.kind.candidates_fault


@pytest.mark.parametrize("case", PREPARES)
def test_a_fault_in_prepare_is_the_evaluators_too(folder: Path, case: str) -> None:
    body, said = PREPARES[case]
    evaluator, place = faulty(folder, "prepare(self, progress=None)", body)
    with pytest.raises(PluginError) as caught:
        prepare(evaluator)  # type: ignore[arg-type]
    assert said.format(**place) in str(caught.value)


CALLS = {
    "raises": (
        "return self.batch_size",
        "calls: AttributeError: 'Mine' object has no attribute 'batch_size' ({file}:{line})",
    ),
    "text": ("return '32'", "their_evaluator:Mine, calls are a str, not Calls"),
    "none in a batch": ("return Calls(0)", "calls: ValueError: a batch of 0 examples ({file}:{line})"),
    "half a one": ("return Calls(0.5)", "calls: ValueError: a batch of 0.5 examples ({file}:{line})"),
    "endless": ("return Calls(8, (0.1, 1e999))", "calls: ValueError: a scale of inf ({file}:{line})"),
    "no number": ("return Calls(8, ('x',))", "calls: ValueError: a scale of 'x' ({file}:{line})"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_fault_in_what_it_says_of_its_calls_is_the_evaluators_too(folder: Path, case: str) -> None:
    body, said = CALLS[case]
    text = f"{HEAD}    @property\n    def calls(self):\n        {body}\n".replace(
        "import Metric,", "import Calls, Metric,"
    )
    (folder / "their_evaluator.py").write_text(text)
    evaluator = make_plugin("evaluators", "their_evaluator:Mine", {})
    with pytest.raises(PluginError) as caught:
        calls_of(evaluator)
    assert said.format(file=folder / "their_evaluator.py", line=text.count("\n")) in str(caught.value)


def test_a_fault_in_the_constructor_is_the_evaluators_and_a_refusal_the_persons(folder: Path) -> None:
    source = HEAD.replace('super().__init__({"seconds": 0.0})', "self.x = options.missing")
    (folder / "their_evaluator.py").write_text(source)
    with pytest.raises(PluginError, match=r"made with its options: AttributeError: .*their_evaluator\.py:\d+\)"):
        make_plugin("evaluators", "their_evaluator:Mine", {})
    with pytest.raises(OptionsError, match="no option 'second'"):
        make_plugin("evaluators", "benchmarks.sleep_evaluator:SleepEvaluator", {"second": 1})


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(28, "No space left on device"), OSError(24, "Too many open files")], ids=repr
)
def test_what_the_machine_lacks_is_the_machines_fault(error: Exception) -> None:
    with pytest.raises(InfrastructureError, match=type(error).__name__), plugin_border(object(), "run"):
        raise error


SOURCES = {
    "def x(:": r"cannot load 'their_evaluator:Mine' .*SyntaxError: .*their_evaluator\.py:1\)",
    "\n1 / 0": r"ZeroDivisionError: division by zero \(.*their_evaluator\.py:2\)",
    "import nowhere_at_all": r"No module named 'nowhere_at_all' \(.*their_evaluator\.py:1\)",
    "import sys; sys.exit(1)": r"SystemExit: 1",
    "Mine = 3": "it is no class but a int",
    "Other = 3": "no attribute 'Mine'",
    "class Mine: pass": (
        "lacks name, version, summary, contract, metrics, primary_metric, arrays_doc, task, task_description, resources, "
        r"prepare and run \(evaluators\.base\.Evaluator\)"
    ),
    "from evaluators.base import Evaluator\nclass Mine(Evaluator):\n    name = 'x'\n    def run(self, o, s): pass": (
        "lacks version, summary, contract, metrics, primary_metric, arrays_doc, task, task_description, resources "
        "and prepare"
    ),
    HEAD + "    contract = 'pairs'\n    metrics = ()\n    version = 'one'\n": (
        "version is a str, not a whole number; contract is a str, not a Contract; metrics is no tuple of MetricSpec"
    ),
    HEAD + "    primary_metric = 'speed'\n": "primary_metric 'speed' is none of its metrics",
}


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s[-40:])
def test_all_that_an_evaluator_lacks_is_named_when_it_is_loaded(folder: Path, source: str) -> None:
    (folder / "their_evaluator.py").write_text(source)
    with pytest.raises(OptionsError, match=SOURCES[source]) as caught:
        load_plugin("evaluators", "their_evaluator:Mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        ("proposers", r"name, summary, uses_llm, repairs, propose and aclose \(discovery\.protocols\.Proposer\)"),
        ("strategies", r"name, summary, ask and tell \(discovery\.protocols\.Strategy\)"),
        (
            "exporters",
            r"name, summary, suffix, takes_failed, wants_curves, export and runnables \(discovery\.exporters",
        ),
    ],
)
def test_all_that_the_other_kinds_lack_is_named_too(folder: Path, kind: str, lacking: str) -> None:
    (folder / "their_evaluator.py").write_text("class Mine: pass")
    with pytest.raises(OptionsError, match=f"as one of the {kind}: it lacks {lacking}"):
        load_plugin(kind, "their_evaluator:Mine")


def test_what_a_protocol_gives_need_not_be_written_again(folder: Path) -> None:
    (folder / "their_evaluator.py").write_text(
        "from discovery.exporters.base import Exporter\n"
        "class Mine(Exporter):\n    name = summary = suffix = 'x'\n    def export(self, dossier, context): pass\n"
    )
    assert load_plugin("exporters", "their_evaluator:Mine").takes_failed is False
    (folder / "their_evaluator.py").write_text(
        "from discovery.exporters.base import Exporter\nclass Mine(Exporter):\n    name = summary = suffix = 'x'\n"
    )
    sys.modules.pop("their_evaluator")
    with pytest.raises(OptionsError, match="it lacks export"):
        load_plugin("exporters", "their_evaluator:Mine")


def test_an_error_without_a_place_is_described_all_the_same() -> None:
    assert describe(ValueError("x")) == "ValueError: x"
    assert describe(KeyError()) == "KeyError"
