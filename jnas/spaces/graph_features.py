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

from collections.abc import Callable
from itertools import chain, combinations

import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.spaces.base import Graph, Space

# 31 sets.
MOST_WITH_ALL_SETS = 5


def graph_features(space: Space, architectures: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Features float64[B, F] of architectures int[B, D], and their names.

    Equal cells by `space.canonical` may differ: put them in that form first. Raises `InputError` for a space without
    cells.
    """
    columns = _columns(space, jnp.asarray(architectures, jnp.int32))
    return np.stack([np.asarray(column) for column in columns.values()], axis=1).astype(np.float64), list(
        columns
    )


def graph_encoding(space: Space) -> Callable[[Array], Array]:
    """The features as a function under jit, int32[B, D] -> float32[B, F]. Raises `InputError` as `graph_features`."""
    _check(space)
    return lambda architectures: jnp.stack(list(_columns(space, architectures).values()), axis=1).astype(
        jnp.float32
    )


def has_paths(space: Space) -> bool:
    """True for spaces of cells: one supernet, and no two edges between the same nodes."""
    return isinstance(space.network, str) and len(set(space.edges)) == len(space.edges)


def _check(space: Space) -> None:
    if not has_paths(space):
        raise InputError(f"graph features are those of cells, and {space.name} has none: choose others")


def _columns(space: Space, architectures: Array) -> dict[str, Array]:
    """Features int[B] by name."""
    _check(space)
    choices = space.choices(architectures)
    return {
        f"{cell} {name}" if space.cells > 1 else name: column
        for kind, (cell, graph) in enumerate(zip(space.cell_names, space.graphs, strict=True))
        for name, column in _of_cell(graph, choices[:, kind]).items()
    }


def _of_cell(graph: Graph, choices: Array) -> dict[str, Array]:
    """Features [B] by name of cells with the operations int[B, E]."""
    named = [k for k, name in enumerate(graph.operations) if name != "none"]
    sizes = range(1, len(named) + 1) if len(named) <= MOST_WITH_ALL_SETS else (1, 2, len(named))
    features = {f"count of {name}": (choices == k).sum(1) for k, name in enumerate(graph.operations)}

    def standing(operations: tuple[int, ...]) -> Array:
        return jnp.asarray(np.isin(np.arange(len(graph.operations)), operations))[choices]

    there = standing(tuple(named))
    for operations in chain.from_iterable(combinations(named, size) for size in sizes):
        among = standing(operations)
        label = "+".join(graph.operations[k] for k in operations)
        features[f"shortest path over {label}"] = _shortest(graph, among)
        features[f"most of {label} on a path"] = _richest(graph, among, there)
        for node in range(graph.inputs, graph.nodes):
            if entering := [edge for edge, (_, target) in enumerate(graph.edges) if target == node]:
                features[f"{label} into node {node}"] = among[:, np.array(entering)].sum(1)
        for node in range(graph.nodes):
            if leaving := graph.leaving(node):
                features[f"{label} out of node {node}"] = among[:, np.array(leaving)].sum(1)
    return features


def _by_source(graph: Graph) -> list[tuple[int, tuple[int, int]]]:
    """Edges in an order in which a node is complete before it is read."""
    return sorted(enumerate(graph.edges), key=lambda item: item[1])


def _shortest(graph: Graph, among: Array) -> Array:
    """Edges on the shortest path over edges bool[B, E], int[B]; one more than there are nodes where there is none."""
    far = graph.nodes + 1
    distance = [jnp.full(len(among), 0 if node < graph.inputs else far) for node in range(graph.nodes)]
    for edge, (source, target) in _by_source(graph):
        step = jnp.where(among[:, edge], distance[source] + 1, far)
        distance[target] = jnp.minimum(distance[target], step)
    return jnp.minimum(jnp.stack([distance[node] for node in _ends(graph)]).min(0), far)


def _richest(graph: Graph, among: Array, there: Array) -> Array:
    """Most edges of bool[B, E] on a path over edges that are there, int[B]."""
    missing = -len(graph.edges) - 1
    most = [jnp.full(len(among), 0 if node < graph.inputs else missing) for node in range(graph.nodes)]
    for edge, (source, target) in _by_source(graph):
        step = jnp.where(there[:, edge], most[source] + among[:, edge], missing)
        most[target] = jnp.maximum(most[target], step)
    return jnp.maximum(jnp.stack([most[node] for node in _ends(graph)]).max(0), 0)


def _ends(graph: Graph) -> tuple[int, ...]:
    return graph.outputs or (graph.nodes - 1,)
