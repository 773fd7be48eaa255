"""NSGA-II against its selection by hand."""

import jax
import numpy as np
from brute_pareto import brute_crowding, brute_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from toy_space import toy

from jnas.strategies.nsga2 import nsga2
from jnas.strategies.settings.evolution import Nsga2
from jnas.types import Candidates, Values

SPACE = toy(4, 3)
SIZE, BATCH, ROUNDS = 5, 4, 3
BUDGET = BATCH * ROUNDS
OWN = nsga2(SPACE, Nsga2(population=SIZE, batch=BATCH), 2, BUDGET)
tell, ask = jax.jit(OWN.tell), jax.jit(OWN.ask)
LEVELS = st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 4.0])


@settings(max_examples=80, deadline=None)
@given(
    arrays.arrays(np.float32, (BUDGET, 2), elements=LEVELS),
    arrays.arrays(np.int32, BUDGET, elements=st.integers(0, SPACE.size - 1)),
)
def test_members_are_the_best_of_parents_and_children(values, numbers):
    rows = SPACE.all()[numbers]
    state, members = OWN.init(jax.random.key(0)), []
    for start in range(0, BUDGET, BATCH):
        part = slice(start, start + BATCH)
        status = np.zeros((BATCH, 2), np.int8)
        state, _ = tell(state, Candidates(rows[part]), Values(values[part], status, np.zeros(BATCH)))
        pool = []
        for place in [*members, *range(start, start + BATCH)]:
            copy = any((rows[place] == rows[other]).all() for other in pool)
            if np.isfinite(values[place]).all() and not copy:
                pool.append(place)
        rank = brute_ranks(values[pool])
        keys = list(zip(rank.tolist(), (-brute_crowding(values[pool], rank)).tolist(), strict=True))
        got = [int(place) for place in state.members if place >= 0]
        assert set(got) <= set(pool) and len(set(got)) == len(got) == min(SIZE, len(pool))
        # Of equals any may stay.
        expected = sorted(keys)[:SIZE]
        np.testing.assert_allclose([keys[pool.index(place)] for place in got], expected, rtol=1e-5)
        members = got


def test_the_better_of_two_random_members_is_a_parent():
    """Without crossover children are mutants of members, in the shares of a binary tournament."""
    own = nsga2(toy(5, 5, 5, 5), Nsga2(population=3, batch=3000, crossover=0.0), 1, 3003)
    state = own.init(jax.random.key(0))
    rows = np.array([[0, 0, 0, 0], [2, 2, 2, 2], [4, 4, 4, 4]], np.int32)
    values = Values(np.array([[1.0], [3.0], [2.0]]), np.zeros((3, 1), np.int8), np.zeros(3))
    state, _ = own.tell(state, Candidates(rows), values)
    assert state.members.tolist() == [1, 2, 0]
    children = np.asarray(own.ask(jax.random.key(1), state)[0].architectures)
    away = (children[:, None] != rows[np.asarray(state.members)]).sum(-1)
    assert (away.min(axis=1) == 1).all()
    shares = np.bincount(away.argmin(axis=1), minlength=3) / len(children)
    np.testing.assert_allclose(shares, [5 / 9, 3 / 9, 1 / 9], atol=0.04)
