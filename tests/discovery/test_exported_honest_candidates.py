"""Every format on candidates as language models write them: what comes out computes the same, to the last bit."""

from __future__ import annotations

import pytest

from discovery.exporters.python import PythonExporter
from discovery.exporters.testing import dossier
from discovery.exporters.torch_module import TorchExporter
from discovery.exporters.trl import TrlExporter
from discovery.exporting import Typed, make_export
from evaluators.preference.contract import PAIRS
from sandbox.check import check_candidate
from sandbox.server import OracleServer
from tests.support.honest import HONEST


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


@pytest.fixture(scope="module")
def accepted(server) -> set[str]:
    """Those that pass the probe too."""
    probes = {n: check_candidate(server, candidate, PAIRS)[1] for n, candidate in HONEST.items()}
    found = {n for n, probe in probes.items() if probe is not None and probe.accepted}
    assert len(found) > 0.8 * len(HONEST)
    return found


@pytest.mark.parametrize("name", HONEST)
def test_it_exports_and_verifies(name, server, accepted):
    if name not in accepted:
        pytest.skip("does not pass the probe")
    for exporter in (PythonExporter(), TorchExporter(), TrlExporter()):
        assert make_export(exporter, dossier(source=HONEST[name].source), Typed(), server).compared
