"""Networks whose cells read the two cells before them: those of DARTS and of its successors.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, https://arxiv.org/abs/1806.09055. A
cell brings the outputs of the two cells before it to its number of channels; its nodes side by side are its output.
Reduction cells stand between stages, halve the image and double the channels. All normal cells share their gates,
and all reduction cells theirs. The network ends with global average pooling and a linear classifier. Images of
ImageNet's size go through three convolutions of stride 2 first.

In training, paths are dropped (Larsson et al., 2017, https://arxiv.org/abs/1605.07648): the output of every operation
but an identity is set to zero with some probability, for each image, and scaled up otherwise; an auxiliary classifier
reads the output of the second reduction cell (Szegedy et al., 2015, https://arxiv.org/abs/1409.4842).

The supernets that TE-NAS scores (Chen, Gong and Wang, ICLR 2021, https://arxiv.org/abs/2102.11535) have a stem of as
many channels as their cells, and normalisation and ReLU before the pooling (`search`).

Departure: dropped paths draw from one key a network, folded in by the place of the edge.
"""

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.nets import cell, operations, stacks
from jnas.nets.candidates import FactorizedReduction
from jnas.nets.macro import build_of, cell_variables, classify
from jnas.nets.modules import (
    BatchNorm,
    Build,
    ConvolutionNorm,
    gate_channels,
    initialiser,
    sow_pattern,
)
from jnas.nets.sizes import Place
from jnas.spaces.base import Graph
from jnas.spaces.genotype import INPUTS, Genotype

# From this side on images go through the stem for ImageNet.
IMAGENET_SIDE = 64
STEM_CHANNELS = 3
AUXILIARY_CHANNELS = (128, 768)
# The auxiliary head pools 5x5 to 2x2: with stride 3 what CIFAR's images have become, with 2 what ImageNet's have.
AUXILIARY_STRIDES = {8: 3, 7: 2}


class PointwiseNorm(nn.Module):
    """ReLU, 1x1 convolution, normalisation."""

    inputs: int
    outputs: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (1, 1, self.inputs, self.outputs)
        kernel = self.param("kernel", initialiser(self.build.initialisation), shape)
        y = operations.pointwise_convolution(nn.relu(x), kernel, self.build.layout)
        return BatchNorm(self.outputs, self.build, name="norm")(gate_channels(self, "kernel", y))


class AuxiliaryHead(nn.Module):
    """Logits from the output of the second reduction cell, 8x8 or 7x7; for training alone."""

    channels: int
    classes: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        stride = AUXILIARY_STRIDES[x.shape[1]]
        first, second = AUXILIARY_CHANNELS
        x = nn.avg_pool(nn.relu(x), (5, 5), (stride, stride))
        initialise = initialiser(self.build.initialisation)
        kernel = self.param("pointwise", initialise, (1, 1, self.channels, first))
        x = operations.pointwise_convolution(x, kernel, self.build.layout)
        x = BatchNorm(first, self.build, name="norm_0")(x)
        kernel = self.param("convolution", initialise, (2, 2, first, second))
        x = jnp.einsum("nhwc,hwcd->nd", nn.relu(x), kernel)[:, None, None]
        # ImageNet's head has no normalisation here, whose batches of one pixel an image it was left out for.
        x = x if stride == 2 else BatchNorm(second, self.build, name="norm_1")(x)
        kernel = self.param("classifier_kernel", initialise, (second, self.classes))
        bias = self.param("classifier_bias", nn.initializers.zeros, (self.classes,))
        return nn.relu(x)[:, 0, 0] @ kernel + bias


