"""UCT: what its tree counts, what it chooses, and that it stays with the best."""

import jax
import numpy as np
import pytest
from toy_space import told, toy

from jnas.run.loop import run
from jnas.strategies.settings.learning import TreeSearch
from jnas.strategies.tree_search import tree_search

SPACE = toy(3, 2, 4)
KEY = jax.random.key(1)
WORTH = np.random.default_rng(3).permutation(24).reshape(3, 2, 4) + 60.0


def search(budget, **settings):
    """(the last state, architectures asked for)."""
    rows = []

    def evaluate(number, candidates):
        rows.extend(np.asarray(candidates.architectures).tolist())
        return told(*(WORTH[tuple(row)] for row in np.asarray(candidates.architectures)))

    own = tree_search(SPACE, TreeSearch(**settings), 1, budget)
    return jax.device_get(run(own, evaluate, KEY, budget=budget).state), rows


def prefixes(state):
    """{prefix of an architecture: node}, read from the children."""
    nodes, stack = {}, [((), 0)]
    while stack:
        prefix, node = stack.pop()
        nodes[prefix] = node
        stack += [
            ((*prefix, k), int(below))
            for k, below in enumerate(state.children[node])
            if below < len(state.visits)
        ]
    return nodes


@pytest.mark.parametrize("batch", [1, 5])
def test_a_node_counts_the_evaluations_below_it(batch):
    state, rows = search(30, exploration=0.5, batch=batch)
    nodes = prefixes(state)
    assert len(nodes) == state.nodes == len(set(nodes.values())) and max(map(len, nodes)) <= 3
    values = np.array([WORTH[tuple(row)] for row in rows])
    assert state.visits[0] == state.sums.told[0] == 30
    assert state.sums.total[0] / state.sums.told[0] == pytest.approx(values.mean(), rel=1e-6)
    assert (state.seen.low, state.seen.high) == (values.min(), values.max())
    for prefix, node in nodes.items():
        assert all(k < choices for k, choices in zip(prefix, SPACE.decisions, strict=False))
        below = [row[: len(prefix)] == list(prefix) for row in rows]
        # Before a node is there, evaluations below it are counted further up.
        assert 1 <= state.visits[node] <= sum(below)
        assert state.sums.total[node] <= values[below].sum() + 1e-3
        children = [int(child) for child in state.children[node] if child < len(state.visits)]
        if len(prefix) < 3:
            # One visit made the node, each other one a visit of a child.
            assert state.visits[node] - (node > 0) == sum(state.visits[child] for child in children)


def test_a_level_is_expanded_in_each_evaluation_until_the_tree_is_complete():
    state, _ = search(150, exploration=0.5)
    assert state.nodes <= 151
    # All prefixes: 1 + 3 + 6 + 24.
    assert search(20, exploration=1.0)[0].nodes == 21 and search(400, exploration=3.0)[0].nodes == 34


def test_choices_have_the_largest_bound():
    """The tree is built again in Python, evaluation by evaluation."""
    c, (_, rows) = 0.2, search(60, exploration=0.2)
    visits, total, values = {(): 0}, {(): 0.0}, []
    for row in rows:
        if len(set(values)) > 1:
            low, high = min(values), max(values)
            for depth in range(3):
                prefix = tuple(row[:depth])
                bounds = []
                for k in range(SPACE.decisions[depth]):
                    n = visits.get((*prefix, k), 0)
                    mean = (total[(*prefix, k)] / n - low) / (high - low) if n else np.inf
                    bounds.append(mean + c * np.sqrt(2 * np.log(visits[prefix]) / n) if n else np.inf)
                chosen = bounds[row[depth]]
                assert chosen == max(bounds) or chosen == pytest.approx(max(bounds), abs=1e-4)
                if chosen == np.inf:
                    break
        value = WORTH[tuple(row)]
        values.append(value)
        for depth in range(4):
            prefix = tuple(row[:depth])
            new = prefix not in visits
            visits[prefix], total[prefix] = visits.get(prefix, 0) + 1, total.get(prefix, 0.0) + value
            if new:
                break


def test_without_exploration_the_best_subtree_is_not_left():
    """Values that grow with every decision: each prefix of the best architecture is the best among its siblings."""
    own = tree_search(SPACE, TreeSearch(exploration=0), 1, 120)
    rows = []

    def evaluate(number, candidates):
        rows.append(np.asarray(candidates.architectures)[0].tolist())
        return told(100 * rows[-1][0] + 10 * rows[-1][1] + rows[-1][2])

    result = run(own, evaluate, KEY, budget=120)
    assert result.best.tolist() == [2, 1, 3] and rows[-60:] == [[2, 1, 3]] * 60


def test_failures_count_as_the_lowest_and_enter_no_mean():
    own = tree_search(SPACE, TreeSearch(exploration=0.3), 1, 60)

    def evaluate(number, candidates):
        row = np.asarray(candidates.architectures)[0]
        return told(-np.inf if row[0] == 0 or number < 5 else 50 + row[1])

    state = jax.device_get(run(own, evaluate, KEY, budget=60).state)
    bad, *others = state.children[0][:3]
    assert state.sums.good[bad] == state.sums.total[bad] == 0 < state.sums.told[bad]
    assert state.visits[bad] < min(state.visits[others])
    assert 50 <= state.sums.total[0] / state.sums.good[0] <= 51
