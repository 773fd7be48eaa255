"""Q-learning: its update in plain Python, its schedule, and where it leads."""

import jax
import numpy as np
import pytest
from toy_space import told, toy

from jnas.run.loop import run
from jnas.strategies.q_learning import NETWORKS, epsilon, q_learning, replayed
from jnas.strategies.settings.learning import QLearning

KEY = jax.random.key(0)


def test_replays_are_the_updates_one_after_another():
    generator, rate = np.random.default_rng(0), 0.2
    rows = generator.integers(0, (3, 2, 3), (40, 3)).astype(np.int32)
    rewards = generator.random(40).astype(np.float32)
    q = np.where(np.arange(3) < np.array([3, 2, 3])[:, None, None], generator.random((3, 3, 3)), -np.inf)
    expected = q.copy()
    for decision in (2, 1, 0):
        for row, reward in zip(rows, rewards, strict=True):
            before = row[decision - 1] if decision else 0
            target = reward if decision == 2 else expected[decision + 1, row[decision]].max()
            old = expected[decision, before, row[decision]]
            expected[decision, before, row[decision]] = (1 - rate) * old + rate * target
    result = jax.jit(replayed, static_argnums=3)(q.astype(np.float32), rows, rewards, rate)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert not np.allclose(expected[0, 0], q[0, 0])


def test_an_update_by_hand():
    q = np.full((2, 2, 2), 0.5, np.float32)
    once = replayed(q, np.array([[1, 0]], np.int32), np.array([1.0], np.float32), 0.1)
    # The last decision goes to 1, the first to the larger of 0.55 and 0.5.
    assert once[1, 1, 0] == pytest.approx(0.55) and once[0, 0, 1] == pytest.approx(0.9 * 0.5 + 0.1 * 0.55)
    assert np.array_equal(
        np.asarray(once)[[0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 1, 1]], [0.5] * 6
    )


def test_the_schedule_is_that_of_the_paper_scaled_to_the_budget():
    whole = np.repeat(np.arange(10, 0, -1) / 10, NETWORKS)
    assert len(whole) == 2700
    np.testing.assert_allclose(epsilon(np.arange(2700), 2700), whole, rtol=1e-6)
    np.testing.assert_allclose(epsilon(np.arange(270), 270), whole[::10], rtol=1e-6)


def test_it_ends_with_choices_that_depend_on_the_choice_before():
    """An exclusive or: no decision has a better choice by itself."""
    space = toy(2, 2)
    own = q_learning(space, QLearning(rate=0.1), 1, 200)
    asked = []

    def evaluate(number, candidates):
        asked.append(np.asarray(candidates.architectures)[0])
        return told(80 + 5 * (asked[-1][0] != asked[-1][1]))

    state = run(own, evaluate, KEY, budget=200).state
    q = np.asarray(state.q)[:, :2, :2]
    assert q[1, 0].argmax() == 1 and q[1, 1].argmax() == 0
    first, last = (
        (rows[:, 0] != rows[:, 1]).mean() for rows in (np.array(asked[:100]), np.array(asked[-30:]))
    )
    assert first < 0.7 < 0.8 < last
