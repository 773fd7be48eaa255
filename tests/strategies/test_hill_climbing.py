"""Hill climbing: never to a worse architecture, by children of the current one, from a small start."""

import jax
import numpy as np
import pytest
from toy_space import told

from jnas import spaces
from jnas.nets import networks
from jnas.nets.sizes import Macro
from jnas.run.loop import run
from jnas.strategies.aging import aging
from jnas.strategies.hill_climbing import hill_climbing
from jnas.strategies.settings.evolution import Aging, HillClimbing

SPACE = spaces.get("nasbench201")
WORTH = np.random.default_rng(0).normal(size=SPACE.size)


def climbed(budget=200, failed=0, **settings):
    """(rows [T, D], parents [T], the place after each batch)."""
    own = hill_climbing(SPACE, HillClimbing(**settings), 1, budget)
    rows, parents, places = [], [], []
    tell = own.tell

    def noted(state, candidates, values):
        after, _ = tell(state, candidates, values)
        return after, {"place": after.place}

    def evaluate(number, candidates):
        rows.extend(np.asarray(candidates.architectures))
        parents.extend(np.asarray(candidates.parent).tolist())
        value = WORTH[np.asarray(SPACE.index(candidates.architectures))]
        places_of_batch = np.arange(len(rows) - len(value), len(rows))
        return told(*np.where(places_of_batch < failed, -np.inf, value))

    run(
        own._replace(tell=noted), evaluate, jax.random.key(1), budget=budget,
        note=lambda number, info: places.append(int(info["place"])),
    )  # fmt: skip
    return np.array(rows), np.array(parents), np.array(places)


@pytest.mark.parametrize("settings", [{}, {"steps": 3, "batch": 5}, {"batch": 1}], ids=str)
def test_it_never_gets_worse_and_children_are_near_their_parent(settings):
    rows, parents, places = climbed(**settings)
    batch, steps = settings.get("batch", 8), settings.get("steps", 1)
    worth = WORTH[np.asarray(SPACE.index(rows))]
    assert (np.diff(worth[places]) >= 0).all() and worth[places[-1]] == worth.max()
    for number, place in enumerate(places):
        # The best of all so far, the first of equals.
        assert place == np.argmax(worth[: (number + 1) * batch])
    # A batch has the architecture before it for parent, or none where it is random.
    before = np.repeat(np.concatenate([[-1], places[:-1]]), batch)[: len(rows)]
    child = parents >= 0
    assert np.array_equal(parents[child], before[child]) and child[batch:].mean() > 0.1
    assert ((rows[child] != rows[parents[child]]).sum(1) <= steps).all()
    assert not child[:batch].any()
    codes = np.asarray(SPACE.canonical(rows))
    assert len(np.unique(codes, axis=0)) == len(rows)


def test_the_start_is_the_smallest_of_those_drawn():
    def smallest(initial):
        return climbed(budget=8, initial=initial)[0][0]

    def params(row):
        return float(networks.sizes_of(SPACE, Macro(), SPACE.choices(row[None])).params[0])

    assert params(smallest(200)) < params(smallest(1))


def test_it_starts_again_where_all_failed():
    _, parents, places = climbed(budget=80, failed=20)
    assert places[:2].tolist() == [-1, -1] and places[2] >= 20 and (parents[:24] == -1).all()


def test_children_of_aging_name_the_parent_they_differ_from_in_one_decision():
    own = aging(SPACE, Aging(population=10, tournament=3, batch=4, inherit=True), 1, 60)
    rows, parents = [], []

    def evaluate(number, candidates):
        rows.extend(np.asarray(candidates.architectures))
        parents.extend(np.asarray(candidates.parent).tolist())
        return told(*WORTH[np.asarray(SPACE.index(candidates.architectures))])

    run(own, evaluate, jax.random.key(0), budget=60)
    rows, parents = np.array(rows), np.array(parents)
    assert (parents[:10] == -1).all() and (parents[12:] >= 0).all()
    assert ((rows[12:] != rows[parents[12:]]).sum(1) == 1).all()
    # The population is the last ten of those told before.
    assert (parents[12:] >= np.arange(12, 60) // 4 * 4 - 10).all()
