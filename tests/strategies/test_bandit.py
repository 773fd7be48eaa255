"""Bandits against the rules computed by NumPy."""

import jax
import numpy as np
import pytest
from toy_space import told, toy

from jnas.run.loop import run
from jnas.strategies.bandit import bandit
from jnas.strategies.settings.learning import Bandit

SPACE = toy(3, 2)
KEY = jax.random.key(2)
WORTH = np.random.default_rng(4).normal(size=(3, 2)) + np.array([0, 0.7, 0])[:, None]


@pytest.mark.parametrize(("rule", "exploration"), [("ucb1", 0.5), ("epsilon_greedy", 0.0)])
def test_a_choice_has_the_largest_bound(rule, exploration):
    own = bandit(SPACE, Bandit(rule=rule, exploration=exploration, epsilon=0, initial=6), 1, 40)
    rows, values = [], []

    def evaluate(number, candidates):
        row = np.asarray(candidates.architectures)[0]
        if number >= 6:
            low, high = min(values), max(values)
            for decision, choices in enumerate(SPACE.decisions):
                drawn = np.array(rows)[:, decision]
                n = np.array([(drawn == k).sum() for k in range(choices)])
                total = np.array(
                    [
                        sum(v - low for v, k in zip(values, drawn, strict=True) if k == a)
                        for a in range(choices)
                    ]
                )
                bound = total / ((high - low) * np.maximum(n, 1))
                if rule == "ucb1":
                    bound = np.where(
                        n, bound + exploration * np.sqrt(2 * np.log(len(rows)) / np.maximum(n, 1)), np.inf
                    )
                assert bound[row[decision]] == pytest.approx(bound.max(), abs=1e-4)
        rows.append(row)
        values.append(WORTH[tuple(row)])
        return told(values[-1])

    state = run(own, evaluate, KEY, budget=40).state
    assert len(rows) == 40 and np.asarray(state.drawn).sum(axis=1).tolist() == [40, 40]
    assert np.array_equal(state.drawn, state.sums.told)


def test_epsilon_is_the_share_of_random_choices():
    space = toy(5)
    own = bandit(space, Bandit(rule="epsilon_greedy", epsilon=0.3, initial=0, batch=400), 1, 800)
    state = own.init(KEY)
    candidates, state = own.ask(KEY, state)
    state, _ = own.tell(state, candidates, told(*(np.asarray(candidates.architectures)[:, 0] == 3)))
    drawn = np.asarray(own.ask(jax.random.key(3), state)[0].architectures)[:, 0]
    # The best arm, and a fifth of the random draws; four standard deviations.
    assert abs((drawn == 3).mean() - 0.76) < 4 * np.sqrt(0.76 * 0.24 / 400)


def test_a_batch_spreads_over_arms():
    own = bandit(toy(5), Bandit(initial=0, batch=5), 1, 10)
    drawn = own.ask(KEY, own.init(KEY))[0].architectures
    assert sorted(np.asarray(drawn)[:, 0].tolist()) == [0, 1, 2, 3, 4]
