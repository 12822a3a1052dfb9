"""What the probe measures of each known objective, kept beside the objectives.

Measuring takes a child for each of them; a listing should not wait for that, and should work where no child can run. A test
measures again and compares. After a change: ``python -m evaluators measure``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.objectives import known_folder, known_objectives
from sandbox.contract import Conditions, Contract
from sandbox.failure import CandidateError, Failure, FailureKind
from sandbox.reports import Properties

if TYPE_CHECKING:
    from sandbox.server import OracleServer

_FILE = "properties.json"
# Where the probe measures, the same each time: whether a loss that couples its batch ever rises with a margin shows at some
# draws and not at others (`aqfl`: at 5 of 16), and these are of those that show it.
_CONDITIONS = Conditions(seed=1)


def properties_file(contract: str) -> Path:
    """Where the measured properties of a contract's objectives are kept."""
    return known_folder(contract) / _FILE


@cache
def measured_properties(contract: str) -> dict[str, Properties]:
    """Properties by objective, as they were measured last."""
    found = json.loads(properties_file(contract).read_text(encoding="utf-8"))
    return {
        name: Properties(**{**values, "inputs_with_gradient": tuple(values["inputs_with_gradient"])})
        for name, values in found.items()
    }


def measure_properties(server: OracleServer, contract: Contract) -> dict[str, Properties]:
    """Measure all of them now.

    Raises:
        CandidateError: gate or probe refuse one. InfrastructureError: ours.
    """
    from sandbox.check import check_candidate, refusal

    found = {}
    for name, objective in known_objectives(contract.name).items():
        gate, report = check_candidate(server, objective.candidate, contract, conditions=_CONDITIONS)
        failure = refusal(gate, report)
        if failure is not None or report is None or report.properties is None:
            raise CandidateError(failure or Failure(FailureKind.CONTRACT, f"{name} has no properties"))
        found[name] = report.properties
    return found


def write_properties(contract: str, found: dict[str, Properties]) -> None:
    """Keep what was measured."""
    text = json.dumps({name: asdict(p) for name, p in sorted(found.items())}, indent=1, allow_nan=False)
    properties_file(contract).write_text(text + "\n", encoding="utf-8")
