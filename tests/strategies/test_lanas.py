"""LaNAS: regions are a partition, visits are evaluations, regressions are scikit-learn's, walks follow the bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_space import told

from jnas import spaces
from jnas.run.loop import run
from jnas.strategies.lanas import LEAST, PENALTY, Tree, lanas, members, trained, walked
from jnas.strategies.settings.learning import Lanas

SPACE = spaces.get("nasbench201")
EVERY = SPACE.all()
GOAL = np.array([3, 1, 3, 3, 2, 3])
HEIGHT, TOLD = 4, 60
fitted = jax.jit(lambda rows, values, observed: trained(SPACE.one_hot(rows), values, observed, HEIGHT))
regions = jax.jit(lambda tree, rows: members(tree, SPACE.one_hot(rows)))


@pytest.fixture(scope="module")
def example():
    rows = np.asarray(SPACE.sample(jax.random.key(0), TOLD))
    values = ((rows == GOAL).sum(1) + np.random.default_rng(0).normal(size=TOLD)).astype(np.float32)
    observed = np.arange(TOLD) < 50
    return rows, values, observed, fitted(rows, values, observed)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_leaves_partition_the_space_and_children_their_node(seed):
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 5, (TOLD, 6)).astype(np.int32)
    tree = fitted(rows, generator.normal(size=TOLD).astype(np.float32), generator.random(TOLD) < 0.8)
    inside, split = np.asarray(regions(tree, EVERY)), np.asarray(tree.split)
    leaf = ~np.concatenate([split, np.zeros(len(split) + 1, bool)])
    assert inside[:, 0].all() and (inside[:, leaf].sum(1) == 1).all()
    for node in np.flatnonzero(split):
        children = inside[:, 2 * node + 1 : 2 * node + 3]
        assert (children.sum(1) == inside[:, node]).all() and children.any(0).all()
    for node in np.flatnonzero(~split):
        assert not inside[:, 2 * node + 1 : 2 * node + 3].any()


def test_a_node_is_the_ridge_regression_of_its_evaluations(example):
    from sklearn.linear_model import Ridge

    rows, values, observed, tree = example
    inside = np.asarray(regions(tree, rows)) & observed[:, None]
    assert (
        tree.split[0] and tree.split[1] and not tree.split[inside[:, : len(tree.split)].sum(0) < LEAST].any()
    )
    for node in np.flatnonzero(tree.split):
        own = inside[:, node]
        bits = np.asarray(SPACE.one_hot(rows))
        ridge = Ridge(alpha=PENALTY).fit(bits[own], values[own])
        np.testing.assert_allclose(tree.weights[node], ridge.coef_, atol=1e-4)
        # The mean prediction is the mean value.
        good = ridge.predict(bits) > values[own].mean()
        assert np.array_equal(inside[:, 2 * node + 1], own & good)


def test_a_walk_takes_the_highest_bound_and_enters_what_it_may():
    tree = Tree(jnp.zeros((3, 1)), jnp.zeros(3), jnp.array([True, True, False]))
    mean, visits = jnp.array([0.5, 0.4, 0.6, 0.7, 0.1, 0, 0]), jnp.array([20, 10, 10, 8, 2, 0, 0.0])
    every = jnp.ones(7, bool)
    walk = jax.jit(walked)
    assert walk(tree, mean, visits, every, 0.0) == 2
    assert walk(tree, mean, visits, every.at[2].set(False), 0.0) == 3
    # By hand: after node 1, 0.7 + c sqrt(2 log 10 / 8) and 0.1 + c sqrt(2 log 10 / 2), equal at c = 0.79.
    assert walk(tree, mean, visits, every.at[2].set(False), 0.75) == 3
    assert walk(tree, mean, visits, every.at[2].set(False), 0.83) == 4
    assert walk(tree, mean, visits, every.at[jnp.array([3, 4])].set(False).at[2].set(False), 1.0) == 1


def test_visits_sum_to_the_evaluations_and_the_mean_of_the_root_is_that_of_all(example):
    rows, values, _, tree = example
    inside = np.asarray(regions(tree, rows))
    leaf = ~np.concatenate([np.asarray(tree.split), np.zeros(len(tree.split) + 1, bool)])
    assert inside.sum(0)[leaf].sum() == inside.sum(0)[0] == TOLD
    assert (values @ inside)[leaf].sum() == pytest.approx(values.sum(), rel=1e-5)


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_it_asks_within_the_good_region_and_for_nothing_twice(name):
    space = spaces.get(name)
    goal = np.asarray(space.sample(jax.random.key(1), 1))[0]
    own = lanas(space, Lanas(initial=30, exploration=0.0, batch=10, candidates=300, height=3), 1, 120)
    asked = []

    def note(number, candidates):
        asked.append(np.asarray(candidates.architectures))
        return told(*(asked[-1] == goal).sum(1))

    run(own, note, jax.random.key(2), budget=120)
    rows = np.concatenate(asked)
    assert len(np.unique(np.asarray(space.canonical(rows)), axis=0)) == len(rows) == 120
    worth = (rows == goal).sum(1)
    assert worth[60:].mean() > worth[:30].mean() + 1
