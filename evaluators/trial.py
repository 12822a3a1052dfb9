"""One trial of one candidate, from its child's first call to the replay of a few of them."""

from __future__ import annotations

from dataclasses import replace

from evaluators.base import Evaluator, TrialReport
from evaluators.plugin_border import plugin_border
from evaluators.promises import checked_report
from sandbox.candidate import Candidate
from sandbox.failure import MappingError
from sandbox.limits import Limits
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer


def run_trial(
    server: OracleServer,
    evaluator: Evaluator,
    candidate: Candidate,
    parameters: tuple[str, ...],
    seed: int,
    limits: Limits | None = None,
) -> TrialReport:
    """Train and score a candidate that gate and probe accepted, then make a few of its calls again in a fresh child.

    A loss that turns out not to be what it is run by run when it is mapped over runs is trained again without that.

    Args:
        server: where children come from.
        evaluator: prepared.
        candidate: of the evaluator's contract.
        parameters: the contract inputs that it reads (`GateReport.parameters`).
        seed: of the trial.
        limits: of the child.

    Raises:
        CandidateError: the candidate's fault; CONTRACT if the replay gives other answers, which voids the trial.
        InfrastructureError: ours.
        PluginError: the evaluator's: it raised what it should not, or its report is not what it promises.
    """
    try:
        return _trained(server, evaluator, candidate, parameters, seed, limits, mapped=True)
    except MappingError:
        return _trained(server, evaluator, candidate, parameters, seed, limits, mapped=False)


def _trained(
    server: OracleServer,
    evaluator: Evaluator,
    candidate: Candidate,
    parameters: tuple[str, ...],
    seed: int,
    limits: Limits | None,
    mapped: bool,
) -> TrialReport:
    """Raises as `run_trial`, and MappingError."""
    with LossOracle(server, candidate, evaluator.contract, parameters, limits, mapped=mapped) as oracle:
        with plugin_border(evaluator, f"run with seed {seed}"):
            report = checked_report(evaluator, evaluator.run(oracle, seed), seed)
        oracle.replay()
    return replace(report, sandbox=server.cage)
