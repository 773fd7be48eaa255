"""One definition of cells, evaluated in three forms.

A node adds up the operations on its edges, `x_t = sum_e sum_k gate_ek op_k(x_s)` for edges e from s to t
(`jnas.spaces.base.Graph`). Weights are stacked over the edges that may carry an operation (`jnas.nets.stacks`), so
that the forms are indexing:

    gates     float[E, K], or float[N, E, K] of each image: all operations, weighed; one map over the edges of a node
    choices   int32[E]: one program for all architectures that runs only the chosen operations
    neither   each edge may carry one operation (`Graph.restricted`): compiled for that cell

On planes, gates go through the hand-written kernels of `jnas.nets.fast`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.nets import operations, stacks
from jnas.nets.candidates import identity
from jnas.nets.fast import bundles
from jnas.nets.modules import CONVOLUTION, Build
from jnas.spaces.base import Graph

# A cell of more edges is a loop over them, whose body runs again backwards: edges one by one would compile long, and
# what every operation of every edge might need backwards would take a multiple of the memory.
EDGES_ONE_BY_ONE = 8


class Drop(NamedTuple):
    """Paths dropped in training: the probability, and the key of a cell."""

    rate: Array | float
    key: Array


@jax.tree_util.register_dataclass
@dataclass
class Sown:
    """Arrays that proxies and statistics read, by name.

    patterns: bool[N, ...], signs before ReLUs, false where no ReLU reads them; readers: how many ReLUs read them.
    deviations: sums of logarithms of the deviations that normalisation divides by.
    batch_stats: running statistics moved towards the batch's, by operation.
    """

    patterns: dict[str, Array] = field(default_factory=dict)
    readers: dict[str, Array] = field(default_factory=dict)
    deviations: dict[str, Array] = field(default_factory=dict)
    batch_stats: dict[str, Any] = field(default_factory=dict)

    def sow(self, module: nn.Module, name: str) -> None:
        """Sow all in a network as those of its cell `name`."""
        for collection in ("patterns", "readers", "deviations"):
            for part, value in getattr(self, collection).items():
                module.sow(collection, f"{name}_{part}", value)
        if self.batch_stats:
            module.put_variable("batch_stats", name, self.batch_stats)


@dataclass
class _Pass:
    """One evaluation of a cell: what is evaluated, and the nodes and sown arrays so far."""

    graph: Graph
    channels: int
    build: Build
    variables: stacks.Variables
    averaging: bool
    nodes: list[Array]
    sown: Sown

    def module(self, k: int, stride: int) -> Any:
        return stacks.module(self.graph.operations[k], stride, self.channels, self.build)

    def run(self, module: Any, variables: Mapping[str, Any], x: Array) -> tuple[Array, Mapping[str, Any]]:
        """The output of a module with weights, and the collections that it sows."""
        mutable = ["patterns", "deviations", *["batch_stats"] * self.averaging]
        return module.apply(variables, x, mutable=mutable)

    def add(self, edge: int, y: Array) -> None:
        target = self.graph.edges[edge][1]
        self.nodes[target] = self.nodes[target] + y

    def sow_node(self, source: int, readers: Any) -> None:
        """The signs of a node, which `readers` ReLUs read."""
        signs = (self.nodes[source] > 0) & (readers > 0)
        self.sown.patterns[f"node_{source}"] = self.build.images_first(signs)
        self.sown.readers[f"node_{source}"] = jnp.asarray(readers)


def apply(
    graph: Graph,
    channels: int,
    build: Build,
    variables: stacks.Variables,
    inputs: Sequence[Array],
    *,
    gates: Array | None = None,
    choices: Array | None = None,
    drop: Drop | None = None,
    averaging: bool = False,
) -> tuple[Array, Sown]:
    """The output of a cell (its output nodes side by side along the channels), and the arrays that it sows.

    Args:
      variables: `params`, and `batch_stats` and `channel_gates` where there are any, by operation.
      inputs: float[N, H, W, C] each, or planes [C, N, H, W].
      gates: float[E, K] or float[N, E, K]; choices: int32[E]; neither where each edge may carry one operation.
      averaging: whether running statistics move towards the batch's.
    """
    small = jax.eval_shape(lambda x: operations.every(x, graph.stride, build.layout), inputs[0])
    nodes = [*inputs, *[jnp.zeros(small.shape, small.dtype)] * (graph.nodes - graph.inputs)]
    this = _Pass(graph, channels, build, variables, averaging, nodes, Sown())
    bundle = bundles.bundle_of(graph) if build.planes else None
    if bundle is not None and choices is not None and not bundle.single:
        gates, choices = jax.nn.one_hot(choices, len(graph.operations), dtype=inputs[0].dtype), None
    if choices is not None:
        _by_choices(this, choices)
    elif bundle is not None:
        gates = jnp.asarray(graph.mask, inputs[0].dtype) if gates is None else gates
        if gates.ndim > 2:
            raise ValueError("planes take gates [E, K], the same for all images")
        this.sown.patterns = bundles.evaluate(graph, build, bundle, variables, this.nodes, gates)
    else:
        _by_gates(this, gates, drop)
    outputs = [this.nodes[node] for node in graph.outputs or (-1,)]
    joined = jnp.concatenate(outputs, build.layout.index("C")) if len(outputs) > 1 else outputs[0]
    return joined, this.sown


def _by_gates(this: _Pass, gates: Array | None, drop: Drop | None) -> None:
    """All operations that edges may carry, weighed by gates, or as they are where each edge may carry one."""
    graph, sown = this.graph, this.sown
    statistics: dict[str, dict[int, Any]] = {}

    def weight(edge: int, k: int) -> Array | float:
        if gates is None:
            return 1.0
        gate: Array = gates[..., edge, k]
        return gate[:, None, None, None] if gate.ndim else gate

    for source in range(graph.nodes):
        leaving, x = graph.leaving(source), this.nodes[source]
        weights = dict(zip(leaving, stacks.of_edges(graph, this.variables, leaving, leaving), strict=True))
        readers: Any = 0
        for k, name in enumerate(graph.operations):
            edges = [edge for edge in leaving if k in graph.choices[edge]]
            module = this.module(k, graph.stride_of(edges[0])) if edges else None
            if module is None:
                continue
            # The operation on all its edges at once.
            parts: list[Any]
            if not isinstance(module, nn.Module):
                parts = [(module(x), {})] * len(edges)
            else:
                rows = [stacks.of_operation(weights[edge], name) for edge in edges]
                if len(edges) == 1 or this.build.loops or gates is None:
                    # In loops a map over edges would make convolutions by groups, which are slow there. A network
                    # of one architecture is compiled for its many steps, which a map slows where edges share a node.
                    parts = [this.run(module, row, x) for row in rows]
                else:
                    mapped = jax.vmap(partial(this.run, module, x=x))(stacks.stack(rows))
                    parts = [stacks.take(mapped, place) for place in range(len(edges))]
                if stacks.operation(name).relus:
                    readers = readers + sum(weight(edge, k) > 0 for edge in edges)
            # Each edge to its target, with the arrays that it sows.
            for edge, (y, extra) in zip(edges, parts, strict=True):
                for number, signs in enumerate(jax.tree.leaves(extra.get("patterns", {}))):
                    sown.patterns[f"edge_{edge}_{name}_{number}"] = signs & (weight(edge, k) > 0)
                    sown.readers[f"edge_{edge}_{name}_{number}"] = jnp.asarray(weight(edge, k) > 0)
                if extra.get("deviations"):
                    total = jnp.stack(jax.tree.leaves(extra["deviations"])).sum()
                    sown.deviations[f"edge_{edge}_{name}"] = total
                if "batch_stats" in extra:
                    statistics.setdefault(name, {})[edge] = extra["batch_stats"]
                if drop is not None and module is not identity:
                    y = drop_path(jax.random.fold_in(drop.key, edge), y, drop.rate)
                this.add(edge, y if gates is None else weight(edge, k) * y)
        if not isinstance(readers, int) or readers:
            this.sow_node(source, readers)
    sown.batch_stats = {
        name: stacks.stack([rows[edge] for edge in sorted(rows)]) for name, rows in statistics.items()
    }


def drop_path(key: Array, x: Array, rate: Array | float) -> Array:
    """x [N, ...] with each image's zero with probability `rate`, and divided by the probability of being kept."""
    stays = jax.random.bernoulli(key, 1 - rate, (len(x), *(1,) * (x.ndim - 1)))
    return x * (stays / (1 - rate)).astype(x.dtype)


