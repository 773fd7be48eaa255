"""No strategy of the family asks twice for an architecture until the space is used up, in every kind of space."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import spaces
from jnas.spaces.masks import masks
from jnas.spaces.subset import subset
from jnas.strategies import archive
from jnas.strategies.unseen import LISTED, mutants, shuffled, unseen
from jnas.types import Candidates, Values

NASBENCH = spaces.get("nasbench201")
SPACES = {"nasbench201": NASBENCH, "darts": spaces.get("darts"), "masks": masks("mask", 40)}


def codes(space, rows):
    return [tuple(row) for row in np.asarray(space.canonical(rows)).tolist()]


def told(space, rows, capacity, worth=None):
    values = np.zeros((len(rows), 1)) if worth is None else worth
    empty = archive.empty(capacity, len(space.decisions), 1)
    return archive.add(empty, Candidates(rows), Values(values, values > 9, values[:, 0]))


@pytest.mark.parametrize("name", SPACES)
def test_the_best_new_proposals_come_first_then_random_ones(name):
    space = SPACES[name]
    pool = unseen(space)
    assert (pool.listed is not None) == (space.size <= LISTED)
    rows = np.asarray(space.sample(jax.random.key(0), 12))
    assert len(set(codes(space, rows))) == 12
    state = told(space, rows[:4], 20)
    # Four that were told have the highest scores, one is there twice, one is no number and one none.
    proposals = jnp.asarray(rows[[0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9]])
    scores = jnp.array([9.0, 9, 9, 9, 1, 3, 2, 2.5, 0, jnp.nan, -jnp.inf])
    assert np.asarray(pool.new(state, proposals)).tolist() == [False] * 4 + [True] * 7
    asked = jax.jit(pool.choose, static_argnums=4)(jax.random.key(1), state, proposals, scores, 9)
    assert np.asarray(asked)[:4].tolist() == rows[[5, 6, 4, 7]].tolist()
    assert len(set(codes(space, asked)) - set(codes(space, rows[:4]))) == 9


def test_a_small_space_is_asked_for_to_its_last_architecture():
    graph = NASBENCH.graphs[0].restricted([(1,), (1, 3), (1, 2, 3), (1, 3), (1,), (1,)])
    space = spaces.Space("twelve", (graph,))
    pool = unseen(space)
    rows, state = [], archive.empty(16, 3, 1)
    none = jnp.zeros((1, 3), jnp.int32), jnp.full(1, -jnp.inf)
    for number in range(3):
        assert not pool.used_up(state)
        asked = pool.choose(jax.random.key(number), state, *none, 4)
        rows += codes(space, asked)
        state = archive.add(state, Candidates(asked), Values(jnp.zeros((4, 1)), None, None))
    assert len(set(rows)) == 12 and pool.used_up(state)
    # More are asked for than there are.
    assert len(pool.choose(jax.random.key(9), state, jnp.asarray(asked), jnp.zeros(4), 30)) == 12


def test_random_orders_put_every_place_first_equally_often_and_neighbours_apart():
    draws, count = 20_000, 8
    keys = jax.random.split(jax.random.key(0), draws)
    order = np.asarray(jax.jit(jax.vmap(lambda key: jnp.argsort(shuffled(key, count))))(keys))
    for column in range(count):
        shares = np.bincount(order[:, column], minlength=count) / draws
        np.testing.assert_allclose(shares, 1 / count, atol=4.5 * np.sqrt(1 / count / draws))
    # The place behind the first one is no likelier to be the second.
    following = (order[:, 1] - order[:, 0] == 1).mean()
    assert following == pytest.approx(1 / count, abs=4.5 * np.sqrt(1 / count / draws))


@pytest.mark.parametrize("listed", [True, False])
def test_equal_architectures_count_as_one_and_only_members_are_asked_for(listed):
    # Members that are no representatives of their class.
    everything = NASBENCH.all()
    representative = (np.asarray(NASBENCH.canonical(everything)) == everything).all(1)
    members = ~representative
    if listed:
        space = subset(NASBENCH, members)
    else:
        # A decision that changes nothing makes the space too large to list.
        wide = replace(
            NASBENCH.graphs[0],
            edges=(*NASBENCH.edges, (3, 4)),
            operations=NASBENCH.operations,
            allowed=(*NASBENCH.graphs[0].choices, (1, 3)),
        )
        larger = spaces.Space("larger", (wide,), canonical_form=lambda rows: _canonical(rows))
        assert larger.size > LISTED
        space = subset(larger, np.repeat(members, 2))
    pool = unseen(space)
    rows = np.asarray(space.sample(jax.random.key(0), 300), np.int32)
    _, first = np.unique(np.array(codes(space, rows)), axis=0, return_index=True)
    state = told(space, rows[:1], 8)
    asked = np.asarray(
        pool.choose(jax.random.key(1), state, jnp.asarray(rows), jnp.arange(300.0), min(60, len(first) - 1))
    )
    assert members[np.asarray(NASBENCH.index(asked[:, :6]))].all()
    assert len(set(codes(space, asked)) | set(codes(space, rows[:1]))) == len(asked) + 1
    # The proposal itself is asked for, and outsiders are not.
    assert {tuple(row) for row in asked.tolist()} <= {tuple(row) for row in rows.tolist()}
    outside = np.zeros((1, len(space.decisions)), np.int32)
    assert not pool.new(state, jnp.asarray(outside))[0] or listed


def _canonical(rows):
    rows = jnp.asarray(rows, jnp.int32)
    return jnp.concatenate([NASBENCH.canonical(rows[..., :6]), rows[..., 6:]], axis=-1)


def test_mutants_differ_in_one_to_three_decisions_from_the_best_that_did_not_fail():
    rows = np.array([[0] * 6, [1] * 6, [2] * 6, [3] * 6], np.int32)
    state = told(NASBENCH, rows, 9, np.array([[-np.inf], [1.0], [3.0], [2.0]]))
    drawn = np.asarray(mutants(jax.random.key(0), NASBENCH, state, 600, 2))
    from_best, from_second = ((drawn != row).sum(1) for row in rows[[2, 3]])
    changes = np.minimum(from_best, from_second)
    assert changes.min() == 0 or changes.min() == 1
    assert changes.max() == 3 and (from_best <= 3).mean() == pytest.approx(0.5, abs=0.1)
    # Second and third changes may fall on the first.
    assert (changes == 1).mean() == pytest.approx(0.25, abs=0.12)
