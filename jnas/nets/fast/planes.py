"""Cells on channel-first planes, all operations from one node to its targets at once (`jnas.nets.fast.bundles`)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.nets import stacks
from jnas.nets.fast.bundles import Bundle
from jnas.nets.modules import Build
from jnas.spaces.base import Graph


def images_first(signs: Array, build: Build) -> Array:
    """Signs of images, or of planes [..., C, N, H, W], with the images as the first axis."""
    return jnp.moveaxis(signs, -3, 0) if build.planes else signs


def evaluate(
    graph: Graph, build: Build, bundle: Bundle, variables: stacks.Variables, nodes: list[Array], gates: Array
) -> dict[str, Array]:
    """Fill `nodes`, inputs and zeros, with the nodes of a cell under gates [E, K]; the signs before its ReLUs."""
    if graph.allowed is not None:
        gates = gates * jnp.asarray(graph.mask, gates.dtype)
    if bundle.loop and _complete(graph):
        return _in_loops(graph, build, bundle, variables, nodes, gates)
    sown = {}
    for source in range(graph.nodes):
        if leaving := graph.leaving(source):
            weights = stacks.stack(stacks.of_edges(graph, variables, leaving, leaving))["params"]
            sums, patterns = bundle.evaluate(
                graph, nodes[source], weights, gates[np.array(leaving)], graph.stride_of(leaving[0]), build
            )
            for edge, y in zip(leaving, sums, strict=True):
                target = graph.edges[edge][1]
                nodes[target] = nodes[target] + y
            for name, signs in patterns.items():
                sown[f"{name}_{source}"] = images_first(signs, build)
    return sown


def _complete(graph: Graph) -> bool:
    """True where an edge leads from every input and every later node to every later node, in the order of targets."""
    return graph.nodes > graph.inputs + 1 and all(
        [graph.edges[edge][1] for edge in graph.leaving(source)]
        == list(range(max(graph.inputs, source + 1), graph.nodes))
        for source in range(graph.nodes)
    )


def _in_loops(
    graph: Graph, build: Build, bundle: Bundle, variables: stacks.Variables, nodes: list[Array], gates: Array
) -> dict[str, Array]:
    """`evaluate` of a complete graph as two loops, over its inputs and over its later nodes.

    A program holds two bodies a cell and not one for each node that edges leave: it compiles in a fraction of the time.
    """
    inputs, targets = graph.inputs, graph.nodes - graph.inputs

    def of_sources(sources: Sequence[int], most: int) -> Any:
        """Weights and gates of the edges that leave each of `sources`, filled up to `most` targets, stacked."""
        group = [edge for source in sources for edge in graph.leaving(source)]
        rows = []
        for source in sources:
            leaving = graph.leaving(source)
            weights = stacks.stack(stacks.of_edges(graph, variables, leaving, group))["params"]
            border = (0, most - len(leaving))
            rows.append(
                jax.tree.map(
                    lambda leaf, border=border: jnp.pad(leaf, [border] + [(0, 0)] * (leaf.ndim - 1)),
                    (weights, gates[np.array(leaving)]),
                )
            )
        return stacks.stack(rows)

    def from_input(sums: Array, source: Any) -> tuple[Array, dict[str, Array]]:
        x, (weights, weighing) = source
        count = jnp.int32(targets)
        y, patterns = bundle.evaluate(graph, x, weights, weighing, graph.stride, build, count)
        return sums + y, patterns

    first = (jnp.stack(nodes[:inputs]), of_sources(range(inputs), targets))
    sums, from_inputs = jax.lax.scan(from_input, jnp.stack(nodes[inputs:]), first)
    most = targets - 1

    def from_node(sums: Array, source: Any) -> tuple[Array, dict[str, Array]]:
        number, (weights, weighing) = source
        y, patterns = bundle.evaluate(graph, sums[number], weights, weighing, 1, build, most - number)
        before = jax.lax.dynamic_slice_in_dim(sums, number + 1, most)
        return jax.lax.dynamic_update_slice_in_dim(sums, before + y, number + 1, 0), patterns

    # The last node that edges leave has one target: what its others would be lies beyond the nodes.
    room = jnp.concatenate([sums, jnp.zeros_like(sums[: most - 1])])
    later = (jnp.arange(most, dtype=jnp.int32), of_sources(range(inputs, graph.nodes - 1), most))
    sums, from_nodes = jax.lax.scan(from_node, room, later)
    nodes[inputs:] = list(sums[:targets])
    return {
        f"{part}_{name}": images_first(signs, build)
        for part, patterns in (("inputs", from_inputs), ("nodes", from_nodes))
        for name, signs in patterns.items()
    }
