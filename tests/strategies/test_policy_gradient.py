"""A policy of an LSTM: its probabilities, an unbiased gradient, PPO's clipping, and where it leads."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import told, toy

from jnas.run.loop import run
from jnas.strategies.policy_gradient import clipped, initial, log_probabilities, policy_gradient
from jnas.strategies.settings.learning import PolicyGradient
from jnas.types import Candidates

SPACE = toy(3, 2, 3)
KEY = jax.random.key(4)
EVERY = np.array(list(itertools.product(*map(range, SPACE.decisions))), np.int32)
REWARD = np.random.default_rng(1).normal(size=len(EVERY)).astype(np.float32)
# Large enough for probabilities that are far from equal.
PARAMS = jax.tree.map(lambda leaf: 20 * leaf, initial(KEY, SPACE.offered, 2, 4))
SMALL = {"units": 4, "entropy": 0.0, "batch": 3}


def strategy(budget=60, **settings):
    return policy_gradient(SPACE, PolicyGradient(**SMALL | settings), 1, budget)


def test_probabilities_sum_to_one_and_draws_follow_them():
    own = strategy(batch=4000, layers=2)
    state = own.init(KEY)._replace(params=PARAMS)
    log_pi, entropy = jax.jit(lambda: log_probabilities(PARAMS, SPACE.offered, EVERY))()
    chances = np.exp(np.asarray(log_pi).sum(axis=1))
    assert chances.sum() == pytest.approx(1, rel=1e-5) and chances.max() > 3 * chances.min()
    drawn = np.asarray(jax.jit(own.ask)(jax.random.key(6), state)[0].architectures)
    shares = (drawn[:, None] == EVERY).all(axis=-1).mean(axis=0)
    assert (abs(shares - chances) < 5 * np.sqrt(chances / 4000)).all()
    # The entropy of a policy is the mean of the entropies on its way.
    assert (chances * np.asarray(entropy).sum(axis=1)).sum() == pytest.approx(
        -(chances * np.log(chances)).sum(), rel=1e-4
    )


def test_the_gradient_over_all_architectures_is_that_of_the_mean_reward():
    def log_pi(params):
        return log_probabilities(params, SPACE.offered, EVERY)[0]

    def exact(params):
        return (jnp.exp(log_pi(params).sum(axis=1)) * REWARD).sum()

    @jax.jit
    def gradients(params):
        old = jax.lax.stop_gradient(log_pi(params))
        chances = jnp.exp(old.sum(axis=1))
        advantages = REWARD - 0.4
        own = (
            lambda params: (chances * advantages * log_pi(params).sum(axis=1)).sum(),
            lambda params: (chances * clipped(log_pi(params), old, advantages, 0.2)).sum(),
        )
        return [jax.grad(objective)(params) for objective in (exact, *own)]

    first, *others = gradients(PARAMS)
    for other in others:
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    assert abs(np.asarray(first["head"][0])).max() > 1e-2 and not np.asarray(first["head"][0])[1, :, 2].any()


def test_where_a_ratio_is_clipped_the_gradient_is_zero():
    ratio = np.array([[0.7, 0.9, 1.1, 1.3]] * 2, np.float32)
    advantages = np.array([2.0, -2.0], np.float32)
    gradient = jax.grad(lambda log_pi: clipped(log_pi, np.zeros_like(ratio), advantages, 0.2).sum())(
        np.log(ratio)
    )
    # Beyond 1.2 with an advantage, below 0.8 with a disadvantage.
    expected = ratio * advantages[:, None] * np.array([[1, 1, 1, 0], [0, 1, 1, 1]])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", ["ppo", "reinforce"])
def test_a_constant_reward_or_a_failure_moves_nothing(loss):
    own = strategy(loss=loss)
    tell = jax.jit(own.tell)
    start = own.init(KEY)
    rows = Candidates(EVERY[:3])
    state, _ = tell(start, rows, told(90.1, 90.1, 90.1))
    state, _ = tell(state, rows, told(90.1, 90.1, -np.inf))
    assert all(map(np.array_equal, jax.tree.leaves(state.params), jax.tree.leaves(start.params)))
    state, _ = tell(state, rows, told(80, 90, 91))
    after, _ = tell(state, rows, told(-np.inf, -np.inf, -np.inf))
    assert all(map(np.array_equal, jax.tree.leaves(after[1:]), jax.tree.leaves(state[1:])))
    assert not np.array_equal(state.params["head"][0], start.params["head"][0])


@pytest.mark.parametrize("loss", ["ppo", "reinforce"])
def test_it_learns_choices_that_depend_on_the_choice_before(loss):
    space = toy(2, 2)
    settings = PolicyGradient(loss=loss, units=8, learning_rate=0.03, batch=10, updates=3)
    own = policy_gradient(space, settings, 1, 600)
    # The best is (1, 0), the second best (0, 1).
    worth = np.array([[0.0, 2.0], [3.0, 0.0]])
    result = run(own, lambda number, c: told(*worth[tuple(np.asarray(c.architectures).T)]), KEY, budget=600)
    best = log_probabilities(result.state.params, space.offered, np.array([[1, 0]], np.int32))[0]
    assert np.exp(np.asarray(best).sum()) > 0.9 and result.best.tolist() == [1, 0]
