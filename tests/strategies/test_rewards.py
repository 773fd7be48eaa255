"""Rewards, their baseline and their range, against the same by NumPy."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jnas.proxies.combination import fitness
from jnas.strategies import archive
from jnas.strategies.rewards import NO_BASELINE, NO_RANGE, Sums, counted, means, moved, rewards, widened
from jnas.types import Candidates, Values

REWARDS = st.lists(st.sampled_from([0.25, 0.5, 2.0, 7.0, -np.inf]), min_size=8, max_size=8)
add, rewarded, follow, add_up = (
    jax.jit(archive.add),
    jax.jit(rewards, static_argnums=1),
    jax.jit(moved),
    jax.jit(counted),
)


@given(REWARDS, REWARDS, st.sampled_from([1, 2]))
def test_rewards_are_the_fitness_among_those_told(first, second, objectives):
    values = np.array([first, second]).T[:, :objectives]
    state = archive.empty(10, 1, objectives)
    for rows in np.split(values, 2):
        state = add(state, Candidates(np.zeros((4, 1), np.int32)), Values(rows, None, None))
    own = np.asarray(rewarded(state, 4))
    if objectives == 1:
        assert np.array_equal(own, values[4:, 0].astype(np.float32))
        return
    # A row with a failure is a failure in all objectives.
    among = np.where(np.isfinite(values).all(axis=1, keepdims=True), values, -np.inf)
    np.testing.assert_allclose(
        own, np.exp(fitness(among)[4:]) - np.where(np.isneginf(fitness(among)[4:]), np.inf, 0), rtol=1e-5
    )


@given(REWARDS)
def test_the_baseline_is_the_weighted_mean_of_good_rewards(values):
    baseline, numerator, denominator = NO_BASELINE, 0.0, 0.0
    for value in values:
        before = numerator / denominator if denominator else value
        baseline, advantages = follow(baseline, np.array([value], np.float32), 0.9)
        if np.isfinite(value):
            assert advantages[0] == pytest.approx(value - before, abs=1e-5)
            numerator, denominator = 0.9 * numerator + 0.1 * value, 0.9 * denominator + 0.1
            assert baseline.mean == pytest.approx(numerator / denominator, rel=1e-5)
        else:
            assert advantages[0] == 0
    assert baseline.weight == pytest.approx(denominator, rel=1e-5)


def test_a_batch_moves_the_baseline_by_its_mean():
    baseline, _ = follow(NO_BASELINE, np.array([-np.inf, 3, 5], np.float32), 0.9)
    assert baseline.mean == pytest.approx(4) and baseline.weight == pytest.approx(0.1)


@given(REWARDS)
def test_means_count_a_failure_as_the_lowest_reward(values):
    none = np.zeros(2, np.int32)
    sums, seen = Sums(none, none, np.zeros(2, np.float32)), NO_RANGE
    for value in values:
        reward = np.float32(value)
        # The place 2 is outside, and passed over.
        sums, seen = add_up(sums, (np.array([1, 2]),), reward), widened(seen, reward[None])
    good = np.array([value for value in values if np.isfinite(value)])
    low, high = (good.min(), good.max()) if len(good) else (0.0, 0.0)
    scaled = [(max(value, low) - low) / ((high - low) or 1) for value in values]
    np.testing.assert_allclose(means(sums, seen), [0, np.mean(scaled)], atol=1e-6)
    assert sums.told.tolist() == [0, 8] and sums.good.tolist() == [0, len(good)]
