"""The network that DARTS cells are trained as, with the operation of each edge as data: what proxies look at.

It computes what `jnas.nets.darts_macro.Network` computes of the genotype that the choices describe (Liu, Simonyan
and Yang, "DARTS", ICLR 2019, https://arxiv.org/abs/1806.09055), with weights for every operation on every edge:
one program serves all architectures. The edges of a cell are one loop over their weights, stacked along a first
axis, whose body runs the operation that is chosen alone, unless `vmap` over choices makes it run all; backwards it
runs again, as to keep what every operation might need would take a multiple of the memory.

Sown for proxies: the signs that ReLUs read (`patterns`) with how many read them (`readers`), what the cells put out
(`features`), logarithms of the deviations that normalisation divides by (`deviations`), and of what outputs are
divided by where there is no normalisation (`scales`).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.nets import darts_cost, operations
from jnas.nets.darts_macro import stem
from jnas.nets.darts_operations import POOLS, SEPARABLE, bring_inputs, module_of, pool
from jnas.nets.modules import Build, initialiser, sow_pattern
from jnas.spaces import darts
from jnas.spaces.genotype import INPUTS

FROM_INPUTS = [edge for edge, (source, _) in enumerate(darts.EDGES) if source < INPUTS]
FROM_NODES = [edge for edge, (source, _) in enumerate(darts.EDGES) if source >= INPUTS]
TWICE = [SEPARABLE[name][2] > 1 if name in SEPARABLE else False for name in darts.OPERATIONS]


def _reads(stride: int) -> np.ndarray:
    """Of each operation whether it begins with a ReLU: bool[K]."""
    return np.array(
        [name in SEPARABLE or (name == "skip_connect" and stride > 1) for name in darts.OPERATIONS]
    )


def _operation(
    stride: int, channels: int, build: Build, x: Array, choice: Array, variables: Mapping[str, Any]
) -> tuple[Array, Array, Array]:
    """The chosen operation of x, the log deviations of its normalisations, and the signs its second ReLU reads."""
    small = jax.eval_shape(lambda x: operations.every(x, stride, "NHWC"), x)
    no_signs, zero = jnp.zeros(small.shape, bool), jnp.zeros((), x.dtype)

    def branch(name: str) -> Callable[..., tuple[Array, Array, Array]]:
        def run(x: Array, variables: Mapping[str, Any]) -> tuple[Array, Array, Array]:
            module = module_of(name, channels, build, stride, parent=None)
            if module is not None:
                own = {collection: values[name] for collection, values in variables.items() if name in values}
                y, sown = module.apply(own, x, mutable=["deviations", "patterns"])
                signs = jax.tree.leaves(sown.get("patterns", {}))
                deviations = sum(jax.tree.leaves(sown.get("deviations", {})), start=zero)
                return y, deviations, signs[0] if signs else no_signs
            if name in POOLS:
                return pool(name, x, stride, "NHWC"), zero, no_signs
            return (x if name == "skip_connect" else jnp.zeros(small.shape, x.dtype)), zero, no_signs

        return run

    return jax.lax.switch(choice, [branch(name) for name in darts.OPERATIONS], x, variables)


class Cell(nn.Module):
    """The outputs of the two cells before, and the operation of each edge, int[E], to the output of a cell."""

    channels: int
    inputs: tuple[int, int]
    reduction: bool
    halve: bool
    build: Build

    @nn.compact
    def __call__(self, older: Array, younger: Array, choices: Array) -> Array:
        brought = jnp.stack(bring_inputs(self, older, younger))
        stride = 2 if self.reduction else 1
        small = operations.every(brought[0], stride, "NHWC")
        nodes = jnp.zeros((INPUTS + darts.NODES, *small.shape), small.dtype)
        if self.reduction:
            nodes = self._edges("halving", FROM_INPUTS, 2, brought, nodes, choices)
            nodes = self._edges("plain", FROM_NODES, 1, None, nodes, choices)
        else:
            nodes = nodes.at[:INPUTS].set(brought)
            nodes = self._edges("plain", range(len(darts.EDGES)), 1, None, nodes, choices)
        for node in range(INPUTS + darts.NODES - 1):
            x = brought[node] if node < INPUTS else nodes[node]
            leaving = [edge for edge, (source, _) in enumerate(darts.EDGES) if source == node]
            reads = jnp.asarray(_reads(stride if node < INPUTS else 1))[choices[jnp.array(leaving)]]
            sow_pattern(self, f"node_{node}", x > 0)
            self.sow("readers", f"node_{node}", jnp.sum(reads))
        return jnp.concatenate(list(nodes[INPUTS:]), axis=-1)

    def _edges(
        self,
        group: str,
        edges: Sequence[int],
        stride: int,
        inputs: Array | None,
        nodes: Array,
        choices: Array,
    ) -> Array:
        """`nodes` with what `edges` add, which read `inputs` or else the nodes themselves."""
        places = np.array(edges)
        own = choices[places]
        variables = self._variables(group, len(places), stride, nodes)
        operation = jax.checkpoint(partial(_operation, stride, self.channels, self.build))

        def step(nodes, edge):
            source, target, choice, variables = edge
            y, deviations, signs = operation((nodes if inputs is None else inputs)[source], choice, variables)
            return nodes.at[target].add(y), (deviations, signs)

        sources, targets = jnp.array(darts.EDGES, jnp.int32)[places].T
        nodes, (deviations, signs) = jax.lax.scan(step, nodes, (sources, targets, own, variables))
        if self.build.statistics != "none":
            self.sow("deviations", f"{group}_log", jnp.sum(deviations))
        for index, edge in enumerate(places):
            sow_pattern(self, f"edge_{edge}_second", signs[index])
            self.sow("readers", f"edge_{edge}_second", jnp.asarray(TWICE)[own[index]].astype(jnp.int32))
        return nodes

    def _variables(self, group: str, edges: int, stride: int, nodes: Array) -> dict[str, Any]:
        """By collection and operation the weights of each of `edges`, [edges, ...], and gates of their channels."""

        def drawn(key: Array, name: str) -> Any:
            module: Any = module_of(name, self.channels, self.build, stride, parent=None)
            return jax.vmap(lambda key: module.init(key, nodes[0])["params"])(jax.random.split(key, edges))

        weighted = [*SEPARABLE, "skip_connect"] if stride > 1 else [*SEPARABLE]
        names = [name for name in weighted if name in darts.OPERATIONS]
        variables: dict[str, Any] = {"params": {}, "channel_gates": {}}
        for name in names:
            place = f"{group}_{name}"
            variables["params"][name] = self.param(place, drawn, name)
            if self.has_variable("channel_gates", place):
                variables["channel_gates"][name] = self.get_variable("channel_gates", place)
        return variables


class Network(nn.Module):
    """Images [N, H, W, channels] and the operation of each edge, int[2, E], to logits [N, O].

    channels, cells_per_stage, stages: as those of `jnas.nets.darts_macro.Network`.
    """

    channels: int
    classes: int
    build: Build
    cells_per_stage: int = 6
    stages: int = 3

    @nn.compact
    def __call__(self, images: Array, choices: Array) -> Array:
        build, channels = self.build, self.channels
        older, younger, inputs, halve = stem(self, channels, images)
        one = older is younger
        self.sow("features", "after_stem", younger)
        older, younger = self._pass_on("after_stem", older, younger)
        # A first cell that reads one image twice is differentiated through both.
        older = younger if one else older
        for index, reduction in enumerate(darts_cost.reductions(self.cells_per_stage, self.stages)):
            channels *= 2 if reduction else 1
            cell = Cell(channels, inputs, reduction, halve, build, name=f"cell_{index}")
            name, y = f"after_cell_{index}", cell(older, younger, choices[int(reduction)])
            self.sow("features", name, y)
            older, younger = self._pass_on(name, younger, y)
            inputs, halve = (inputs[1], darts.NODES * channels), reduction
        self.sow("features", "last", younger)
        features = jnp.mean(younger, axis=(1, 2))
        self.sow("features", "pooled", features)
        initialise = initialiser(build.initialisation)
        kernel = self.param("classifier_kernel", initialise, (inputs[1], self.classes))
        bias = self.param("classifier_bias", nn.initializers.zeros, (self.classes,))
        return features @ kernel + bias

    def _pass_on(self, name: str, older: Array, younger: Array) -> tuple[Array, Array]:
        """What the next cell reads of the outputs of the last two blocks.

        Where the collection `boundaries` holds an array for the younger one, the blocks are cut apart: the next
        cell reads the array added to it, through which alone it is differentiated. Without normalisation both are
        divided by the younger one's mean size, a constant to derivatives: logits divide by it too.
        """
        if self.has_variable("boundaries", name):
            cut: Array = self.get_variable("boundaries", name)
            return jax.lax.stop_gradient(older), jax.lax.stop_gradient(younger) + cut
        if self.build.statistics != "none":
            return older, younger
        size = jax.lax.stop_gradient(jnp.mean(jnp.abs(younger)))
        self.sow("scales", name, jnp.log(size))
        # A block that gives zero stays zero, and its logarithm says so.
        divisor = jnp.where(size > 0, size, 1)
        return older / divisor, younger / divisor
