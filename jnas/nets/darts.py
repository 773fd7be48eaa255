"""The DARTS networks for searching: a supernet whose gates are data.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
https://arxiv.org/abs/1806.09055. A cell reads the outputs of the two cells before it, each brought to its number
of channels; each of its four nodes adds up the gate-weighted operations on the edges from earlier nodes; the
nodes side by side are its output. Reduction cells halve the image and double the channels: their edges from the
two inputs have stride 2. All normal cells share their gates, and all reduction cells theirs.

As in TE-NAS's scoring networks (Chen, Gong and Wang, ICLR 2021, https://arxiv.org/abs/2102.11535) pooling and
skip connections are not normalised, and normalisation and ReLU stand before the global average pooling.

On planes (`Build.planes`) one loop serves the inputs of a cell and one its nodes, so that a program holds two
bodies a cell and not one for each of its 14 edges: it compiles in a fraction of the time. The networks that are
trained from scratch are in `jnas.nets.darts_macro`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.nets.darts_edges import Edges, on_planes
from jnas.nets.darts_operations import bring_inputs
from jnas.nets.modules import BatchNorm, Build, ConvolutionNorm, initialiser, sow_pattern
from jnas.spaces import darts
from jnas.spaces.genotype import INPUTS

# Nodes that edges leave.
SOURCES = range(INPUTS + darts.NODES - 1)


def edges_from(source: int) -> list[int]:
    """The places among `darts.EDGES` of the edges that leave a node, by target."""
    return [edge for edge, (start, _) in enumerate(darts.EDGES) if start == source]


class Cell(nn.Module):
    """The outputs of the two cells before, and gates [E, K] or [N, E, K], to the output of a cell.

    inputs: channels of the two inputs. halve: whether the older input is twice as large as the younger one.
    """

    channels: int
    inputs: tuple[int, int]
    reduction: bool
    halve: bool
    build: Build

    @nn.compact
    def __call__(self, older: Array, younger: Array, gates: Array) -> Array:
        build = self.build
        inputs = bring_inputs(self, older, younger)
        edges = [
            Edges(
                self.channels, len(edges_from(source)), build,
                2 if self.reduction and source < INPUTS else 1, name=f"from_{source}",
            )
            for source in SOURCES
        ]  # fmt: skip
        if build.planes and not self.is_initializing():
            return self._on_planes(inputs, edges, gates)
        nodes: list = [*inputs, *[0.0] * darts.NODES]
        for source in SOURCES:
            leaving = edges_from(source)
            for edge, y in zip(
                leaving, edges[source](nodes[source], gates[..., jnp.array(leaving), :]), strict=True
            ):
                target = darts.EDGES[edge][1]
                nodes[target] = nodes[target] + y
        return jnp.concatenate(nodes[INPUTS:], axis=-1)

    def _on_planes(self, inputs: Sequence[Array], edges: Sequence[Edges], gates: Array) -> Array:
        if gates.ndim > 2:
            raise ValueError("planes take gates [E, K], the same for all images")
        build = self.build
        own = [(*edge.arrays(), gates[jnp.array(edges_from(source))]) for source, edge in enumerate(edges)]

        def padded(values, size):
            return jax.tree.map(
                lambda array: jnp.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1)), values
            )

        def stacked(values):
            return jax.tree.map(lambda *arrays: jnp.stack(arrays), *values)

        stride = edges[0].stride

        def from_input(nodes, source):
            x, (weights, halving, own_gates) = source
            count = jnp.int32(darts.NODES)
            y, patterns = on_planes(x, weights, halving, own_gates, count, stride, build)
            return nodes + y, patterns

        shape = [-(-side // stride) for side in inputs[0].shape[-2:]]
        nodes = jnp.zeros((darts.NODES, *inputs[0].shape[:2], *shape), inputs[0].dtype)
        nodes, from_inputs = jax.lax.scan(from_input, nodes, (jnp.stack(inputs), stacked(own[:INPUTS])))
        most = darts.NODES - 1

        def from_node(nodes, source):
            number, (weights, halving, own_gates) = source
            y, patterns = on_planes(nodes[number], weights, halving, own_gates, most - number, 1, build)
            before = jax.lax.dynamic_slice_in_dim(nodes, number + 1, most)
            return jax.lax.dynamic_update_slice_in_dim(nodes, before + y, number + 1, 0), patterns

        # The last node that edges leave has one target: what its others would be lies beyond the nodes.
        room = jnp.concatenate([nodes, jnp.zeros_like(nodes[: most - 1])])
        later = stacked([padded(values, most) for values in own[INPUTS:]])
        nodes, from_nodes = jax.lax.scan(from_node, room, (jnp.arange(most, dtype=jnp.int32), later))
        for name, patterns in (("inputs", from_inputs), ("nodes", from_nodes)):
            for part, pattern in zip(("first", "second"), patterns, strict=True):
                sow_pattern(self, f"{name}_{part}", pattern)
        return nodes[: darts.NODES].reshape(-1, *nodes.shape[2:])


class Network(nn.Module):
    """Images [N, H, W, channels] and gates [2, E, K] to logits [N, O]; gates [N, 2, E, K] are each image's own.

    Integers [2, E] are the operation of each edge.

    channels: of the first cell's nodes; the first reduction cell doubles them, and so on.
    reductions: for each cell in order whether it is a reduction cell; TE-NAS scores one of each.
    stem: whether a convolution lifts the images to `channels`; without it they must have that many.
    """

    channels: int
    classes: int
    build: Build
    reductions: tuple[bool, ...] = (False, True)
    stem: bool = True

    @nn.compact
    def __call__(self, images: Array, gates: Array) -> Array:
        build, channels = self.build, self.channels
        if jnp.issubdtype(gates.dtype, jnp.integer):
            gates = jax.nn.one_hot(gates, len(darts.OPERATIONS), dtype=images.dtype)
        x = jnp.transpose(images, (3, 0, 1, 2)) if build.planes else images
        if self.stem:
            x = ConvolutionNorm(images.shape[-1], channels, 3, build, relu=False, name="stem")(x)
        older, younger = x, x
        inputs, halve = (channels, channels), False
        for index, reduction in enumerate(self.reductions):
            channels *= 2 if reduction else 1
            cell = Cell(channels, inputs, reduction, halve, build, name=f"cell_{index}")
            older, younger = younger, cell(older, younger, gates[..., int(reduction), :, :])
            inputs, halve = (inputs[1], darts.NODES * channels), reduction
        x = BatchNorm(inputs[1], build, name="last_norm")(younger)
        sow_pattern(self, "last", x > 0)
        x = nn.relu(x)
        x = jnp.mean(x, axis=(build.layout.index("H"), build.layout.index("W")))
        features = x.T if build.planes else x
        self.sow("features", "pooled", features)
        initialise = initialiser(build.initialisation)
        kernel = self.param("classifier_kernel", initialise, (inputs[1], self.classes))
        bias = self.param("classifier_bias", nn.initializers.zeros, (self.classes,))
        return features @ kernel + bias


def check_images(shape: tuple[int, ...], reductions: int) -> None:
    """Raise `InputError` unless images [.., H, W, C] leave something after `reductions` halvings."""
    if min(shape[-3:-1]) < 2**reductions:
        raise InputError(
            f"images of {shape[-3]}x{shape[-2]} do not fit a network of {reductions} reduction cells: "
            f"give at least {2**reductions}x{2**reductions}"
        )
