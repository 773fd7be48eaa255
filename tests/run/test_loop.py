"""The loop on a table, by itself and many searches at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from installed import NAMES

from jnas import spaces
from jnas.estimators.compact_table import open_table
from jnas.estimators.tabular import known, on_space, tabular
from jnas.report.evaluations import incumbents
from jnas.run.loop import run, simulate
from jnas.spaces.subset import member, subset
from jnas.strategies import STRATEGIES
from jnas.types import STATUSES, Candidates

TABLE = open_table("digits")
SPACE = spaces.get("nasbench201")
KNOWN = known(TABLE)
MEMBERS = subset(SPACE, KNOWN)
ESTIMATOR = tabular(TABLE)
NUMBERS = np.cumprod((1, *SPACE.decisions[:0:-1]))[::-1]
JITTABLE = [name for name in NAMES if STRATEGIES[name]().make(SPACE, ("accuracy",), 10).jittable]


@pytest.mark.parametrize("name", JITTABLE)
def test_a_search_of_the_loop_is_one_of_many_simulated(name):
    settings = {"aging": {"population": 8, "tournament": 4}, "bananas": {"layers": 1}}.get(name, {})
    if "batch" in STRATEGIES[name].__struct_fields__:
        settings = settings | {"batch": 1}
    strategy = STRATEGIES[name](**settings).make(MEMBERS, ESTIMATOR.objectives, 30)
    keys = jax.random.split(jax.random.key(1), 3)
    asked, told, share = jax.device_get(simulate(keys, strategy=strategy, estimator=ESTIMATOR, rounds=30))
    assert asked.shape == (3, 30, 6) and told.shape == (3, 30, 1)
    for key, rows, values, shares in zip(keys, asked, told, share, strict=True):
        one = []

        def evaluate(number, candidates, key=key, one=one):
            one.append((candidates.architectures, ESTIMATOR.evaluate(key, candidates).value))
            return ESTIMATOR.evaluate(key, candidates)

        result = run(strategy, evaluate, key, budget=30)
        own_rows, own_values = (np.concatenate(parts) for parts in zip(*one, strict=True))
        # Training amplifies the rounding of a vectorised program: an ensemble proposes others then.
        same = 10 if name == "bananas" else 30
        assert np.array_equal(own_rows[:same], rows[:same])
        assert np.array_equal(own_values[:same], values[:same])
        best = incumbents(own_values.T, shares[None])[0, -1]
        assert result.best.tolist() == own_rows[best].tolist()
        # The table holds whatever is asked for.
        assert KNOWN[rows @ NUMBERS].all() and np.isfinite(values).all()


def test_a_table_shows_one_of_the_trainings_whatever_the_batch():
    rows = SPACE.all()[np.flatnonzero(KNOWN)[:200]]
    key = jax.random.key(3)
    value, status, cost = jax.device_get(ESTIMATOR.evaluate(key, Candidates(rows)))
    trainings = on_space(TABLE, TABLE.accuracy[:, :, -1].T)[:, rows @ NUMBERS]
    assert (trainings == value[:, 0]).any(axis=0).all() and not status.any() and (cost > 0).all()
    order = np.random.default_rng(0).permutation(200)[:50]
    again = ESTIMATOR.evaluate(key, Candidates(rows[order]))
    assert np.array_equal(again.value, value[order])
    other = ESTIMATOR.evaluate(jax.random.key(4), Candidates(rows))
    assert not np.array_equal(other.value, value)


def test_fidelity_is_a_share_of_the_epochs():
    rows = SPACE.all()[np.flatnonzero(KNOWN)[:50]]
    key = jax.random.key(3)
    for place, epoch in enumerate(TABLE.epochs):
        share = np.full(50, epoch / TABLE.epochs[-1], np.float32)
        value = ESTIMATOR.evaluate(key, Candidates(rows, fidelity=share)).value[:, 0]
        trainings = on_space(TABLE, TABLE.accuracy[:, :, place].T)[:, rows @ NUMBERS]
        assert (trainings == np.asarray(value)).any(axis=0).all()


def test_an_architecture_that_the_table_lacks_is_missing():
    row = SPACE.all()[np.flatnonzero(~KNOWN)[:1]]
    value, status, _ = ESTIMATOR.evaluate(jax.random.key(0), Candidates(row))
    assert np.isneginf(value).all() and STATUSES[int(status[0, 0])] == "missing"


def test_a_subset_is_sampled_uniformly_and_mutated_into_itself():
    members = np.zeros(SPACE.size, bool)
    members[[0, 1, 5, 9000]] = True
    small = subset(SPACE, members)
    drawn = np.asarray(small.sample(jax.random.key(0), 2000)) @ NUMBERS
    numbers, counts = np.unique(drawn, return_counts=True)
    assert numbers.tolist() == [0, 1, 5, 9000]
    # Four standard deviations of a binomial.
    assert (abs(counts - 500) < 4 * np.sqrt(2000 / 4 * 3 / 4)).all()
    parents = np.repeat(SPACE.all()[[0, 9000]], 400, axis=0)
    children = np.asarray(small.mutate(jax.random.key(1), parents)) @ NUMBERS
    assert set(children[:400]) == {0, 1, 5} and set(children[400:]) == {9000}


def test_a_draw_that_is_no_member_is_drawn_again():
    members = np.zeros(SPACE.size, bool)
    members[[0, 1, 5, 9000]] = True
    small = subset(SPACE, members)
    rows = jnp.asarray(SPACE.all()[[0, 9000, 7]])
    keys = jax.random.split(jax.random.key(0), 1000)

    def numbers_of(draw):
        return np.asarray(jax.jit(jax.vmap(lambda key: member(small, key, draw)))(keys)) @ NUMBERS

    # Two of three are members: each has half of the draws; four standard deviations of a binomial.
    drawn = numbers_of(lambda key: rows[jax.random.randint(key, (), 0, 3)])
    assert set(drawn) == {0, 9000} and abs((drawn == 0).sum() - 500) < 4 * np.sqrt(1000 / 4)
    # Number 7 alone is no member, and has the neighbours 5 and none else: then members are drawn uniformly.
    assert {5} < set(numbers_of(lambda key: rows[2])) <= {0, 1, 5, 9000}
