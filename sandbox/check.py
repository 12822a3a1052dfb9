"""Gate and probe in one step: everything that is known about a candidate before training."""

from __future__ import annotations

from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract
from sandbox.failure import Failure, FailureKind
from sandbox.gate import check_source
from sandbox.limits import Limits
from sandbox.probe import probe
from sandbox.reports import GateReport, ProbeReport
from sandbox.server import OracleServer


def check_candidate(
    server: OracleServer,
    candidate: Candidate,
    contract: Contract,
    limits: Limits | None = None,
    conditions: Conditions | None = None,
) -> tuple[GateReport, ProbeReport | None]:
    """Run the gate, then the probe if the gate accepts (None otherwise). `conditions` are those of the training.

    Raises:
        InfrastructureError: the probe could not be run; the candidate has not been judged.
    """
    gate = check_source(candidate, contract)
    if not gate.accepted:
        return gate, None
    return gate, probe(server, candidate, contract, gate.parameters, limits, conditions)


def refusal(gate: GateReport, report: ProbeReport | None) -> Failure | None:
    """The failure to record for these reports; None if the candidate may be trained."""
    if not gate.accepted:
        return Failure(FailureKind.STATIC, "\n".join(str(v) for v in gate.violations))
    return report.failure if report is not None else None
