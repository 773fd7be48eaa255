"""Evolution beyond what every strategy promises: it beats random search, and breeds from the best alone."""

import jax
import numpy as np

from jnas import spaces
from jnas.run.loop import run
from jnas.strategies.evolution import evolution
from jnas.strategies.random import random
from jnas.strategies.settings.evolution import Evolution
from jnas.strategies.settings.sampling import Random
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
GOAL = np.array([3, 1, 3, 3, 2, 3])


def agreement(number: int, candidates: Candidates) -> Values:
    """Edges that agree with `GOAL`."""
    value = (np.asarray(candidates.architectures) == GOAL).sum(axis=1, keepdims=True).astype(np.float64)
    return Values(value, np.zeros(value.shape, np.int8), np.zeros(len(value)))


def test_it_beats_random_search():
    budget = 120
    strategies = (
        evolution(SPACE, Evolution(children=10, parents=10)),
        random(SPACE, Random(batch=10), 1, budget),
    )
    bests = np.array(
        [
            [run(strategy, agreement, jax.random.key(seed), budget=budget).best for strategy in strategies]
            for seed in range(6)
        ]
    )
    evolved, drawn = (bests == GOAL).sum(-1).T
    assert evolved.mean() >= drawn.mean() + 1


def test_children_are_mutants_of_the_parents():
    strategy = evolution(SPACE, Evolution(children=20, parents=3))
    state = strategy.init(jax.random.key(0))
    first, state = strategy.ask(jax.random.key(1), state)
    values = agreement(0, first)
    state, info = strategy.tell(state, first, values)
    order = np.argsort(-values.value[:, 0], kind="stable")
    assert info["best"] == first.architectures[order[0]].tolist() and info["evaluated"] == 20
    parents = first.architectures[order[:3]]
    relatives = {
        tuple(row)
        for parent in parents
        for row in np.asarray(SPACE.canonical(SPACE.neighbours(parent))).tolist()
    }
    second, _ = strategy.ask(jax.random.key(2), state)
    assert len(second.architectures) == 20
    assert all(tuple(row) in relatives for row in second.architectures.tolist())


def test_a_space_that_is_used_up_gives_what_is_left():
    graph = SPACE.graphs[0].restricted([(1,), (1, 3), (1,), (1, 3), (1,), (1,)])
    strategy = evolution(spaces.Space("four", (graph,)), Evolution(children=3, parents=2))
    state, sizes = strategy.init(jax.random.key(0)), []
    for number in range(3):
        asked, state = strategy.ask(jax.random.key(number), state)
        sizes.append(len(asked.architectures))
        values = Values(np.ones((sizes[-1], 1)), np.zeros((sizes[-1], 1), np.int8), np.zeros(sizes[-1]))
        state, _ = strategy.tell(state, asked, values)
    assert sizes == [3, 1, 0]
