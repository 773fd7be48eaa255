"""Estimators made of estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas.estimators.wraps import feasible_first, mean, repeated, retried, weighted_product
from jnas.types import Candidates, Estimator, Values, with_status


def told(*rows):
    values = with_status(np.array(rows, np.float64), np.zeros(len(rows)))
    return Estimator(("accuracy", "latency"), lambda key, candidates: values)


def test_a_product_is_the_accuracy_at_the_target_and_less_where_it_takes_longer():
    own = told([90, -5], [90, -10], [90, -2.5], [-np.inf, -5], [90, -np.inf])
    candidates = Candidates(np.zeros((5, 1), np.int32))
    value, status, _ = weighted_product(own, target=5).evaluate(jax.random.key(0), candidates)
    assert np.asarray(value)[:3, 0] == pytest.approx([90, 90 * 2**-0.07, 90 * 0.5**-0.07])
    assert np.isneginf(value[3:]).all() and status[:, 0].tolist() == [0, 0, 0, 1, 1]
    hard = weighted_product(own, target=5, within=0, beyond=-1)
    assert hard.objectives == ("accuracy_latency",)
    value = np.asarray(hard.evaluate(jax.random.key(0), candidates).value)
    assert value[:3, 0] == pytest.approx([90, 45, 90])


ARCHITECTURES = Candidates(np.arange(4, dtype=np.int32)[:, None])


def noisy(key, candidates):
    """The architecture's number and its double, with noise of the key and the architecture."""
    rows = jnp.asarray(candidates.architectures)
    noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row[0])))(rows)
    value = jnp.stack([rows[:, 0] + noise, 2 * rows[:, 0] + noise], axis=1)
    return Values(value, jnp.zeros(value.shape, jnp.int8), jnp.ones(len(rows)))


NOISY = Estimator(("one", "two"), noisy, jittable=True)


def test_the_mean_of_repeats_is_told_and_all_are_paid_for():
    key = jax.random.key(5)
    averaged = mean(repeated(NOISY, 3))
    parts = [np.asarray(noisy(jax.random.fold_in(key, repeat), ARCHITECTURES).value) for repeat in range(3)]
    assert averaged.objectives == ("one", "two") and averaged.jittable
    for evaluate in (averaged.evaluate, jax.jit(averaged.evaluate)):
        value, status, cost = evaluate(key, ARCHITECTURES)
        np.testing.assert_allclose(value, np.mean(parts, axis=0), rtol=1e-5)
        assert not np.asarray(status).any() and (np.asarray(cost) == 3).all()
    # A thousand repeats leave a thirtieth of the noise.
    many = mean(repeated(NOISY._replace(evaluate=jax.jit(noisy)), 200)).evaluate(key, ARCHITECTURES).value
    assert np.abs(np.asarray(many)[:, 0] - np.arange(4)).max() < 4 / np.sqrt(200)


def test_one_failed_repeat_fails_the_mean_with_its_status():
    def fails(key, candidates):
        value, status, cost = map(np.asarray, noisy(key, candidates))
        bad = (
            jax.random.key_data(key) == jax.random.key_data(jax.random.fold_in(jax.random.key(0), 1))
        ).all()
        status = np.where(bad & (np.arange(4) == 2)[:, None] & np.ones(2, bool), 3, 0).astype(np.int8)
        return Values(np.where(status > 0, -np.inf, value.astype(np.float64)), status, cost)

    value, status, _ = mean(repeated(Estimator(("one", "two"), fails), 2)).evaluate(
        jax.random.key(0), ARCHITECTURES
    )
    assert value.dtype == np.float64 and np.isneginf(value[2]).all()
    assert status.tolist() == [[0, 0], [0, 0], [3, 3], [0, 0]]


def test_only_failures_are_tried_again():
    calls = []

    def fails(key, candidates):
        rows = np.asarray(candidates.architectures)[:, 0]
        calls.append(rows.tolist())
        # Architecture r fails at its first r tries.
        bad = rows >= len(calls)
        value = np.where(bad, -np.inf, 10.0 * len(calls))[:, None]
        return Values(value, (6 * bad).astype(np.int8)[:, None], np.ones(len(rows)))

    value, status, cost = retried(Estimator(("one",), fails), 3).evaluate(jax.random.key(0), ARCHITECTURES)
    assert calls == [[0, 1, 2, 3], [1, 2, 3], [2, 3]]
    assert value[:, 0].tolist() == [10, 20, 30, -np.inf] and status[:, 0].tolist() == [0, 0, 0, 6]
    assert cost.tolist() == [1, 2, 3, 3]
    calls.clear()
    assert retried(Estimator(("one",), fails), 1).evaluate(jax.random.key(0), ARCHITECTURES).cost.sum() == 4


def test_feasible_ones_come_first_and_the_others_by_their_violation():
    own = told([90, -5], [20, -4], [99, -5.5], [95, -9], [-np.inf, -1], [80, -np.inf])
    value, status, _ = feasible_first(own, limit=5).evaluate(jax.random.key(0), ARCHITECTURES)
    assert np.asarray(value)[:4, 0].tolist() == [90, 20, -0.5, -4] and np.isneginf(value[4:]).all()
    assert status[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
