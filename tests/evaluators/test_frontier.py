import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.preference.frontier import upper_concave_hull, value_at

POINTS = st.lists(st.tuples(st.floats(0, 10), st.floats(-5, 5)), max_size=12)


def test_points_under_the_hull_are_dropped():
    hull = upper_concave_hull([(1.0, 1.0), (2.0, 1.2), (3.0, 2.0), (4.0, 1.0)])
    np.testing.assert_array_equal(hull, [(0, 0), (1, 1), (3, 2)])
    np.testing.assert_allclose(value_at(hull, [0.0, 0.5, 2.0, 3.0, 9.0]), [0, 0.5, 1.5, 2, 2])


def test_policies_worse_than_the_reference_leave_the_reference():
    hull = upper_concave_hull([(1.0, -1.0), (2.0, -3.0)])
    np.testing.assert_array_equal(hull, [(0, 0)])
    assert value_at(hull, 5.0) == 0.0


def test_collinear_and_equal_points_appear_once():
    hull = upper_concave_hull([(2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (2.0, 1.0)])
    np.testing.assert_array_equal(hull, [(0, 0), (2, 2)])


def test_no_points_is_the_reference_alone():
    np.testing.assert_array_equal(upper_concave_hull([]), [(0, 0)])


@pytest.mark.parametrize("bad", [[(-0.1, 1.0)], [(1.0, float("nan"))], [(1.0, 2.0, 3.0)]])
def test_bad_points_are_refused(bad):
    with pytest.raises(ValueError, match="points must"):
        upper_concave_hull(bad)


@given(POINTS)
def test_hull_is_concave_rising_and_above_every_point(points):
    hull = upper_concave_hull(points)
    steps = np.diff(hull, axis=0)
    assert (steps > 0).all()
    # slopes fall; compared by cross product so that steep ones lose no precision
    assert (steps[1:, 1] * steps[:-1, 0] < steps[:-1, 1] * steps[1:, 0] + 1e-12).all()
    for kl, reward in points:
        assert value_at(hull, kl) >= reward - 1e-9
