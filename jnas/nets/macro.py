"""Networks of one cell after another: how residual networks are put together, and what all networks share.

A network is a Flax module called as `network.apply(variables, images, gates=..)` or `choices=..`; where every edge of
its cells may carry one operation (`restricted`) it takes neither (`jnas.nets.cell` says what the forms are).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.nets import cell, operations, stacks
from jnas.nets.fast import bundles
from jnas.nets.modules import (
    BatchNorm,
    Build,
    ConvolutionNorm,
    classify,
    gate_channels,
    initialiser,
    sow_pattern,
)
from jnas.nets.sizes import Place
from jnas.spaces.base import Graph


def build_of(build: Build, graphs: Sequence[Graph]) -> Build:
    """The build that cells without a hand-written kernel have in place of planes: images, differentiated in loops."""
    if build.planes and any(bundles.bundle_of(graph) is None for graph in graphs):
        return replace(build, planes=False, loops=True)
    return build


def restricted(network: Any, choices: Any) -> Any:
    """The network whose cells carry the operations `choices`, int[cells, E], alone."""
    graphs = tuple(
        graph.restricted([(int(k),) for k in row]) for graph, row in zip(network.graphs, choices, strict=True)
    )
    return network.clone(graphs=graphs)


def restricted_params(network: Any, params: Mapping[str, Any], choices: Any) -> dict[str, Any]:
    """The part of a network's parameters, or statistics, that `restricted` of it has."""
    rest = restricted(network, choices)
    part = {name: value for name, value in params.items() if name not in network.cell_kinds()}
    for name, kind in network.cell_kinds().items():
        before, after = stacks.weighted(network.graphs[kind]), stacks.weighted(rest.graphs[kind])
        weights = {}
        for operation, edges in after.items():
            rows = jnp.array([before[operation].index(edge) for edge in edges])
            take = partial(jnp.take, indices=rows, axis=network.edge_axis)
            weights[operation] = jax.tree.map(take, params[name][operation])
        part |= {name: weights} if weights else {}
    return part


class ResidualBlock(nn.Module):
    """Two convolutions beside pooling and a 1x1 convolution: half the image, twice the channels."""

    inputs: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        build, outputs = self.build, 2 * self.inputs
        sow_pattern(self, "relu_a", x > 0)
        h = ConvolutionNorm(self.inputs, outputs, 3, build, stride=2, name="conv_a")(x)
        sow_pattern(self, "relu_b", h > 0)
        h = ConvolutionNorm(outputs, outputs, 3, build, name="conv_b")(h)
        initialise = initialiser(build.initialisation)
        kernel = self.param("downsample", initialise, (1, 1, self.inputs, outputs))
        pooled = operations.average_pool_2x2(x, build.layout)
        shortcut = operations.pointwise_convolution(pooled, kernel, build.layout)
        return h + gate_channels(self, "downsample", shortcut)


class Residual(nn.Module):
    """The network of NAS-Bench-201 (Dong and Yang, ICLR 2020, https://arxiv.org/abs/2001.00326), of any cell.

    A stem, then for each stage `cells_per_stage` cells, with a residual block that halves the image and doubles the
    channels between stages, then normalisation, ReLU, global average pooling and a linear classifier. Images
    [N, H, W, channels] to logits [N, O].

    graphs: of the cell.
    channels: of the first stage; each later stage has twice as many.
    cells_per_stage, stages: how deep; NAS-Bench-201 trains 5 cells in each of 3 stages.
    stem: whether a convolution lifts the images to `channels`; without it they must have that many.
    """

    graphs: tuple[Graph, ...]
    channels: int
    classes: int
    build: Build
    cells_per_stage: int = 1
    stages: int = 3
    stem: bool = True

    # Of the weights of a stage's cells: the cells come first.
    edge_axis = 1

    def cell_kinds(self) -> dict[str, int]:
        """The kind of cell of each entry of the parameters that holds cells."""
        return {f"cells_{stage}": 0 for stage in range(self.stages)}

    def places(self, image: tuple[int, ...]) -> Iterator[Place]:
        """Every cell for images [H, W, C]."""
        height, width = image[:2]
        for stage in range(self.stages):
            if stage:
                height, width = -(-height // 2), -(-width // 2)
            yield from [Place(0, self.channels * 2**stage, height, width)] * self.cells_per_stage

    @nn.compact
    def __call__(self, images: Array, gates: Array | None = None, choices: Array | None = None) -> Array:
        """gates: float[1, E, K], or float[N, 1, E, K] of each image; choices: int32[1, E]."""
        if gates is not None and jnp.issubdtype(gates.dtype, jnp.integer):
            gates, choices = None, gates
        build = build_of(self.build, self.graphs)
        scaled = build.statistics == "none"
        x = jnp.transpose(images, (3, 0, 1, 2)) if build.planes else images
        if self.stem:
            x = ConvolutionNorm(images.shape[-1], self.channels, 3, build, relu=False, name="stem")(x)
            (x,) = boundary(self, "after_stem", x, scaled=scaled)
        channels = self.channels
        for stage in range(self.stages):
            if stage:
                x = ResidualBlock(channels, build, name=f"residual_{stage}")(x)
                (x,) = boundary(self, f"after_residual_{stage}", x, scaled=scaled)
                channels *= 2
            x = self._cells(stage, channels, build, x, gates, choices)
        x = BatchNorm(channels, build, name="last_norm")(x)
        self.sow("patterns", "last", build.images_first(x > 0))
        x = nn.relu(x)
        self.sow("features", "last", x)
        return classify(self, x, build)

    def _cells(
        self, stage: int, channels: int, build: Build, x: Array, gates: Array | None, choices: Array | None
    ) -> Array:
        """The cells of a stage, which differ in their weights alone: one loop, but for gates and outside of loops.

        A program then holds one cell a stage, not all of them, and compiles in a fraction of the time.
        """
        (graph,), count, name = self.graphs, self.cells_per_stage, f"cells_{stage}"
        variables = cell_variables(self, name, graph, channels, build, count)
        boundaries = self.variables.get("boundaries", {})
        after = [f"after_cell_{stage}_{index}" for index in range(count)]
        cuts = jnp.stack([boundaries[label] for label in after]) if after[0] in boundaries else None
        gates = None if gates is None else gates[..., 0, :, :]
        choices = None if choices is None else choices[0]
        averaging = self.is_mutable_collection("batch_stats") and not self.is_initializing()
        scaled = build.statistics == "none"

        def step(x: Array, inputs: Any) -> tuple[Array, Any]:
            weights, cut = inputs
            y, sown = cell.apply(
                graph, channels, build, weights, [x], gates=gates, choices=choices, averaging=averaging
            )
            (passed,), scale = pass_on((y,), cut, scaled)
            return passed, (sown, y, scale)

        if choices is not None or (gates is None and build.loops):
            x, (sown, features, scales) = jax.lax.scan(step, x, (variables, cuts), length=count)
        else:
            outs = []
            for index in range(count):
                x, out = step(x, jax.tree.map(lambda leaf, index=index: leaf[index], (variables, cuts)))
                outs.append(out)
            sown, features, scales = jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)
        # Images stay the first axis of signs, and cells become the last.
        sown.patterns = {part: jnp.moveaxis(signs, 0, -1) for part, signs in sown.patterns.items()}
        sown.readers = {part: readers[0] for part, readers in sown.readers.items()}
        sown.deviations = {part: jnp.sum(deviations) for part, deviations in sown.deviations.items()}
        sown.sow(self, name)
        for label, feature in zip(after, features, strict=True):
            self.sow("features", label, feature)
        if scales is not None:
            self.sow("scales", name, jnp.sum(scales))
        return x


