"""The properties kept beside the known objectives are what the probe measures."""

import pytest

from evaluators.objectives import known_contract, known_families, known_objectives
from evaluators.properties import measure_properties, measured_properties
from sandbox.server import OracleServer


@pytest.mark.parametrize("contract", known_families())
def test_they_are_measured_again(contract):
    with OracleServer() as server:
        assert measure_properties(server, known_contract(contract)) == measured_properties(contract), (
            "run `python -m evaluators measure`"
        )


def test_what_is_known_of_some():
    found = measured_properties("preference.pairs")
    assert found.keys() == known_objectives("preference.pairs").keys()
    dpo, ipo, simpo, rdpo = (found[n] for n in ("dpo", "ipo", "simpo", "rdpo"))
    assert (dpo.monotone_decreasing, dpo.convex_in_margin, dpo.bounded_below, dpo.bounded_above) == (
        True,
        True,
        True,
        False,
    )
    assert (dpo.limit_at_plus_infinity, dpo.limit_at_minus_infinity) == ("0", "inf")
    assert (ipo.monotone_decreasing, ipo.convex_in_margin) == (False, True)
    assert simpo.uses_reference is False
    assert rdpo.bounded_below is False, "legitimately: its slope stays negative"
    assert found["kto_pair"].detached_parts
    assert found["kto_pair"].batch_coupled
    assert not found["lrml"].convex_in_margin
    assert not found["aqfl"].monotone_decreasing, "at some draws alone, so that they must be the same each time"