def _switch(this: _Pass, stride: int) -> Callable[[Array, Array, Any], tuple[Array, Any]]:
    """(x, choice, variables by collection and operation) to the output of the chosen operation and what it sows.

    Sown: the sum of log deviations, the signs that inner ReLUs read (of as many as any operation has), statistics.
    """
    shape, names = this.nodes[-1].shape, this.graph.operations
    most = max(stacks.operation(name).relus for name in names) - 1

    def evaluate(k: int, x: Array, variables: Any) -> tuple[Array, Any]:
        module = this.module(k, stride)
        extra: Mapping[str, Any] = {}
        if isinstance(module, nn.Module):
            y, extra = this.run(module, stacks.of_operation(variables, names[k]), x)
        else:
            y = jnp.zeros(shape, x.dtype) if module is None else module(x)
        deviation = sum(jax.tree.leaves(extra.get("deviations", {})), start=jnp.zeros((), x.dtype))
        signs = jax.tree.leaves(extra.get("patterns", {}))
        signs += [jnp.zeros(shape, bool)] * (most - len(signs))
        statistics = dict(variables.get("batch_stats", {}))
        if "batch_stats" in extra:
            statistics[names[k]] = extra["batch_stats"]
        return y, (deviation, signs, statistics)

    branches = [partial(evaluate, k) for k in range(len(names))]
    # Backwards, each branch would keep arrays for itself and zeros for all others. Computing all but convolutions anew
    # takes a fraction of the memory, and less time.
    return jax.checkpoint(
        lambda x, choice, variables: jax.lax.switch(choice, branches, x, variables),
        policy=jax.checkpoint_policies.save_only_these_names(CONVOLUTION),
    )


