"""What an archive keeps of a trial's arrays: little, what pages show, and all of it on request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from db.archive import Archive
from db.arrays import FEW, POINTS, kept_arrays, means_along, pack_arrays
from db.models import trial_arrays
from db.testing_values import TASK, proposal, report
from discovery.web.candidate import _curves_of, _steps
from evaluators.preference.enumerable.evaluator import EnumerableEvaluator
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.sentiment.evaluator import SentimentEvaluator
from evaluators.preference.sentiment.options import SentimentOptions

MOST = 18_000  # bytes of a trial
Arrays = dict[str, Any]


def enumerable() -> Arrays:
    """Arrays as `preference.enumerable` reports them by default, of random walks, which hardly compress."""
    walk = np.random.default_rng(0)
    o = EnumerableOptions()
    worlds, grid = len(o.used_regimes), (len(o.learning_rates), len(o.betas))
    checkpoints = np.arange(0, o.steps + 1, o.steps // 4)
    made: Arrays = {"worlds": np.array([r.name for r in o.used_regimes])}
    made |= {"betas": np.array(o.betas), "learning_rates": np.array(o.learning_rates)}
    for name in ("kl", "reward", "ranking_accuracy", "chosen_change", "rejected_change"):
        made[name] = walk.normal(size=(worlds, *grid, len(checkpoints))).cumsum(-1)
    for name in ("loss", "margin"):
        made[name] = walk.normal(size=(worlds, *grid, o.steps)).cumsum(-1).astype(np.float32)
    made |= {"checkpoints": checkpoints, "score": walk.normal(size=worlds)}
    assert made.keys() == EnumerableEvaluator.arrays_doc.keys()
    return made


def sentiment() -> Arrays:
    """The same of `preference.sentiment`."""
    walk = np.random.default_rng(1)
    o = SentimentOptions()
    made: Arrays = {}
    for name in SentimentEvaluator.arrays_doc:
        shape = (len(o.betas), o.steps) if name.startswith("curve") else (1 if name == "flipped" else len(o.betas),)
        made[name] = walk.normal(size=shape)
    return made


@pytest.mark.parametrize("reported", [enumerable, sentiment])
def test_a_trial_takes_little(reported: Any, tmp_path: Path) -> None:
    sizes = {}
    for all_arrays in (False, True):
        with Archive(tmp_path / f"{all_arrays}.db", create=True, all_arrays=all_arrays) as archive:
            campaign = archive.start_campaign("c", {}, task=TASK, metric="score", higher_is_better=True).id
            made = proposal(0)
            assert made.candidate is not None
            archive.record_known(campaign, made)
            trial = archive.ensure_trial(campaign, made.candidate.id, TASK.id, 0)
            archive.finish_trial(
                trial.id, archive.start_attempt(trial.id, "w"), replace(report(0, 0.5), arrays=reported())
            )
            with archive._read() as connection:
                (sizes[all_arrays],) = connection.execute(sa.select(sa.func.length(trial_arrays.c.data))).one()
            stored = archive.arrays(trial.id)
        if all_arrays:
            assert stored.keys() == reported().keys()
            assert all(np.array_equal(stored[name], values) for name, values in reported().items())
    assert sizes[False] < MOST
    assert sizes[False] < sizes[True]


def test_short_arrays_are_kept_to_the_last_bit() -> None:
    given = {"score": np.random.default_rng(0).normal(size=6), "worlds": np.array(["a", "b"]), "at_once": np.array(3.5)}
    kept = kept_arrays(given)
    assert all(kept[name].dtype == given[name].dtype and np.array_equal(kept[name], given[name]) for name in given)
    assert kept.keys() == given.keys()


def test_long_axes_are_thinned_and_say_where() -> None:
    kept = kept_arrays({"curve": np.arange(60.0).reshape(1, 60), "one": np.arange(500)})
    assert kept["curve"].dtype == np.float32
    assert len(kept["curve.at"]) == POINTS
    assert kept["curve"][0].tolist() == kept["curve.at"].tolist()  # the values are the places here
    assert (kept["one.at"][0], kept["one.at"][-1]) == (0, 499)


def test_of_many_curves_the_mean_and_the_end_are_kept() -> None:
    values = np.random.default_rng(0).normal(size=(6, 8, 21))
    values[0, 0, 3] = np.nan
    kept = kept_arrays({"kl": values})
    at = kept["kl.at"]
    assert kept.keys() == {"kl.at", "kl.mean", "kl.last"}
    assert values.size > FEW
    np.testing.assert_allclose(kept["kl.mean"], np.nanmean(values, (0, 1))[at], rtol=1e-5)
    np.testing.assert_array_equal(kept["kl.last"], values[..., -1].astype(np.float32))


@pytest.mark.parametrize("reported", [enumerable, sentiment])
def test_pages_show_the_same_curves_at_the_same_places(reported: Any) -> None:
    whole, few = reported(), kept_arrays(reported())
    shown, drawn = _curves_of(whole), _curves_of(few)
    assert shown.keys() == drawn.keys()
    for name, means in shown.items():
        x, y = _steps(whole, name, len(means)), _steps(few, name, len(drawn[name]))
        places = np.searchsorted(x, y)
        assert len(y) == min(POINTS, len(x))
        np.testing.assert_array_equal(x[places], y)
        np.testing.assert_allclose(drawn[name], means[places], rtol=1e-5)


def test_equal_arrays_give_equal_bytes() -> None:
    assert pack_arrays(kept_arrays(enumerable())) == pack_arrays(kept_arrays(enumerable()))


def test_means_leave_out_what_is_not_finite() -> None:
    values = np.array([[1.0, np.inf, np.nan], [3.0, 2.0, -np.inf]])
    np.testing.assert_array_equal(means_along(values), [2.0, 2.0, np.nan])
