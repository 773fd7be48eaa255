"""Edits by a bidirectional LSTM: probabilities, the gradient against enumeration, and where they lead."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import told, toy

from jnas.run.loop import run
from jnas.spaces.subset import subset
from jnas.strategies.editing import editing, episode, initial, policy
from jnas.strategies.settings.learning import Editing

SPACE = toy(3, 2, 3)
KEY = jax.random.key(4)
PARAMS = jax.tree.map(lambda leaf: 20 * leaf, initial(KEY, SPACE.offered, 3, 4))
REWARD = np.random.default_rng(1).normal(size=SPACE.size).astype(np.float32)
START = np.array([1, 0, 2], np.int32)
SMALL = {"units": 4, "embedding": 3, "entropy": 0.0, "batch": 4}
# All pairs of edits from the start.
EDITS = [(d, k) for d, count in enumerate(SPACE.decisions) for k in range(count)]
PAIRS = np.array(
    [
        pair
        for pair in itertools.product(EDITS, EDITS)
        if START[pair[0][0]] != pair[0][1]
        and (pair[0][1] if pair[1][0] == pair[0][0] else START[pair[1][0]]) != pair[1][1]
    ],
    np.int32,
)


def walk(params, actions):
    return episode(params, SPACE.offered, START, lambda log_pi, action: action, actions)


def test_probabilities_of_edits_sum_to_one_and_draws_follow_them():
    log_pi = np.asarray(jax.jit(lambda: policy(PARAMS, SPACE.offered, START))())
    possible = SPACE.offered & (np.arange(3) != START[:, None])
    assert np.array_equal(np.isfinite(log_pi), possible)
    assert np.exp(log_pi).sum() == pytest.approx(1, rel=1e-5)
    own = editing(SPACE, Editing(**SMALL | {"batch": 4000, "edits": 1}), 1, 5000)
    state = own.init(KEY)._replace(params=PARAMS)
    state = state._replace(archive=state.archive._replace(
        architectures=state.archive.architectures.at[0].set(START), values=state.archive.values.at[0].set(1.0),
        told=jnp.int32(1),
    ))  # fmt: skip
    asked, after = jax.jit(own.ask)(jax.random.key(6), state)
    decisions, choices = np.asarray(after.actions)[:, 0].T
    shares = np.zeros(log_pi.shape)
    np.add.at(shares, (decisions, choices), 1 / 4000)
    assert (abs(shares - np.exp(log_pi)) <= 5 * np.sqrt(np.exp(log_pi) / 4000)).all()
    rows = np.asarray(asked.architectures)
    assert (rows[np.arange(4000), decisions] == choices).all() and ((rows != START).sum(1) == 1).all()
    assert (np.asarray(asked.parent) == 0).all()


def test_the_gradient_over_all_episodes_is_that_of_the_mean_reward():
    def parts(params):
        ends, _, log_pi, _ = jax.vmap(lambda actions: walk(params, actions))(PAIRS)
        return log_pi.sum(axis=1), jnp.asarray(REWARD)[SPACE.index(ends)]

    def exact(params):
        log_pi, reward = parts(params)
        return (jnp.exp(log_pi) * reward).sum()

    def sampled(params):
        log_pi, reward = parts(params)
        return (jnp.exp(jax.lax.stop_gradient(log_pi)) * (reward - 0.4) * log_pi).sum()

    total, first, second = jax.jit(
        lambda: (jnp.exp(parts(PARAMS)[0]).sum(), jax.grad(exact)(PARAMS), jax.grad(sampled)(PARAMS))
    )()
    assert float(total) == pytest.approx(1, rel=1e-5)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)
    assert abs(np.asarray(first["position"])).max() > 1e-2


def test_a_constant_reward_or_a_failure_moves_nothing():
    own = editing(SPACE, Editing(**SMALL), 1, 60)
    ask, tell = jax.jit(own.ask), jax.jit(own.tell)
    start = state = own.init(KEY)
    for number, values in enumerate([[3.0] * 4, [3.0, -np.inf, 3.0, 3.0], [-np.inf] * 4]):
        asked, state = ask(jax.random.key(number), state)
        state, _ = tell(state, asked, told(*values))
    assert all(map(np.array_equal, jax.tree.leaves(state.params), jax.tree.leaves(start.params)))
    state, _ = tell(state, asked, told(1.0, 2.0, 3.0, 4.0))
    assert not np.array_equal(state.params["position"], start.params["position"])


def test_every_batch_begins_with_the_best_and_leads_to_the_goal():
    own = editing(SPACE, Editing(edits=1, units=8, learning_rate=0.03, batch=10), 1, 600)
    goal = np.array([2, 1, 0])
    result = run(own, lambda number, c: told(*(np.asarray(c.architectures) == goal).sum(1)), KEY, budget=600)
    assert result.best.tolist() == goal.tolist()
    assert np.asarray(result.state.start).tolist() == goal.tolist()


def test_in_a_restricted_space_members_alone_are_asked_for():
    inside = np.random.default_rng(3).random(SPACE.size) < 0.4
    own = editing(subset(SPACE, inside), Editing(**SMALL), 1, 60)
    state, ask = own.init(KEY), jax.jit(own.ask)
    for number in range(5):
        asked, state = ask(jax.random.key(number), state)
        assert inside[np.asarray(SPACE.index(asked.architectures))].all()
        state, _ = own.tell(state, asked, told(*range(4)))
