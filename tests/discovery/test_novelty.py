"""The index of a campaign's fingerprints finds exactly what an exhaustive comparison finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.records import Proposal
from db.testing_values import proposal
from discovery.novelty import FingerprintIndex
from discovery.resume import conditions_of
from evaluators.preference.enumerable import EnumerableEvaluator
from sandbox.contract import Conditions
from sandbox.fingerprint import DUPLICATE_DISTANCE, distance
from sandbox.reports import Fingerprint

ROWS, VALUES = 3, 30


def prints(seed: int, count: int) -> list[Fingerprint]:
    """Random fingerprints; half of them are near or far copies of an earlier one, some have holes or empty rows."""
    random = np.random.default_rng(seed)
    made: list[np.ndarray] = []
    for _ in range(count):
        values = random.normal(size=(ROWS, VALUES)) * 10.0 ** random.integers(-3, 3, size=(ROWS, 1))
        if made and random.random() < 0.5:
            reach = random.choice([0.0, 0.5, 0.99, 1.01, 2.0])
            values = made[random.integers(len(made))].copy()
            row, column = random.integers(ROWS), random.integers(VALUES)
            values[row, column] += reach * DUPLICATE_DISTANCE * np.nanmax(np.abs(values[row]), initial=0.0)
        if random.random() < 0.2:
            values[random.integers(ROWS), random.integers(VALUES)] = np.nan
        if random.random() < 0.1:
            values[random.integers(ROWS)] = 0.0
        made.append(values)
    return [Fingerprint(tuple(map(tuple, values.tolist()))) for values in made]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_it_finds_what_an_exhaustive_search_finds(seed: int, count: int) -> None:
    index = FingerprintIndex()
    known: list[Fingerprint] = []
    for number, item in enumerate(prints(seed, count)):
        gaps = [distance(item, other) for other in known]
        nearest = min(range(len(gaps)), key=gaps.__getitem__, default=None)
        expected = str(nearest) if nearest is not None and gaps[nearest] < DUPLICATE_DISTANCE else None
        assert index.duplicate_of(item) == expected
        index.add(str(number), item)
        known.append(item)
    assert len(index) == count


def test_sizes_do_not_mix() -> None:
    index = FingerprintIndex()
    index.add("a", Fingerprint(((1.0, 2.0), (3.0, 4.0))))
    with pytest.raises(ValueError, match="different sizes"):
        index.add("b", Fingerprint(((1.0, 2.0, 3.0),)))


def test_fingerprints_under_other_conditions_are_passed_over() -> None:
    here, there = Conditions(1), Conditions(2)
    index = FingerprintIndex()
    index.add("old", Fingerprint(((1.0, 2.0, 3.0),)))
    index.add("here", Fingerprint(((1.0, 2.0),), here))
    assert len(index) == 2
    assert index.duplicate_of(Fingerprint(((1.0, 2.0),), here)) == "here"
    assert index.duplicate_of(Fingerprint(((1.0, 2.0),), there)) is None


def test_float32_has_fewer_digits() -> None:
    near = 1 + 2 * DUPLICATE_DISTANCE
    index = FingerprintIndex()
    index.add("double", Fingerprint(((0.5, 1.0, 0.1),)))
    assert index.duplicate_of(Fingerprint(((0.5, near, 0.1),))) is None
    assert index.duplicate_of(Fingerprint(((0.5, near, 0.1),), single=True)) == "double"


@dataclass
class _Stored:
    """An archive, as far as `conditions_of` reads it."""

    found: list[Proposal]

    def proposals(self, campaign: int) -> list[Proposal]:
        return self.found


def test_a_campaign_goes_on_under_its_own_conditions() -> None:
    evaluator = EnumerableEvaluator({"batch": 48, "betas": [0.1, 0.5]})
    fresh = conditions_of(_Stored([]), 1, evaluator)
    assert (fresh.batch, fresh.scales) == (48, (0.1, 0.5))
    assert fresh == conditions_of(_Stored([]), 1, evaluator)  # this machine's
    stored = proposal(0)
    assert stored.probe is not None
    assert stored.probe.fingerprint is not None
    assert conditions_of(_Stored([stored]), 1, evaluator) == stored.probe.fingerprint.conditions != fresh
    other = EnumerableEvaluator({"batch": 32, "betas": [0.1, 0.5]})
    assert (
        conditions_of(_Stored([stored]), 1, other).seed == fresh.seed
    )  # another campaign measured that candidate first


def test_an_evaluator_that_tells_nothing_is_compared_at_the_defaults() -> None:
    assert conditions_of(_Stored([]), 1, object()).batch == Conditions().batch
