"""The conformance suite that every evaluator inherits, in the tree or in its own package.

    class TestMyEvaluator(EvaluatorConformance):
        quick_options = {"steps": 20}
        changed_option = ("steps", 30)

        def make_evaluator(self, options):
            return MyEvaluator(options, cache_dir=...)

pytest collects the `test_*` methods; there is no import of pytest here, so the suite ships with the product. Objectives run
in a real oracle child (Linux).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from evaluators.base import Evaluator, TrialReport
from evaluators.objectives import default_baselines, known_objectives
from evaluators.options import OptionsError
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.failure import CandidateError, Failure, FailureKind
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer


class _RaisingOracle:
    """An oracle whose candidate fails at its first call."""

    def __init__(self, error: CandidateError) -> None:
        self.error = error
        self.parameters: tuple[str, ...] = ()
        self.calls = 0
        self.wall_s = 0.0
        self.last_losses = None

    def __call__(self, inputs: object, scalars: object) -> Any:
        self.calls += 1
        raise self.error

    tolerant = __call__


# of a batch of losses `v`: what changes the scale of a gradient and nothing else
RATES: Mapping[str, str] = {
    "x 10": "10.0 * v",
    "x 1e-4": "1e-4 * v",
    "x exp(4 progress)": "math.exp(4.0 * progress) * v",
    "x exp(-4 progress)": "math.exp(-4.0 * progress) * v",
    "/ mean": "v / (v.detach().abs().mean() + 1e-6)",
    "/ root mean square": "v / (v.detach().square().mean().sqrt() + 1e-6)",
}


class EvaluatorConformance:
    """What the `Evaluator` protocol promises, as tests.

    Attributes to set:
        quick_options: options of a trial of a few seconds, used wherever a trial runs.
        changed_option: one (name, value) that differs from `quick_options` and makes another task.
        objective: a known objective of the contract, or None for the first of its usual baselines.
        deterministic: whether equal seeds give equal bits (on a CPU they must).
        seeds: the two seeds that trials run with.
        rates_gain: whether what is only a learning rate (`RATES`) may move the score by more than the primary metric's
            minimum effect. True is for an evaluator that says so on its page: its ranking is one of speed, too.
    """

    quick_options: ClassVar[Mapping[str, Any]] = {}
    changed_option: ClassVar[tuple[str, Any]]
    objective: ClassVar[str | None] = None
    deterministic: ClassVar[bool] = True
    seeds: ClassVar[tuple[int, int]] = (3, 4)
    rates_gain: ClassVar[bool] = False

    def make_evaluator(self, options: Mapping[str, Any]) -> Evaluator:
        """A new evaluator with these options; a shared cache directory is welcome."""
        raise TypeError("a conformance suite must define make_evaluator")

    def candidate(self) -> Candidate:
        """The objective that trials train with."""
        contract = self.make_evaluator(self.quick_options).contract.name
        known = known_objectives(contract)
        return known[self.objective or next(iter(default_baselines(contract) or known))].candidate

    def trials(self) -> tuple[TrialReport, TrialReport, TrialReport]:
        """Reports of the first seed, of the first again by another evaluator, and of the second. Run once per class."""
        if "_trials" not in type(self).__dict__:
            first, second = self.make_evaluator(self.quick_options), self.make_evaluator(self.quick_options)
            first.prepare()
            second.prepare()
            with OracleServer() as server:
                type(self)._trials = (
                    self._trial(server, first, self.seeds[0]),
                    self._trial(server, second, self.seeds[0]),
                    self._trial(server, first, self.seeds[1]),
                )
        return type(self)._trials

    _trials: ClassVar[tuple[TrialReport, TrialReport, TrialReport]]

    def _trial(
        self, server: OracleServer, evaluator: Evaluator, seed: int, candidate: Candidate | None = None
    ) -> TrialReport:
        candidate = candidate or self.candidate()
        parameters = check_source(candidate, evaluator.contract).parameters
        with LossOracle(server, candidate, evaluator.contract, parameters) as oracle:
            return evaluator.run(oracle, seed)

    def test_describes_itself(self) -> None:
        evaluator = self.make_evaluator(self.quick_options)
        assert "." in evaluator.name or evaluator.name.isidentifier(), evaluator.name
        assert evaluator.version >= 1
        assert evaluator.summary
        assert "\n" not in evaluator.summary
        assert len(evaluator.task_description.split()) > 10, "say what is trained, for how long, and what the score is"
        assert "\n" not in evaluator.task_description
        assert evaluator.resources.cpus > 0
        names = [m.name for m in evaluator.metrics]
        assert len(set(names)) == len(names), "a metric is promised twice"
        assert evaluator.primary_metric in names
        assert all(m.description and m.unit for m in evaluator.metrics)

    def test_task_is_stable_and_plain(self) -> None:
        task, again = self.make_evaluator(self.quick_options).task, self.make_evaluator(self.quick_options).task
        assert task.id == again.id
        assert json.loads(json.dumps(dict(task.options))) == dict(task.options), "options must be plain JSON values"
        assert task.provenance.source
        assert task.provenance.licence
        assert len(task.provenance.sha256) == 64

    def test_task_changes_with_options(self) -> None:
        name, value = self.changed_option
        changed = {**self.quick_options, name: value}
        assert self.make_evaluator(changed).task.id != self.make_evaluator(self.quick_options).task.id

    def test_unknown_option_is_refused_with_the_nearest(self) -> None:
        near = next(iter(self.make_evaluator(self.quick_options).task.options))
        message = self._refusal({**self.quick_options, near + "x": 1})
        assert repr(near) in message, message
        assert self.make_evaluator(self.quick_options).name in message, message

    def test_ill_typed_option_is_refused_in_one_line(self) -> None:
        name = next(iter(self.make_evaluator(self.quick_options).task.options))
        message = self._refusal({**self.quick_options, name: {"a": "mapping"}})
        assert name in message, message
        assert "\n" not in message, message

    def _refusal(self, options: Mapping[str, Any]) -> str:
        try:
            self.make_evaluator(options)
        except OptionsError as error:
            return str(error)
        raise AssertionError(f"accepted {options}")

    def test_prepare_is_idempotent(self) -> None:
        evaluator = self.make_evaluator(self.quick_options)
        facts = dict(evaluator.prepare())
        assert facts == dict(evaluator.prepare())
        assert all(np.isfinite(v) for v in facts.values())

    def test_reports_exactly_the_promised_metrics(self) -> None:
        evaluator, report = self.make_evaluator(self.quick_options), self.trials()[0]
        promised = {m.name: (m.higher_is_better, m.unit) for m in evaluator.metrics}
        assert {m.name: (m.higher_is_better, m.unit) for m in report.metrics} == promised

    def test_report_says_how_it_was_measured(self) -> None:
        report = self.trials()[0]
        assert report.seed == self.seeds[0]
        assert report.oracle_calls > 0
        assert report.threads >= 1
        assert report.peak_memory_mb > 0
        assert "torch" in report.versions
        assert report.device
        assert 0 < report.timings.oracle_s <= report.timings.train_s
        assert min(report.timings.setup_s, report.timings.evaluate_s) >= 0

    def test_arrays_are_documented(self) -> None:
        evaluator, report = self.make_evaluator(self.quick_options), self.trials()[0]
        assert set(report.arrays) == set(evaluator.arrays_doc)
        assert all(array.dtype != np.dtype(object) for array in report.arrays.values())

    def test_equal_seeds_give_equal_results(self) -> None:
        if not self.deterministic:
            return
        first, again, _ = self.trials()
        assert first.metrics == again.metrics
        for name, array in first.arrays.items():
            np.testing.assert_array_equal(array, again.arrays[name], err_msg=name)

    def test_another_seed_gives_another_result(self) -> None:
        first, _, other = self.trials()
        name = self.make_evaluator(self.quick_options).primary_metric
        assert first.metric(name).value != other.metric(name).value

    def test_every_optional_input_is_fed(self) -> None:
        """The prompt offers them all: a loss that names them must train. It moves the first policy input up, slowly."""
        evaluator = self.make_evaluator(self.quick_options)
        evaluator.prepare()
        contract = evaluator.contract
        names = [i.name for i in contract.inputs]
        candidate = Candidate(
            contract.name,
            f"def {contract.function}({', '.join(names)}):\n    return 0.0 * ({' + '.join(names)}) - 1e-3 * {names[0]}\n",
        )
        parameters = check_source(candidate, contract).parameters
        assert set(parameters) == set(names)
        with OracleServer() as server, LossOracle(server, candidate, contract, parameters) as oracle:
            assert evaluator.run(oracle, self.seeds[0]).oracle_calls > 0

    def test_the_candidates_failure_passes_through(self) -> None:
        evaluator = self.make_evaluator(self.quick_options)
        evaluator.prepare()
        error = CandidateError(Failure(FailureKind.NON_FINITE, "from the oracle"))
        oracle: Any = _RaisingOracle(error)
        raised: list[CandidateError] = []
        try:
            evaluator.run(oracle, self.seeds[0])
        except CandidateError as caught:
            raised.append(caught)
        assert raised == [error], "CandidateError must come out as it went in"

    def test_what_is_only_a_learning_rate_gains_nothing(self) -> None:
        """A discovery that only moves faster, or slower, or by a schedule, is none."""
        if self.rates_gain:
            return
        evaluator, plain = self.make_evaluator(self.quick_options), self.trials()[0]
        evaluator.prepare()
        name = evaluator.primary_metric
        allowed = next(m.minimum_effect for m in evaluator.metrics if m.name == name)
        with OracleServer() as server:
            for rate, factor in RATES.items():
                if "progress" in factor and not any(i.name == "progress" for i in evaluator.contract.inputs):
                    continue
                scaled = self._trial(server, evaluator, self.seeds[0], self._scaled(evaluator.contract, factor))
                moved = scaled.metric(name).value - plain.metric(name).value
                assert abs(moved) <= allowed, f"{rate} moves {name} by {moved:+.4f}, more than {allowed}"

    def _scaled(self, contract: Contract, factor: str) -> Candidate:
        """The objective of the trials with its losses `v` times something."""
        known, parameters = self.candidate(), check_source(self.candidate(), contract).parameters
        named = ", ".join(dict.fromkeys([*parameters, *(["progress"] if "progress" in factor else [])]))
        return Candidate(
            contract.name,
            "import math\n"
            + re.sub(rf"\bdef {contract.function}\(", "def unscaled(", known.source)
            + f"\n\ndef {contract.function}({named}):\n    v = unscaled({', '.join(parameters)})\n    return {factor}\n",
        )
