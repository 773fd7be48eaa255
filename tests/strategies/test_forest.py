"""The forest's parts by their definitions, and a search that beats blind draws."""

import jax
import numpy as np

from jnas import spaces
from jnas.run.loop import run
from jnas.strategies import observations
from jnas.strategies.forest import FLOOR, climb, forest, one_hot, predict
from jnas.strategies.settings.bayesian import Forest
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
GOAL = np.array([3, 1, 3, 3, 2, 3])


def agreement(rows):
    return (rows == GOAL).sum(axis=-1).astype(float)


def neighbours(rows):
    return np.stack([np.asarray(SPACE.neighbours(row)) for row in rows])


def test_one_hot_is_that_of_the_space():
    rows = np.asarray(SPACE.sample(jax.random.key(0), 9))
    np.testing.assert_array_equal(one_hot(SPACE, rows), SPACE.one_hot(rows))


def test_mean_and_deviation_are_over_the_trees():
    from sklearn.ensemble import RandomForestRegressor

    features = np.random.default_rng(0).random((30, 4), np.float32)
    model = RandomForestRegressor(5, random_state=0).fit(features, features.sum(1))
    mean, deviation = predict(model, features)
    np.testing.assert_allclose(mean, model.predict(features))
    trees = np.array([tree.predict(features) for tree in model.estimators_])
    np.testing.assert_allclose(deviation**2, ((trees - mean) ** 2).mean(0) + FLOOR)


def test_local_search_ends_on_a_summit_and_walks_a_plateau_for_ten_steps():
    starts = np.asarray(SPACE.sample(jax.random.key(1), 3))
    visited, gains = climb(starts, agreement, neighbours)
    np.testing.assert_array_equal(gains, agreement(visited))
    # One step for each edge that differs; no neighbour of the goal is as good.
    assert len(visited) == 3 + sum(6 - agreement(starts)) and gains.max() == 6
    visited, _ = climb(starts[:1], lambda rows: np.zeros(len(rows)), neighbours)
    assert len(visited) == 1 + 10


def test_a_used_up_space_gives_what_is_left_and_batches_are_different():
    graph = SPACE.graphs[0].restricted([(1,), (1, 3), (1,), (1, 3), (1,), (1,)])
    space = spaces.Space("four", (graph,))
    strategy = forest(space, Forest(batch=3, initial=3, candidates=8), 1)
    state, rows, sizes = strategy.init(jax.random.key(0)), set(), []
    for number in range(3):
        asked, state = strategy.ask(jax.random.key(number), state)
        sizes.append(len(asked.architectures))
        rows |= {tuple(row) for row in asked.architectures.tolist()}
        values = np.arange(float(sizes[-1]))[:, None]
        state, _ = strategy.tell(state, asked, Values(values, values > 9, values[:, 0]))
    assert sizes == [3, 1, 0] and len(rows) == 4


def test_it_beats_blind_draws():
    def evaluate(number, candidates):
        values = agreement(np.asarray(candidates.architectures))[:, None]
        return Values(values, np.zeros(values.shape, np.int8), values[:, 0])

    strategy = forest(SPACE, Forest(batch=5, candidates=100), 1)
    reached = [run(strategy, evaluate, jax.random.key(seed), budget=50).best for seed in range(3)]
    # The best of 50 blind draws agrees on 3.7 edges.
    assert np.mean([agreement(best) for best in reached]) >= 5


def test_failures_have_the_worst_finite_value():
    rows = np.asarray(SPACE.sample(jax.random.key(0), 4))
    values = np.array([[1.0], [-np.inf], [3.0], [np.nan]])
    state = observations.add(
        observations.nothing(SPACE, 1), Candidates(rows), Values(values, values > 9, values[:, 0])
    )
    np.testing.assert_allclose(observations.standardised(state), [-1, -1, 1, -1])
    assert observations.best(state).tolist() == rows[2].tolist()