class TwoInputs(nn.Module):
    """Images [N, H, W, channels] to logits [N, O]; the auxiliary head's are sown in `auxiliary`.

    graphs: of the normal and of the reduction cell.
    channels: of the first cell's nodes; each reduction cell doubles them.
    cells_per_stage: 6 on CIFAR-10 (20 cells, 36 channels), 4 on ImageNet (14 cells, 48 channels).
    stem: whether convolutions lift the images; without it they must have `channels`.
    search: as TE-NAS scores; a stage alone then has a reduction cell at its end, so that both cells are there.
    auxiliary: whether there is an auxiliary head.
    """

    graphs: tuple[Graph, ...]
    channels: int
    classes: int
    build: Build
    cells_per_stage: int = 6
    stages: int = 3
    stem: bool = True
    search: bool = False
    auxiliary: bool = False

    # Of the weights of a cell: the edges come first.
    edge_axis = 0

    @property
    def kinds(self) -> tuple[int, ...]:
        """True for each reduction cell."""
        if self.search and self.stages == 1:
            return (0,) * self.cells_per_stage + (1,)
        kinds: list[int] = []
        for stage in range(self.stages):
            kinds += [1] * (stage > 0) + [0] * self.cells_per_stage
        return tuple(kinds)

    def cell_kinds(self) -> dict[str, int]:
        """The kind of cell of each entry of the parameters that holds a cell."""
        return {f"cell_{index}": kind for index, kind in enumerate(self.kinds)}

    def places(self, image: tuple[int, ...]) -> Iterator[Place]:
        """Every cell for images [H, W, C]."""
        height, width = image[:2]
        if self._imagenet(height, width):
            height, width = -(-height // 8), -(-width // 8)
        channels = self.channels
        for kind in self.kinds:
            channels *= 1 + kind
            yield Place(kind, channels, height, width)
            height, width = -(-height // (1 + kind)), -(-width // (1 + kind))

    def _imagenet(self, height: int, width: int) -> bool:
        return not self.search and min(height, width) >= IMAGENET_SIDE

    @nn.compact
    def __call__(
        self,
        images: Array,
        gates: Array | None = None,
        choices: Array | None = None,
        drop: Array | float = 0.0,
        key: Array | None = None,
    ) -> Array:
        """gates: float[2, E, K], or float[N, 2, E, K] of each image; choices: int32[2, E].

        drop: probability that a path is dropped; key: of that, or None to keep all.
        """
        if gates is not None and jnp.issubdtype(gates.dtype, jnp.integer):
            gates, choices = None, gates
        build, channels = build_of(self.build, self.graphs), self.channels
        older, younger, inputs, halve = self._stem(images, build)
        one = older is younger
        self.sow("features", "after_stem", younger)
        older, younger = self._pass_on("after_stem", older, younger)
        # A first cell that reads one image twice is differentiated through both.
        older = younger if one else older
        reductions = 0
        for index, kind in enumerate(self.kinds):
            channels *= 1 + kind
            graph, name = self.graphs[kind], f"cell_{index}"
            both = self._bring(name, older, younger, inputs, channels, halve, build)
            y, sown = cell.apply(
                graph,
                channels,
                build,
                cell_variables(self, name, graph, channels, build),
                both,
                gates=None if gates is None else gates[..., kind, :, :],
                choices=None if choices is None else choices[kind],
                drop=None if key is None else cell.Drop(drop, jax.random.fold_in(key, index)),
                averaging=self.is_mutable_collection("batch_stats") and not self.is_initializing(),
            )
            for collection in ("patterns", "readers", "deviations"):
                for part, value in getattr(sown, collection).items():
                    self.sow(collection, f"{name}_{part}", value)
            if sown.batch_stats:
                self.put_variable("batch_stats", name, sown.batch_stats)
            self.sow("features", f"after_{name}", y)
            older, younger = self._pass_on(f"after_{name}", younger, y)
            inputs, halve = (inputs[1], len(graph.outputs or (0,)) * channels), bool(kind)
            reductions += kind
            if self.auxiliary and kind and reductions == self.stages - 1:
                head = AuxiliaryHead(inputs[1], self.classes, build, name="auxiliary_head")
                self.sow("auxiliary", "logits", head(younger))
        if self.search:
            younger = BatchNorm(inputs[1], build, name="last_norm")(younger)
            sow_pattern(self, "last", younger > 0)
            younger = nn.relu(younger)
        self.sow("features", "last", younger)
        return classify(self, younger, inputs[1], build)

    def _stem(self, images: Array, build: Build) -> tuple[Array, Array, tuple[int, int], bool]:
        """The inputs of the first cell, their channels, and whether the older one is twice as large."""
        colours, channels = images.shape[-1], self.channels
        x = jnp.transpose(images, (3, 0, 1, 2)) if build.planes else images
        if not self.stem:
            return x, x, (channels, channels), False
        if not self._imagenet(*images.shape[1:3]):
            wide = channels if self.search else STEM_CHANNELS * channels
            x = ConvolutionNorm(colours, wide, 3, build, relu=False, name="stem")(x)
            return x, x, (wide, wide), False
        half = channels // 2
        x = ConvolutionNorm(colours, half, 3, build, 2, relu=False, name="stem_0")(x)
        sow_pattern(self, "stem_1_input", x > 0)
        older = ConvolutionNorm(half, channels, 3, build, 2, name="stem_1")(x)
        sow_pattern(self, "stem_2_input", older > 0)
        younger = ConvolutionNorm(channels, channels, 3, build, 2, name="stem_2")(older)
        return older, younger, (channels, channels), True

    def _bring(
        self,
        name: str,
        older: Array,
        younger: Array,
        inputs: tuple[int, int],
        channels: int,
        halve: bool,
        build: Build,
    ) -> list[Array]:
        """The two inputs of a cell, brought to its channels and to one size."""
        sow_pattern(self, f"{name}_reads_older", older > 0)
        sow_pattern(self, f"{name}_reads_younger", younger > 0)
        first = FactorizedReduction if halve else PointwiseNorm
        return [
            first(inputs[0], channels, build, name=f"{name}_older")(older),
            PointwiseNorm(inputs[1], channels, build, name=f"{name}_younger")(younger),
        ]

    def _pass_on(self, name: str, older: Array, younger: Array) -> tuple[Array, Array]:
        """The inputs of the next cell, from the outputs of the last two blocks.

        Where the collection `boundaries` holds an array for the younger one, the blocks are cut apart: the next
        cell reads the array added to it, through which alone it is differentiated. Without normalisation both are
        divided by the younger one's mean size, a constant to derivatives: logits divide by it too.
        """
        if self.has_variable("boundaries", name):
            cut: Array = self.get_variable("boundaries", name)
            return jax.lax.stop_gradient(older), jax.lax.stop_gradient(younger) + cut
        if self.build.statistics != "none" or self.search:
            return older, younger
        size = jax.lax.stop_gradient(jnp.mean(jnp.abs(younger)))
        self.sow("scales", name, jnp.log(size))
        # A block that gives zero stays zero, and its logarithm says so.
        divisor = jnp.where(size > 0, size, 1)
        return older / divisor, younger / divisor


def graphs_of(genotype: Genotype) -> tuple[Graph, Graph]:
    """The cells of any genotype: other numbers of nodes, both edges of a node from one source, any operations."""
    names = tuple(dict.fromkeys(name for name, _ in (*genotype.normal, *genotype.reduce)))
    for name in names:
        stacks.operation(name)

    def graph(edges: tuple[tuple[str, int], ...], concat: tuple[int, ...], stride: int) -> Graph:
        ends = tuple((source, INPUTS + place // 2) for place, (_, source) in enumerate(edges))
        allowed = tuple((names.index(name),) for name, _ in edges)
        return Graph(ends, names, INPUTS, allowed, stride, tuple(concat))

    return graph(*genotype[:2], 1), graph(*genotype[2:], 2)


def check_reduced(shape: tuple[int, ...], stages: int) -> None:
    """Raise `InputError` unless images [.., H, W, C] leave something after the reduction cells."""
    reductions = max(1, stages - 1)
    if min(shape[-3:-1]) < 2**reductions:
        raise InputError(
            f"images of {shape[-3]}x{shape[-2]} do not fit a network of {reductions} reduction cells: "
            f"give at least {2**reductions}x{2**reductions}"
        )


def auxiliary_fits(image: tuple[int, ...], stages: int = 3) -> bool:
    """True where the auxiliary head can read images [H, W, C] after two thirds of the cells."""
    height, width = image[:2]
    for _ in range(3 if min(height, width) >= IMAGENET_SIDE else 0):
        height, width = -(-height // 2), -(-width // 2)
    for _ in range(stages - 1):
        height, width = -(-height // 2), -(-width // 2)
    return height == width and height in AUXILIARY_STRIDES
