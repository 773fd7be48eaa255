"""Features of cells as graphs: counts of operations, shortest and richest paths, degrees of nodes.

For every set S of operations other than `none`, in every kind of cell:

    shortest path    edges on the shortest way from an input to the output on which every operation is in S
    richest path     most operations of S on a way from an input to the output
    degrees          edges with an operation of S that enter each node, and that leave each node

and how often each operation stands in the cell. NAS-Bench-201 has 5 + 15 (1 + 1 + 3 + 3) = 125 features. A cell whose
nodes side by side are its output has the shortest and the richest path to any of them.

Kadlecova, Lukasik, Pilat, Vidnerova, Safari, Neruda and Hutter, "Surprisingly Strong Performance Prediction with Neural
Graph Features", ICML 2024, https://arxiv.org/abs/2404.16551.

Departures: where no way is there, the shortest path counts one edge more than the cell has nodes, and the richest none.
Of more than `MOST_WITH_ALL_SETS` operations the sets are those of one operation, of two, and of all: the sets would
double with every operation.
"""

from itertools import chain, combinations

import numpy as np

from jnas.errors import InputError
from jnas.spaces.base import Graph, Space

# 31 sets.
MOST_WITH_ALL_SETS = 5


def graph_features(space: Space, architectures: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Features float64[B, F] of architectures int[B, D], and their names.

    Equal cells by `space.canonical` may differ: put them in that form first. Raises `InputError` for a space without
    cells.
    """
    if not isinstance(space.network, str):
        raise InputError(
            f"graph features are those of cells, and {space.name} has none: take one-hot decisions"
        )
    choices = np.asarray(space.choices(architectures))
    columns: dict[str, np.ndarray] = {}
    for kind, (cell, graph) in enumerate(zip(space.cell_names, space.graphs, strict=True)):
        for name, column in _of_cell(graph, choices[:, kind]).items():
            columns[f"{cell} {name}" if space.cells > 1 else name] = column
    return np.stack(list(columns.values()), axis=1).astype(np.float64), list(columns)


def _of_cell(graph: Graph, choices: np.ndarray) -> dict[str, np.ndarray]:
    """Features [B] by name of cells with the operations int[B, E]."""
    named = [k for k, name in enumerate(graph.operations) if name != "none"]
    sizes = range(1, len(named) + 1) if len(named) <= MOST_WITH_ALL_SETS else (1, 2, len(named))
    features = {f"count of {name}": (choices == k).sum(1) for k, name in enumerate(graph.operations)}
    there = np.isin(choices, named)
    for operations in chain.from_iterable(combinations(named, size) for size in sizes):
        among = np.isin(choices, operations)
        label = "+".join(graph.operations[k] for k in operations)
        features[f"shortest path over {label}"] = _shortest(graph, among)
        features[f"most of {label} on a path"] = _richest(graph, among, there)
        for node in range(graph.inputs, graph.nodes):
            entering = [edge for edge, (_, target) in enumerate(graph.edges) if target == node]
            if entering:
                features[f"{label} into node {node}"] = among[:, entering].sum(1)
        for node in range(graph.nodes):
            if leaving := graph.leaving(node):
                features[f"{label} out of node {node}"] = among[:, leaving].sum(1)
    return features


def _shortest(graph: Graph, among: np.ndarray) -> np.ndarray:
    """Edges on the shortest path over edges bool[B, E], int[B]; one more than there are nodes where there is none."""
    far = graph.nodes + 1
    distance = np.full((graph.nodes, len(among)), far)
    distance[: graph.inputs] = 0
    # By source, so that a node is complete before it is read.
    for edge, (source, target) in sorted(enumerate(graph.edges), key=lambda item: item[1]):
        step = np.where(among[:, edge], distance[source] + 1, far)
        distance[target] = np.minimum(distance[target], step)
    return np.minimum(distance[list(graph.outputs or (graph.nodes - 1,))].min(0), far)


def _richest(graph: Graph, among: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Most edges of bool[B, E] on a path over edges that are there, int[B]."""
    missing = -len(graph.edges) - 1
    most = np.full((graph.nodes, len(among)), missing)
    most[: graph.inputs] = 0
    for edge, (source, target) in sorted(enumerate(graph.edges), key=lambda item: item[1]):
        step = np.where(there[:, edge], most[source] + among[:, edge], missing)
        most[target] = np.maximum(most[target], step)
    return np.maximum(most[list(graph.outputs or (graph.nodes - 1,))].max(0), 0)
