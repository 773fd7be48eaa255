import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import spaces
from jnas.spaces import base
from jnas.strategies import table_search
from jnas.strategies.table_search import ON_TABLES, incumbents, traces

SPACE = spaces.get("nasbench201")
CELLS = SPACE.all()
# A landscape that can be climbed: how many edges agree with one cell.
GOAL = np.array([3, 1, 3, 3, 2, 3])
HILL = (CELLS == GOAL).sum(axis=1).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 20)


def run(name, signal, evaluations=200):
    return jax.device_get(traces(KEYS, jnp.asarray(signal), name=name, space=SPACE, evaluations=evaluations))


@pytest.mark.parametrize("name", ON_TABLES)
def test_only_what_the_table_holds_is_asked_for_and_shown_as_it_is(name):
    generator = np.random.default_rng(0)
    signal = generator.uniform(10, 90, (3, len(CELLS))).astype(np.float32)
    signal[:, generator.permutation(len(CELLS))[1500:]] = np.nan
    signal[0, ::2] = np.nan
    asked, shown = run(name, signal)
    assert asked.shape == shown.shape == (20, 200)
    trainings = signal[:, asked]
    assert (trainings == shown).any(axis=0).all()
    # Seeds go ways of their own, and the same key the same way.
    assert len({row.tobytes() for row in asked}) == 20
    again, _ = run(name, signal)
    np.testing.assert_array_equal(again, asked)


@pytest.mark.parametrize("name", [name for name in ON_TABLES if name != "random_search"])
def test_they_climb_where_random_search_does_not(name):
    best = {own: run(own, HILL[None])[1].max(axis=1).mean() for own in (name, "random_search")}
    assert best[name] > 5.7 > best["random_search"]


def test_random_search_is_uniform():
    known = np.full(len(CELLS), np.nan, np.float32)
    known[[5, 70, 9000, 15_624]] = 1
    asked, _ = run("random_search", known[None], 500)
    numbers, counts = np.unique(asked, return_counts=True)
    assert numbers.tolist() == [5, 70, 9000, 15_624]
    # Four standard deviations of a binomial.
    assert (abs(counts - 2500) < 4 * np.sqrt(10_000 / 4 * 3 / 4)).all()


def test_evolution_against_a_plain_loop():
    """Children are mutants of the best of a tournament among the last `POPULATION` evaluations."""
    generator = np.random.default_rng(1)
    signal = generator.uniform(size=len(CELLS)).astype(np.float32)
    asked, shown = run("aging_evolution", signal[None])
    population = table_search.POPULATION
    for cells, values in zip(CELLS[asked], shown, strict=True):
        for step in range(population, len(cells)):
            window = slice(step - population, step)
            near = (cells[window] != cells[step]).sum(axis=1) == 1
            # The parent is a member, and better than all but those that no tournament of ten is likely to miss.
            assert near.any()
        ranks = [np.mean(values[s - population : s] <= values[s]) for s in range(population, len(values))]
        assert 0.3 < np.mean(ranks) < 0.7


def test_incumbents_by_brute_force():
    generator = np.random.default_rng(2)
    shown, worth = generator.integers(0, 9, (2, 7, 30)).astype(np.float32)
    found = np.asarray(incumbents(jnp.asarray(shown), jnp.asarray(worth)))
    for row in range(7):
        for step in range(30):
            first = int(np.argmax(shown[row, : step + 1]))
            assert found[row, step] == worth[row, first]


def test_local_search_starts_anew_at_a_summit():
    asked, _ = run("local_search", HILL[None], 400)
    numbers = int(np.asarray(base.index(SPACE.decisions, GOAL)))
    reached = (asked == numbers).argmax(axis=1)
    assert (reached > 0).all()
    # After a summit it asks for neighbours, and then for something far away.
    for row, step in zip(asked, reached, strict=True):
        far = (CELLS[row[step + 1 :]] != GOAL).sum(axis=1)
        assert far[:24].max() <= 1 and far.max() > 2
