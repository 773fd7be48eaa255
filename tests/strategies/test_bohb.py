"""BOHB's model against its formulas written out, and against statsmodels' kernel in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import spaces
from jnas.run.loop import run
from jnas.strategies import archive, bohb
from jnas.strategies.settings.fidelity import Bohb
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
CHOICES = np.array([2, 3, 5])
EVERY = np.indices(CHOICES).reshape(3, -1).T
LEAST = 0.01


def told(values, room=40):
    """An archive of three decisions with these values."""
    column = np.asarray(values, float)[:, None]
    rows = EVERY[np.arange(len(column)) % len(EVERY)]
    given = Values(column, np.zeros(column.shape, np.int8), np.zeros(len(column)))
    return archive.add(archive.empty(room, 3, 1), Candidates(rows), given)


def levels(*counts, room=40):
    return jnp.asarray(np.repeat(np.arange(len(counts) + 1), [*counts, room - sum(counts)]) % len(counts))


@pytest.mark.parametrize(
    ("counts", "longest"),
    [((3, 0, 0), None), ((9, 3, 1), 0), ((9, 4, 1), 1), ((9, 4, 4), 2), ((3, 3, 3), None)],
)
def test_the_model_is_of_the_longest_trainings_with_enough_points(counts, longest):
    """Three decisions ask for four points."""
    state, level = told(np.arange(sum(counts), dtype=float)), levels(*counts)
    members = np.logical_or(*bohb.split(state, level, 3, 0.15))[: sum(counts)]
    own = np.asarray(level)[: sum(counts)]
    assert members.tolist() == (own == (-1 if longest is None else longest)).tolist()


def test_failures_are_no_points():
    values = np.array([1.0, 2, 3, -np.inf, 5, 6, 7, -np.inf])
    best, others = bohb.split(told(values), levels(4, 4), 2, 0.15)
    assert not np.asarray(best).any() and not np.asarray(others).any()
    best, others = bohb.split(told(values), levels(8, 0), 2, 0.15)
    assert np.flatnonzero(best).tolist() == [2, 4, 5, 6] and np.flatnonzero(others).tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("count", [4, 6, 20, 39])
def test_good_and_others(count):
    values = np.random.default_rng(count).permutation(count).astype(float)
    best, others = (np.flatnonzero(part) for part in bohb.split(told(values), levels(count), 1, 0.15))
    order, good = np.argsort(-values), max(4, int(0.15 * count))
    assert best.tolist() == sorted(order[:good])
    assert others.tolist() == sorted(order[count - max(4, count - good) :])


def density(x, rows, width):
    """The mean of the products of kernels, as a loop says it."""
    total = 0.0
    for row in rows:
        kernel = 1.0
        for value, own, h, count in zip(x, row, width, CHOICES, strict=True):
            kernel *= 1 - h if value == own else h / (count - 1)
        total += kernel / len(rows)
    return total


def test_bandwidths_and_density():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, CHOICES, (12, 3))
    rows[:, 0] = 1
    members = rng.random(12) < 0.7
    own = rows[members]
    width = np.asarray(bohb.bandwidths(jnp.asarray(rows), jnp.asarray(members), jnp.asarray(CHOICES), LEAST))
    reference = 1.06 * own.std(axis=0) * len(own) ** (-1 / 7)
    np.testing.assert_allclose(width, np.clip(reference, LEAST, (CHOICES - 1) / CHOICES), rtol=1e-5)
    assert width[0] == pytest.approx(LEAST)
    ours = np.exp(
        bohb.log_density(
            jnp.asarray(EVERY), jnp.asarray(rows), jnp.asarray(members), width, jnp.asarray(CHOICES)
        )
    )
    np.testing.assert_allclose(ours, [density(x, own, width) for x in EVERY], rtol=1e-4)
    assert ours.sum() == pytest.approx(1, rel=1e-4)


def test_draws_stay_at_a_member_but_for_the_bandwidth():
    rows, members = jnp.asarray([[1, 2, 4], [0, 0, 0]]), jnp.asarray([True, False])
    width = jnp.asarray([0.0, 0.3, 0.8])
    drawn = np.asarray(bohb.draw(jax.random.key(0), rows, members, width, jnp.asarray(CHOICES), 20_000))
    # A decision that does not stay is uniform, and may be the same again.
    kept = (drawn == np.array([1, 2, 4])).mean(axis=0)
    np.testing.assert_allclose(kept, [1, 0.7 + 0.3 / 3, 0.2 + 0.8 / 5], atol=0.015)


def agreement(goal, settings, budget=200):
    """Mean agreement with a goal of the new architectures of the second half of a search."""
    fresh = []

    def evaluate(number, candidates):
        value = (np.asarray(candidates.architectures) == goal).sum(axis=1).astype(float)
        fresh.extend(value if candidates.fidelity[0] < 0.2 else [])
        return Values(value[:, None], np.zeros((len(value), 1), np.int8), np.zeros(len(value)))

    run(settings.make(SPACE, ("hill",), budget), evaluate, jax.random.key(1), budget=budget)
    return np.mean(fresh[len(fresh) // 2 :])


def test_the_model_proposes_what_is_good_and_chance_does_not():
    goal = np.array([3, 1, 3, 3, 2, 3])
    assert agreement(goal, Bohb(random=0.0)) > 2 > agreement(goal, Bohb(random=1.0))
