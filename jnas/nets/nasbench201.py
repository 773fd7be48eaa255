"""The NAS-Bench-201 networks: one definition for the supernet and for every single cell.

A cell adds up, at each of its nodes, the gate-weighted operations on the edges from earlier nodes
(Dong and Yang, "NAS-Bench-201", ICLR 2020, https://arxiv.org/abs/2001.00326). The network is a stem, then
for each stage `cells_per_stage` cells, with a residual block that halves the image and doubles the channels
between stages, then normalisation, ReLU, global average pooling and a linear classifier.

With `architecture=None` every operation is present and the gates are data (the masked build); with an
architecture only its operations are present and gates are not needed (the specialised build). The
parameters of the specialised build are a subset of the masked build's, by the same names.

Before each ReLU that the authors' networks have, the sign pattern is sown in the collection `patterns`
(where the caller makes it mutable), with zeros where no operation reads that ReLU.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from jnas.errors import InputError
from jnas.nets import operations
from jnas.nets.modules import (
    BatchNorm,
    Build,
    ConvolutionNorm,
    chosen,
    initialiser,
    log_deviation,
    mix,
    sow_pattern,
)
from jnas.spaces import nasbench201

# What cells sow for proxies.
SOWN_BY_CELLS = ("patterns", "readers", "deviations")
CONVOLUTIONS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


class Cell(nn.Module):
    """x to the last node of a cell; gates [E, K], [N, E, K] or, if `architecture` is given, ignored."""

    channels: int
    build: Build
    architecture: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, x: Array, gates: Array | None = None) -> Array:
        space, build = nasbench201.SPACE, self.build
        names = space.operations
        choices = None
        if self.architecture is None:
            if gates is None:
                raise ValueError("the masked build needs gates")
            if _are_choices(gates):
                choices, gates = gates, jax.nn.one_hot(gates, len(names), dtype=x.dtype)
        else:
            gates = jax.nn.one_hot(jnp.array(self.architecture), len(names), dtype=x.dtype)
        nodes: list[Array | float] = [x] + [0.0] * max(target for _, target in space.edges)
        for source in range(len(nodes) - 1):
            h = nodes[source]
            if isinstance(h, float):
                # A node that nothing feeds is zero everywhere, and feeds nothing on its own.
                h = jnp.zeros_like(x)
            leaving = [(edge, target) for edge, (start, target) in enumerate(space.edges) if start == source]
            present = {
                edge: names if self.architecture is None else (names[self.architecture[edge]],)
                for edge, _ in leaving
            }
            modules = {
                (edge, name): ConvolutionNorm(
                    self.channels, self.channels, size, build, name=f"edge_{source}_{target}_{name}"
                )
                for edge, target in leaving
                for name, size in CONVOLUTIONS.items()
                if name in present[edge]
            }
            weight = {
                (edge, name): _for_images(gates[..., edge, names.index(name)])
                for edge, _ in leaving
                for name in names
            }
            if modules:
                read = sum((weight[key] for key in modules), start=jnp.zeros((), x.dtype)) > 0
                sow_pattern(self, f"node_{source}", (h > 0) & read)
                self.sow("readers", f"node_{source}", sum(weight[key] > 0 for key in modules))
            if choices is not None:
                for edge, target in leaving:
                    arrays = {name: modules[edge, name].arrays() for name in CONVOLUTIONS}
                    y, mean, variance = chosen(h, choices[edge], names, arrays, build)
                    self.sow("deviations", f"edge_{source}_{target}", log_deviation(variance))
                    if build.statistics == "train" and self.is_mutable_collection("batch_stats"):
                        # Of the operations that are not chosen as well: nothing reads theirs.
                        for name in CONVOLUTIONS:
                            modules[edge, name].norm.follow(mean, variance)
                    nodes[target] += y
                continue
            if build.planes and self.architecture is None:
                if gates.ndim > 2:
                    raise ValueError("planes take gates [E, K], the same for all images")
                gated = jnp.stack(
                    [jnp.stack([weight[edge, name] for edge, _ in leaving]) for name in CONVOLUTIONS]
                )
                rows = [[modules[edge, name] for edge, _ in leaving] for name in CONVOLUTIONS]
                skip = jnp.stack([weight[edge, "skip_connect"] for edge, _ in leaving])
                pool = jnp.stack([weight[edge, "avg_pool_3x3"] for edge, _ in leaving])
                for (_, target), y in zip(leaving, mix(h, rows, gated, skip, pool), strict=True):
                    nodes[target] += y
                continue
            pooled = None
            for (edge, name), module in modules.items():
                nodes[space.edges[edge][1]] += weight[edge, name] * module(h)
            for edge, target in leaving:
                if "skip_connect" in present[edge]:
                    nodes[target] += weight[edge, "skip_connect"] * h
                if "avg_pool_3x3" in present[edge]:
                    pooled = operations.average_pool_3x3(h, build.layout) if pooled is None else pooled
                    nodes[target] += weight[edge, "avg_pool_3x3"] * pooled
        last = nodes[-1]
        return jnp.zeros_like(x) if isinstance(last, float) else last


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
        return h + operations.pointwise_convolution(pooled, kernel, build.layout)


class Network(nn.Module):
    """Images [N, H, W, channels] and gates [1, E, K] to logits [N, O]; gates [N, 1, E, K] are each image's own.

    channels: of the first stage; each later stage has twice as many.
    cells_per_stage, stages: how deep; NAS-Bench-201 trains 5 cells in each of 3 stages.
    stem: whether a convolution lifts the images to `channels`; without it they must have that many.
    """

    channels: int
    classes: int
    build: Build
    cells_per_stage: int = 1
    stages: int = 3
    stem: bool = True
    architecture: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, images: Array, gates: Array | None = None) -> Array:
        build = self.build
        x = jnp.transpose(images, (3, 0, 1, 2)) if build.layout == "CNHW" else images
        if self.stem:
            x = ConvolutionNorm(images.shape[-1], self.channels, 3, build, relu=False, name="stem")(x)
            x = self._boundary("after_stem", x)
        channels = self.channels
        for stage in range(self.stages):
            if stage > 0:
                x = ResidualBlock(channels, build, name=f"residual_{stage}")(x)
                x = self._boundary(f"after_residual_{stage}", x)
                channels *= 2
            if not self.is_initializing() and gates is not None and _are_choices(gates):
                x = self._chosen_cells(stage, channels, x, gates[0])
                continue
            own = None if gates is None else gates[0] if _are_choices(gates) else gates[..., 0, :, :]
            for index in range(self.cells_per_stage):
                cell = Cell(channels, build, self.architecture, name=f"cell_{stage}_{index}")
                x = cell(x, own)
                x = self._boundary(f"after_cell_{stage}_{index}", x)
        x = BatchNorm(channels, build, name="last_norm")(x)
        sow_pattern(self, "last", x > 0)
        x = nn.relu(x)
        self.sow("features", "last", x)
        x = jnp.mean(x, axis=(build.layout.index("H"), build.layout.index("W")))
        features = x.T if build.layout == "CNHW" else x
        self.sow("features", "pooled", features)
        initialise = initialiser(build.initialisation)
        kernel = self.param("classifier_kernel", initialise, (channels, self.classes))
        bias = self.param("classifier_bias", nn.initializers.zeros, (self.classes,))
        return features @ kernel + bias

    def _chosen_cells(self, stage: int, channels: int, x: Array, choices: Array) -> Array:
        """The cells of a stage in the form by choices, as one loop: they differ in their parameters alone.

        A program holds one cell a stage, not all of them, and compiles in a fraction of the time.
        """
        names = [f"cell_{stage}_{index}" for index in range(self.cells_per_stage)]
        cell = Cell(channels, self.build, parent=None)
        own = {
            collection: [values[name] for name in names]
            for collection, values in self.variables.items()
            if all(name in values for name in names)
        }
        followed = ["batch_stats"] if self.is_mutable_collection("batch_stats") else []
        boundaries = self.variables.get("boundaries", {})
        cuts = [boundaries[f"after_{name}"] for name in names if f"after_{name}" in boundaries]
        stacked = {
            collection: jax.tree.map(lambda *values: jnp.stack(values), *values)
            for collection, values in own.items()
        }

        def step(x, inputs):
            variables, cut = inputs
            y, sown = cell.apply(variables, x, choices, mutable=[*SOWN_BY_CELLS, *followed])
            passed, scale = self._pass_on(y, cut)
            return passed, (sown, y, scale)

        x, (sown, features, scales) = jax.lax.scan(
            step, x, (stacked, jnp.stack(cuts) if cuts else None), length=self.cells_per_stage
        )
        for index, name in enumerate(names if "batch_stats" in sown else []):
            own = jax.tree.map(lambda value, index=index: value[index], sown["batch_stats"])
            self.put_variable("batch_stats", name, own)
        for collection, values in sown.items():
            if collection == "batch_stats":
                continue
            for name, (value,) in traverse_util.flatten_dict(values, sep="_").items():
                # Images stay the first axis of what has images.
                value = jnp.moveaxis(value, 0, -1) if collection == "patterns" else jnp.sum(value, axis=0)
                if collection == "readers":
                    value = value // self.cells_per_stage
                self.sow(collection, f"cells_{stage}_{name}", value)
        for name, feature in zip(names, features, strict=True):
            self.sow("features", f"after_{name}", feature)
        if scales is not None:
            self.sow("scales", f"cells_{stage}", jnp.sum(scales))
        return x

    def _pass_on(self, x: Array, cut: Array | None) -> tuple[Array, Array | None]:
        """What the next block reads, and the logarithm of what x was divided by, if it was."""
        if cut is not None:
            return jax.lax.stop_gradient(x) + cut, None
        if self.build.statistics != "none":
            return x, None
        size = jax.lax.stop_gradient(jnp.mean(jnp.abs(x)))
        # A block that gives zero stays zero, and its logarithm says so.
        return x / jnp.where(size > 0, size, 1), jnp.log(size)

    def _boundary(self, name: str, x: Array) -> Array:
        """What passes from one block to the next.

        It is sown in `features`. Where the collection `boundaries` holds an array for it, the blocks are cut
        apart: the next one reads the array added to x, through which alone it is differentiated. Without
        normalisation x is divided by its mean size, a constant to derivatives, whose logarithm is sown in
        `scales`: depth would overflow otherwise.
        """
        self.sow("features", name, x)
        x, scale = self._pass_on(x, self.get_variable("boundaries", name, None))
        if scale is not None:
            self.sow("scales", name, scale)
        return x


def _for_images(weight: Array) -> Array:
    """A gate for all images as it is, gates [N] shaped to weigh images [N, H, W, C]."""
    return weight if weight.ndim == 0 else weight[:, None, None, None]


def _are_choices(gates: Array) -> bool:
    return jnp.issubdtype(gates.dtype, jnp.integer)


def check_images(shape: tuple[int, ...], stages: int) -> None:
    """Raise `InputError` unless images [.., H, W, C] can be halved once for each stage after the first."""
    height, width = shape[-3:-1]
    step = 2 ** (stages - 1)
    if height % step or width % step or min(height, width) < step:
        raise InputError(
            f"images of {height}x{width} do not fit a network of {stages} stages: "
            f"height and width must be multiples of {step}; resize the images"
        )


def specialise(params: Mapping, architecture: tuple[int, ...]) -> dict:
    """The parameters, or statistics, that the specialised build of `architecture` shares with the masked."""
    space = nasbench201.SPACE
    kept = {
        f"edge_{source}_{target}_{space.operations[choice]}"
        for (source, target), choice in zip(space.edges, architecture, strict=True)
    }
    return {
        name: {part: value for part, value in group.items() if part in kept}
        if name.startswith("cell_")
        else group
        for name, group in params.items()
    }
