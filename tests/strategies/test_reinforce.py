"""REINFORCE: an unbiased gradient, its baselines, and where it leads."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import told, toy

from jnas.run.loop import run
from jnas.strategies.reinforce import reinforce, surrogate
from jnas.strategies.settings.learning import Reinforce
from jnas.types import Candidates

SPACE = toy(3, 2)
KEY = jax.random.key(5)


def strategy(budget=50, **settings):
    return reinforce(SPACE, Reinforce(**settings), 1, budget)


def state_of(own, key=KEY):
    state = own.init(key)
    noise = np.random.default_rng(0).normal(size=state.logits.shape)
    return state._replace(logits=state.logits + noise.astype(np.float32))


def test_the_gradient_over_all_architectures_is_that_of_the_mean_reward():
    logits = state_of(strategy()).logits
    every = np.array(list(itertools.product(range(3), range(2))), np.int32)
    reward = np.random.default_rng(1).normal(size=len(every)).astype(np.float32)

    def chances(logits):
        pi = jax.nn.softmax(logits)
        return pi[0, every[:, 0]] * pi[1, every[:, 1]]

    @jax.jit
    def both(logits):
        exact = jax.grad(lambda logits: -(chances(logits) * reward).sum())(logits)
        # Any baseline that does not know the draw leaves the mean of the estimates as it is.
        estimates = jax.vmap(lambda row, r: jax.grad(surrogate)(logits, row[None], r[None] - 0.7))(
            every, reward
        )
        return exact, jnp.einsum("i,idk->dk", chances(logits), estimates), chances(logits).sum()

    exact, mean, total = both(logits)
    assert total == pytest.approx(1)
    np.testing.assert_allclose(mean, exact, atol=1e-6)
    # The second decision has two choices.
    assert exact[1, 2] == 0 and abs(exact[:, :2]).min() > 1e-3


@pytest.mark.parametrize("baseline", ["before", "after"])
def test_a_constant_reward_moves_nothing(baseline):
    own = strategy(baseline=baseline, batch=3)
    state = start = own.init(KEY)
    for number in range(6):
        candidates, state = own.ask(jax.random.key(number), state)
        state, _ = own.tell(state, candidates, told(90.1, 90.1, 90.1))
    assert np.array_equal(state.logits, start.logits)


def test_a_step_goes_along_the_advantage_of_its_baseline():
    """Of Adam's second step, which is that of its first gradient that is not zero."""
    row, rewards = np.array([[1, 0]], np.int32), (10.0, 20.0)
    for baseline, advantage in {"before": 10.0, "after": 20 - (0.09 * 10 + 0.1 * 20) / 0.19}.items():
        own = strategy(baseline=baseline)
        state = start = state_of(own)
        for reward in rewards:
            state, _ = own.tell(state, Candidates(row), told(reward))
        pi = np.asarray(jax.nn.softmax(start.logits))
        gradient = -advantage * (np.eye(3)[row[0]] - pi)
        mean = np.asarray(state.optimiser[0].mu)
        np.testing.assert_allclose(mean, 0.1 * gradient, rtol=1e-4)
        assert (np.asarray(state.logits - start.logits)[[0, 1], row[0]] > 0).all()


def test_a_failure_moves_nothing_and_a_failure_beside_others_only_them():
    own = strategy(batch=2)
    state = own.init(KEY)
    rows = np.array([[0, 1], [2, 0]], np.int32)
    state, _ = own.tell(state, Candidates(rows), told(3, 4))
    after, _ = own.tell(state, Candidates(rows), told(-np.inf, np.nan))
    assert all(map(np.array_equal, jax.tree.leaves(after[1:]), jax.tree.leaves(state[1:])))
    after, _ = own.tell(state, Candidates(rows), told(-np.inf, 9))
    assert not np.array_equal(after.logits, state.logits) and np.isfinite(after.logits[SPACE.offered]).all()


def test_of_two_arms_the_better_one_gets_all():
    space = toy(2)
    own = reinforce(space, Reinforce(learning_rate=0.1), 1, 200)
    result = run(own, lambda number, c: told(*np.asarray(c.architectures)[:, 0]), KEY, budget=200)
    assert jax.nn.softmax(result.state.logits)[0, 1] > 0.95 and result.best.tolist() == [1]
