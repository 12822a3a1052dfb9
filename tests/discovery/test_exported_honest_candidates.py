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


def exports_and_verifies(name: str, server: OracleServer) -> None:
    candidate = HONEST[name]
    probe = check_candidate(server, candidate, PAIRS)[1]
    if probe is None or not probe.accepted:
        pytest.skip("does not pass the probe")
    for exporter in (PythonExporter(), TorchExporter(), TrlExporter()):
        assert make_export(exporter, dossier(source=candidate.source), Typed(), server).compared


EVERY_FIFTH = sorted(HONEST)[::5]


@pytest.mark.parametrize("name", EVERY_FIFTH)
def test_it_exports_and_verifies(name, server):
    exports_and_verifies(name, server)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(HONEST) - set(EVERY_FIFTH)))
def test_all_of_them_do(name, server):
    exports_and_verifies(name, server)
