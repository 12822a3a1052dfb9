"""Which known objectives a loss is nearest to, and what is known of the known ones."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.objectives import known_losses, known_objectives
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.failure import CandidateError
from sandbox.reports import ProbeReport, Properties

if TYPE_CHECKING:
    from sandbox.known import Nearest
    from sandbox.server import OracleServer


def nearest_known(
    server: OracleServer, contract: Contract, report: ProbeReport, limit: int = 3, cache_dir: Path | None = None
) -> Nearest:
    """The known objectives nearest to a probed loss: by fingerprint and by loss curve, each at its best scale.

    Args:
        report: of an accepted candidate. One read back from an archive has no curve; then only fingerprints are compared.
        limit: how many of each.

    Raises:
        ValueError: the report has no fingerprint, as the candidate failed.
        CandidateError, InfrastructureError: from the oracle, while known losses are measured.
    """
    if report.fingerprint is None:
        raise ValueError("a loss that failed its probe has no neighbours")
    return known_losses(server, contract, cache_dir).nearest(report.fingerprint, report.curve, limit)


def nearest_to(
    server: OracleServer, contract: Contract, candidate: Candidate, limit: int = 3, cache_dir: Path | None = None
) -> Nearest:
    """The same for a loss that has not been probed yet. Raises CandidateError if gate or probe refuse it."""
    from sandbox.check import check_candidate, refusal

    gate, report = check_candidate(server, candidate, contract)
    failure = refusal(gate, report)
    if failure is not None:
        raise CandidateError(failure)
    assert report is not None
    return nearest_known(server, contract, report, limit, cache_dir)


def known_properties(server: OracleServer, contract: Contract, cache_dir: Path | None = None) -> dict[str, Properties]:
    """What the probe measures of every known objective of a contract, by name.

    Some seconds the first time, then read from `cache_dir`, by default `default_cache_dir()`.

    Raises:
        CandidateError: a known objective does not pass its own checks.
        InfrastructureError: from the oracle.
    """
    from evaluators.base import default_cache_dir
    from evaluators.disk_cache import Stored, load_or_build
    from evaluators.options import OptionsError
    from sandbox.check import check_candidate, refusal

    known = known_objectives(contract.name)

    def build() -> Stored:
        found: dict[str, Any] = {}
        for name, objective in known.items():
            gate, report = check_candidate(server, objective.candidate, contract)
            failure = refusal(gate, report)
            if failure is not None:
                raise CandidateError(failure)
            assert report is not None
            assert report.properties is not None
            found[name] = dataclasses.asdict(report.properties)
        return {}, found

    folder = (cache_dir or default_cache_dir()) / "known_properties" / _key(contract)
    try:
        values = load_or_build(folder, build, lambda _: None)[1]
    except OptionsError:  # no writable cache
        values = build()[1]
    return {n: Properties(**{**v, "inputs_with_gradient": tuple(v["inputs_with_gradient"])}) for n, v in values.items()}


def _key(contract: Contract) -> str:
    """A hash of everything that the properties depend on."""
    import torch

    from sandbox import curve, draws, probe

    ids = [o.candidate.id for o in known_objectives(contract.name).values()]
    code = [Path(str(module.__file__)).read_bytes() for module in (curve, draws, probe)]
    return hashlib.sha256(b"\0".join([repr((torch.__version__, contract, ids)).encode(), *code])).hexdigest()[:32]
