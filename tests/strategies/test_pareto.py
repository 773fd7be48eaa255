"""Dominance, ranks, crowding and hypervolumes against brute force and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute_pareto import brute_crowding, brute_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jnas.errors import InputError
from jnas.strategies import pareto

COUNT = 9
# Few levels, so that there are ties and copies; -inf is a failure.
LEVELS = st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 5.0])
VALUES = st.integers(1, 3).flatmap(lambda p: arrays.arrays(np.float32, (COUNT, p), elements=LEVELS))
ranks, crowding, front, joined = map(jax.jit, (pareto.ranks, pareto.crowding, pareto.front, pareto.joined))


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_ranks_are_those_of_peeling_fronts_one_by_one(values):
    expected = brute_ranks(values)
    np.testing.assert_array_equal(ranks(values), expected)
    np.testing.assert_array_equal(front(values), expected == 0)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.integers(0, COUNT))
def test_a_front_that_grows_is_the_front_of_all(values, before):
    empty = np.full_like(values, -np.inf)
    known = np.where(np.arange(COUNT)[:, None] < before, values, empty)
    # What does not fit is passed over.
    places = np.where(np.arange(COUNT) < before, COUNT + 5, np.arange(COUNT))
    np.testing.assert_array_equal(joined(front(known), jnp.asarray(values), places), front(values))


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_crowding_is_the_sum_of_gaps_between_neighbours_of_the_same_front(values):
    rank = brute_ranks(values)
    expected = brute_crowding(values, rank)
    good = rank < COUNT
    np.testing.assert_allclose(np.asarray(crowding(values, rank))[good], expected[good], rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3).flatmap(lambda p: arrays.arrays(np.int64, (6, p), elements=st.integers(-1, 4))))
def test_hypervolume_counts_the_unit_cubes_below_values(values):
    cubes = np.stack(np.meshgrid(*[np.arange(4)] * values.shape[1], indexing="ij"), -1)
    inside = (values[:, None] > cubes.reshape(1, -1, values.shape[1])).all(-1).any(0)
    volume = pareto.hypervolume(values, np.zeros(values.shape[1]))
    assert volume == pytest.approx(inside.sum())
    # Moved together with its reference; several sets at once; without dominated values.
    both = np.stack([values + 3.0, values[::-1] + 3.0])
    np.testing.assert_allclose(pareto.hypervolume(both, np.full(values.shape[1], 3.0)), volume)
    efficient = np.asarray(front(values.astype(np.float32)))
    assert pareto.hypervolume(values[efficient], np.zeros(values.shape[1])) == pytest.approx(volume)


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_is_the_share_of_random_points_that_are_dominated(objectives):
    generator = np.random.default_rng(objectives)
    values, points = generator.random((12, objectives)), generator.random((40_000, objectives))
    share = (values[:, None] >= points).all(-1).any(0).mean()
    error = np.sqrt(share * (1 - share) / len(points))
    assert abs(pareto.hypervolume(values, np.zeros(objectives)) - share) < 4 * error


def test_a_failed_value_encloses_nothing_and_four_objectives_are_too_many():
    values = np.array([[1.0, 2.0], [-np.inf, 9.0], [np.inf, -np.inf]])
    assert pareto.hypervolume(values, np.zeros(2)) == 2
    with pytest.raises(InputError, match="2 or 3 objectives, not of 4"):
        pareto.hypervolume(np.ones((3, 4)), np.zeros(4))
