"""Cells on channel-first planes, by a hand-written kernel: all operations from one node to its targets at once.

A bundle is a function of planes; `bundle_of` finds that of a cell, if it has one, and `evaluate` runs the cell by it.
Cells of convolutions with ReLU and normalisation, skip connections and average pools, of any sizes, have
`jnas.nets.fast.mixture`; cells of the operations of DARTS have `jnas.nets.fast.separable`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.nets import stacks
from jnas.nets.candidates import AveragePool, identity
from jnas.nets.fast import pooling, separable
from jnas.nets.fast.mixture import mixed_edges
from jnas.nets.modules import Build, ConvolutionNorm
from jnas.spaces.base import Graph

# The operations of `jnas.nets.fast.separable`, in its order, and those of `jnas.nets.fast.pooling`.
KINDS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
LIGHT = ("skip_connect", "avg_pool_3x3", "max_pool_3x3")


class Bundle(NamedTuple):
    """All operations from a node.

    evaluate: (graph, x [C, N, H, W], weights by operation [T, ...], gates [T, K], stride, build, count) to the sums of
      the T targets [C, N, H', W'] each, and planes of signs by name; count: int32[], how many of the targets there
      are, None for all.
    single: whether an operation alone runs on planes too, as its own module. If not, the nodes of a cell are best one
      loop, whose body is compiled once.
    """

    evaluate: Callable[..., tuple[Any, dict[str, Array]]]
    single: bool


def bundle_of(graph: Graph) -> Bundle | None:
    """The bundle of a cell's operations; None where they have none, and where two edges join the same nodes."""
    if len(set(graph.edges)) < len(graph.edges):
        return None
    modules = [module for module in _modules(graph, 1) if module is not None]
    plain = (ConvolutionNorm, AveragePool)
    convolutions = any(isinstance(module, ConvolutionNorm) for module in modules)
    if graph.stride == 1 and convolutions and all(isinstance(m, plain) or m is identity for m in modules):
        return Bundle(_mixture, single=True)
    if set(KINDS) & set(graph.operations) and set(graph.operations) <= {"none", *KINDS, *LIGHT}:
        return Bundle(_separable, single=False)
    return None


def evaluate(
    graph: Graph, build: Build, bundle: Bundle, variables: stacks.Variables, nodes: list[Array], gates: Array
) -> dict[str, Array]:
    """Fill `nodes`, inputs and zeros, with the nodes of a cell under gates [E, K]; the signs before its ReLUs."""
    if graph.allowed is not None:
        gates = gates * jnp.asarray(graph.mask, gates.dtype)
    if not bundle.single and _complete(graph):
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
                sown[f"{name}_{source}"] = build.images_first(signs)
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
        f"{part}_{name}": build.images_first(signs)
        for part, patterns in (("inputs", from_inputs), ("nodes", from_nodes))
        for name, signs in patterns.items()
    }


def _modules(graph: Graph, stride: int) -> list[Any]:
    """Kind of each operation, whatever its channels."""
    return [stacks.module(name, stride, 1, Build(planes=True)) for name in graph.operations]


def _mixture(
    graph: Graph,
    x: Array,
    weights: Mapping[str, Any],
    gates: Array,
    stride: int,
    build: Build,
    count: Array | None = None,
) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """`mixed_edges` of convolutions, identities and average pools."""
    modules = dict(enumerate(_modules(graph, stride)))
    convolutions = [
        k for k, m in modules.items() if isinstance(m, ConvolutionNorm) and graph.operations[k] in weights
    ]
    skips = [k for k, m in modules.items() if m is identity]
    pools = [k for k, m in modules.items() if isinstance(m, AveragePool)]
    skip = sum((gates[:, k] for k in skips), start=jnp.zeros(len(gates), gates.dtype))
    if not convolutions:
        pooled = sum(jnp.multiply.outer(gates[:, k], modules[k](x)) for k in pools)
        return tuple(jnp.multiply.outer(skip, x) + pooled), {}
    widest = max(modules[k].size for k in convolutions)

    def stacked(read: Callable[[Any], Array]) -> Array:
        return jnp.stack([read(weights[graph.operations[k]]) for k in convolutions])

    def framed(group: Any) -> Array:
        border = (widest - group["kernel"].shape[1]) // 2
        return jnp.pad(group["kernel"], [(0, 0)] + [(border, border)] * 2 + [(0, 0)] * 2)

    pool = jnp.stack([gates[:, k] for k in pools]) if pools else jnp.zeros((0, len(gates)), gates.dtype)
    ys = mixed_edges(
        x,
        stacked(framed),
        stacked(lambda group: group["norm"]["scale"]),
        stacked(lambda group: group["norm"]["offset"]),
        jnp.stack([gates[:, k] for k in convolutions]),
        skip,
        pool,
        stride,
        True,
        build.statistics,
        tuple(modules[k].size for k in pools),
    )
    readers = jnp.sum(gates[:, jnp.array(convolutions)])
    return ys, {"node": (x > 0) & (readers > 0)}


def _separable(
    graph: Graph,
    x: Array,
    weights: Mapping[str, Any],
    gates: Array,
    stride: int,
    build: Build,
    count: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Separable and dilated convolutions, skip connections and 3x3 pools."""
    targets, channels = len(gates), len(x)

    def columns(names: tuple[str, ...]) -> Array:
        none = jnp.zeros(targets, gates.dtype)
        rows = [gates[:, graph.operations.index(n)] if n in graph.operations else none for n in names]
        return jnp.stack(rows, axis=1)

    def part(name: str, kind: str, index: int, shape: tuple[int, ...]) -> Array:
        """A parameter of a kind, zeros where the cell does not have it."""
        group = weights.get(name)
        if group is None:
            return jnp.zeros((targets, *shape), x.dtype)
        leaf = group[f"norms_{index}"][kind] if kind in ("scale", "offset") else group[f"{kind}_{index}"]
        return leaf.reshape(targets, *shape)

    parts: list[Any] = []
    for index, kinds in enumerate((KINDS, KINDS[: separable.SECONDS])):
        sides = [side for side, _ in separable.KINDS[: len(kinds)]]
        depthwise = [
            part(name, "depthwise", index, (side, side, channels))
            for name, side in zip(kinds, sides, strict=True)
        ]
        parts.append(tuple(depthwise))
        for kind, shape in (
            ("pointwise", (channels, channels)), ("scale", (channels,)), ("offset", (channels,)),
        ):  # fmt: skip
            parts.append(jnp.stack([part(name, kind, index, shape) for name in kinds], axis=1))
    convolved, light = columns(KINDS), columns(LIGHT)
    count = jnp.int32(targets) if count is None else count
    y, seconds = separable.convolutions(
        x, separable.Weights(*parts), convolved, count, stride, build.statistics, build.axis_name
    )
    y = y + pooling.skip_and_pools(x, light, stride)
    readers = jnp.sum(convolved)
    if stride > 1 and "skip_connect" in weights:
        group = weights["skip_connect"]
        plain, shifted = group["plain"][:, 0, 0], group["shifted"][:, 0, 0]
        norm = group["norm"]
        halved = separable.halve(
            x, plain, shifted, norm["scale"], norm["offset"], build.statistics, build.axis_name
        )
        y = y + light[:, 0, None, None, None, None] * halved
        readers = readers + jnp.sum(light[:, 0])
    twice = convolved[:, : separable.SECONDS, None, None, None, None] > 0
    return y, {"node": (x > 0) & (readers > 0), "second": (seconds > 0) & twice}