def _by_choices(this: _Pass, choices: Array) -> None:
    """The chosen operation of each edge, and no other."""
    graph, sown, inputs = this.graph, this.sown, this.graph.inputs
    # By source, so that a node is complete before it is read; edges that halve the image leave inputs.
    order = sorted(range(len(graph.edges)), key=graph.edges.__getitem__)
    extras: dict[int, Any] = {}
    for stride in sorted({graph.stride, 1}, reverse=True):
        edges = [edge for edge in order if graph.stride_of(edge) == stride]
        if not edges:
            continue
        switch = _switch(this, stride)
        rows = stacks.of_edges(graph, this.variables, edges, edges)
        if len(graph.edges) <= EDGES_ONE_BY_ONE:
            for edge, row in zip(edges, rows, strict=True):
                y, extras[edge] = switch(this.nodes[graph.edges[edge][0]], choices[edge], row)
                this.add(edge, y)
            continue
        # One loop over the edges. Inputs of the size of the nodes lie among them, larger ones beside them.
        larger = jnp.stack(this.nodes[:inputs]) if stride > 1 else None
        room = [jnp.zeros_like(node) for node in this.nodes[-1:]] * inputs
        nodes = jnp.stack([*(room if graph.stride > 1 else this.nodes[:inputs]), *this.nodes[inputs:]])

        def step(nodes, edge, larger=larger, switch=switch):
            (source, target), choice, row = edge
            y, extra = switch((nodes if larger is None else larger)[source], choice, row)
            return nodes.at[target].add(y), extra

        ends = jnp.array([graph.edges[edge] for edge in edges], jnp.int32)
        nodes, stacked = jax.lax.scan(step, nodes, (ends, choices[np.array(edges)], stacks.stack(rows)))
        this.nodes[inputs:] = list(nodes[inputs:])
        extras |= {edge: stacks.take(stacked, place) for place, edge in enumerate(edges)}

    # Sow for each node and each edge the ReLUs of the chosen operations alone.
    places = stacks.weighted(graph)
    relus = np.array(
        [
            [stacks.operation(name).relus * (edge in places.get(name, ())) for name in graph.operations]
            for edge in range(len(graph.edges))
        ]
    )
    chosen = jnp.take_along_axis(jnp.asarray(relus), choices[:, None], 1)[:, 0]
    for source in range(graph.nodes):
        if leaving := graph.leaving(source):
            this.sow_node(source, jnp.sum(chosen[np.array(leaving)] > 0))
    for edge, (deviation, signs, _) in extras.items():
        sown.deviations[f"edge_{edge}"] = deviation
        for number, inner in enumerate(signs):
            sown.patterns[f"edge_{edge}_{number}"] = this.build.images_first(inner)
            sown.readers[f"edge_{edge}_{number}"] = (chosen[edge] > number + 1).astype(jnp.int32)
    if this.averaging and "batch_stats" in this.variables:
        sown.batch_stats = {
            name: stacks.stack([extras[edge][2][name] for edge in edges]) for name, edges in places.items()
        }
