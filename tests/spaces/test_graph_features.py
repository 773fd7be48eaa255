"""Graph features beside a walk over all paths."""

from itertools import product

import jax
import numpy as np
import pytest

from jnas import spaces
from jnas.errors import InputError
from jnas.spaces.graph_features import graph_features


def walks(graph, choices):
    """The operations of every path from an input to an output over edges that are not `none`."""
    outputs, out = graph.outputs or (graph.nodes - 1,), []

    def walk(node, operations):
        if node in outputs and operations:
            out.append(operations)
        for edge in graph.leaving(node):
            name = graph.operations[choices[edge]]
            if name != "none":
                walk(graph.edges[edge][1], (*operations, name))

    for start in range(graph.inputs):
        walk(start, ())
    return out


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_paths_are_those_of_a_walk(name):
    space = spaces.get(name)
    rows = np.asarray(space.sample(jax.random.key(0), 12))
    features, names = graph_features(space, rows)
    choices = np.asarray(space.choices(rows))
    columns = dict(zip(names, features.T, strict=True))
    for row, (kind, graph) in product(range(len(rows)), enumerate(space.graphs)):
        paths = walks(graph, choices[row, kind])
        prefix = f"{space.cell_names[kind]} " if space.cells > 1 else ""
        named = [operation for operation in graph.operations if operation != "none"]
        for operations in ([named[0]], named[-2:], named):
            label = "+".join(operations)
            lengths = [len(path) for path in paths if set(path) <= set(operations)]
            shortest = columns[f"{prefix}shortest path over {label}"][row]
            assert shortest == min(lengths, default=graph.nodes + 1)
            most = max((sum(part in operations for part in path) for path in paths), default=0)
            assert columns[f"{prefix}most of {label} on a path"][row] == most


def test_numbers_of_features_and_of_operations():
    space = spaces.get("nasbench201")
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|nor_conv_3x3~1|avg_pool_3x3~2|"
    features, names = graph_features(space, np.stack([space.from_string(text)]))
    assert features.shape == (1, 125) and len(set(names)) == 125
    columns = dict(zip(names, features[0], strict=True))
    assert columns["count of nor_conv_3x3"] == 2 and columns["count of none"] == 1
    assert columns["nor_conv_3x3 into node 3"] == 1 and columns["nor_conv_3x3 out of node 0"] == 1


def test_a_space_without_cells():
    with pytest.raises(InputError, match="chain has none"):
        graph_features(spaces.get("chain"), np.zeros((1, 1), np.int32))