def pass_on(
    arrays: tuple[Array, ...], cut: Array | None, scaled: bool
) -> tuple[tuple[Array, ...], Array | None]:
    """The inputs of the next block, and the logarithm of the size that they were divided by, if they were.

    arrays: of the last blocks, the youngest at the end; cut and scaled: as `boundary` says.
    """
    if cut is not None:
        *older, youngest = jax.lax.stop_gradient(arrays)
        return (*older, youngest + cut), None
    if not scaled:
        return arrays, None
    size = jax.lax.stop_gradient(jnp.mean(jnp.abs(arrays[-1])))
    # A block that gives zero stays zero, and its logarithm says so.
    divisor = jnp.where(size > 0, size, 1)
    return tuple(x / divisor for x in arrays), jnp.log(size)


def boundary(module: nn.Module, name: str, *arrays: Array, scaled: bool) -> tuple[Array, ...]:
    """Arrays that pass from the last blocks of `module`, the youngest at the end, to the next one.

    The youngest is sown in `features`. Where the collection `boundaries` holds an array for it, the blocks are cut
    apart: the next one reads the array added to it, through which alone it is differentiated. Where `scaled`, without
    normalisation, all are divided by the youngest's mean size, a constant to derivatives, whose logarithm is sown in
    `scales`: depth would overflow otherwise.
    """
    module.sow("features", name, arrays[-1])
    arrays, scale = pass_on(arrays, module.get_variable("boundaries", name, None), scaled)
    if scale is not None:
        module.sow("scales", name, scale)
    return arrays


def cell_variables(
    module: nn.Module, name: str, graph: Graph, channels: int, build: Build, count: int | None = None
) -> dict[str, Any]:
    """By collection the variables of a cell of `module`, in whose compact call this stands; of `count`, cells first."""
    if not stacks.weighted(graph):
        return {"params": {}}

    def initial(key: Array, collection: str) -> Any:
        plain = replace(build, planes=False, statistics="train")
        if count is None:
            return stacks.init(graph, channels, plain, key)[collection]
        keys = jax.random.split(key, count)
        return jax.vmap(lambda key: stacks.init(graph, channels, plain, key)[collection])(keys)

    variables = {"params": module.param(name, initial, "params")}
    if build.statistics == "running" or (
        build.statistics == "train" and module.is_mutable_collection("batch_stats")
    ):
        # Any key will do: statistics begin alike.
        key = jax.random.key(0)
        variables["batch_stats"] = module.variable("batch_stats", name, initial, key, "batch_stats").value
    if module.has_variable("channel_gates", name):
        variables["channel_gates"] = module.get_variable("channel_gates", name)
    return variables


def check_halved(shape: tuple[int, ...], stages: int) -> None:
    """Raise `InputError` unless images [.., H, W, C] can be halved once for each stage after the first."""
    height, width = shape[-3:-1]
    step = 2 ** (stages - 1)
    if height % step or width % step or min(height, width) < step:
        raise InputError(
            f"images of {height}x{width} do not fit a network of {stages} stages: "
            f"height and width must be multiples of {step}; resize the images"
        )
