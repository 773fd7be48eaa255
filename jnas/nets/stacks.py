"""Weights of cells, stacked over the edges that may carry an operation: `params[operation][...] [edges, ...]`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import unknown_name
from jnas.nets.candidates import OPERATIONS, Operation
from jnas.nets.modules import Build
from jnas.spaces.base import Graph

# By collection and operation: `params`, `batch_stats`, `channel_gates`.
Variables: TypeAlias = Mapping[str, Mapping[str, Any]]


def operation(name: str) -> Operation:
    """The candidate operation `name`. Raises `InputError` where there is none."""
    if name not in OPERATIONS:
        raise unknown_name("operation", name, OPERATIONS)
    return OPERATIONS[name]


def module(name: str, stride: int, channels: int, build: Build) -> Any:
    """An operation as a Flax module (with weights), a function (without), or None (zero)."""
    make = operation(name).module
    return None if make is None else make(channels, stride, build)


def weighted(graph: Graph) -> dict[str, tuple[int, ...]]:
    """By operation the edges that have weights of it, in their order: the first axis of those weights."""
    has_weights = {
        (name, stride): isinstance(module(name, stride, 1, Build()), nn.Module)
        for name in graph.operations
        for stride in {1, graph.stride}
    }
    places = {
        name: tuple(
            edge
            for edge, allowed in enumerate(graph.choices)
            if k in allowed and has_weights[name, graph.stride_of(edge)]
        )
        for k, name in enumerate(graph.operations)
    }
    return {name: edges for name, edges in places.items() if edges}


def init(graph: Graph, channels: int, build: Build, key: Array) -> dict[str, dict[str, Any]]:
    """`params` and `batch_stats` of a cell before training."""
    variables: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    image = jnp.zeros((1, 4, 4, channels))
    for place, (name, edges) in enumerate(weighted(graph).items()):
        one = module(name, graph.stride_of(edges[0]), channels, build)
        keys = jax.random.split(jax.random.fold_in(key, place), len(edges))
        initial = jax.vmap(lambda key, one=one: one.init(key, image))(keys)
        for collection in variables.keys() & initial.keys():
            variables[collection][name] = initial[collection]
    return variables


def take(tree: Any, place: int) -> Any:
    """One entry of the first axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[place], tree)


def stack(trees: Sequence[Any]) -> Any:
    """Trees side by side along a new first axis of every leaf."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def of_operation(variables: Variables, name: str) -> dict[str, Any]:
    """By collection the variables of one operation."""
    return {collection: values[name] for collection, values in variables.items() if name in values}


def of_edges(graph: Graph, variables: Variables, edges: Sequence[int], group: Sequence[int]) -> list[Any]:
    """By collection and operation the variables of each of `edges`, of all operations with weights in `group`.

    An edge without weights of an operation gets another edge's, which nothing may choose or weigh.
    """
    places = {name: rows for name, rows in weighted(graph).items() if set(rows) & set(group)}
    return [
        {
            collection: {
                name: take(values[name], rows.index(edge) if edge in rows else 0)
                for name, rows in places.items()
                if name in values
            }
            for collection, values in variables.items()
        }
        for edge in edges
    ]
