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
from jnas.nets.macro import boundary, build_of, cell_variables
from jnas.nets.modules import (
    IMAGENET_SIDE,
    BatchNorm,
    Build,
    ConvolutionNorm,
    classify,
    gate_channels,
    initialiser,
)
from jnas.nets.sizes import Place
from jnas.spaces.base import Graph
from jnas.spaces.genotype import INPUTS, Genotype

STEM_CHANNELS = 3
AUXILIARY_CHANNELS = (128, 768)
# The auxiliary head pools 5x5 to 2x2: with stride 3 what CIFAR's images have become, with 2 what ImageNet's have.
AUXILIARY_STRIDES = {8: 3, 7: 2}


class PointwiseNorm(nn.Module):
    """ReLU, 1x1 convolution, normalisation."""

    channels: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        layout = self.build.layout
        shape = (1, 1, x.shape[layout.index("C")], self.channels)
        kernel = self.param("kernel", initialiser(self.build.initialisation), shape)
        y = operations.pointwise_convolution(nn.relu(x), kernel, layout)
        return BatchNorm(self.channels, self.build, name="norm")(gate_channels(self, "kernel", y))


class AuxiliaryHead(nn.Module):
    """Logits from the output of the second reduction cell, 8x8 or 7x7; for training alone."""

    classes: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        stride = AUXILIARY_STRIDES[x.shape[1]]
        first, second = AUXILIARY_CHANNELS
        x = nn.avg_pool(nn.relu(x), (5, 5), (stride, stride))
        initialise = initialiser(self.build.initialisation)
        kernel = self.param("pointwise", initialise, (1, 1, x.shape[-1], first))
        x = operations.pointwise_convolution(x, kernel, self.build.layout)
        x = BatchNorm(first, self.build, name="norm_0")(x)
        kernel = self.param("convolution", initialise, (2, 2, first, second))
        x = jnp.einsum("nhwc,hwcd->nd", nn.relu(x), kernel)[:, None, None]
        # ImageNet's head has no normalisation here, whose batches of one pixel an image it was left out for.
        x = x if stride == 2 else BatchNorm(second, self.build, name="norm_1")(x)
        return classify(self, nn.relu(x), self.build)


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
        """The kind of each cell: 1 for a reduction cell."""
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
        height = build.layout.index("H")
        scaled = build.statistics == "none" and not self.search
        # A first cell that reads one image twice is differentiated through both.
        inputs = boundary(self, "after_stem", *self._stem(images, build), scaled=scaled)
        older, younger = inputs[0], inputs[-1]
        reductions = 0
        for index, kind in enumerate(self.kinds):
            channels *= 1 + kind
            graph, name = self.graphs[kind], f"cell_{index}"
            # Both inputs brought to the channels of the cell and to one size.
            self.sow("patterns", f"{name}_reads_older", build.images_first(older > 0))
            self.sow("patterns", f"{name}_reads_younger", build.images_first(younger > 0))
            bring = PointwiseNorm if older.shape[height] == younger.shape[height] else FactorizedReduction
            both = [
                bring(channels, build, name=f"{name}_older")(older),
                PointwiseNorm(channels, build, name=f"{name}_younger")(younger),
            ]
            y, sown = cell.apply(
                graph, channels, build, cell_variables(self, name, graph, channels, build), both,
                gates=None if gates is None else gates[..., kind, :, :],
                choices=None if choices is None else choices[kind],
                drop=None if key is None else cell.Drop(drop, jax.random.fold_in(key, index)),
                averaging=self.is_mutable_collection("batch_stats") and not self.is_initializing(),
            )  # fmt: skip
            sown.sow(self, name)
            older, younger = boundary(self, f"after_{name}", younger, y, scaled=scaled)
            reductions += kind
            if self.auxiliary and kind and reductions == self.stages - 1:
                head = AuxiliaryHead(self.classes, build, name="auxiliary_head")
                self.sow("auxiliary", "logits", head(younger))
        if self.search:
            younger = BatchNorm(younger.shape[build.layout.index("C")], build, name="last_norm")(younger)
            self.sow("patterns", "last", build.images_first(younger > 0))
            younger = nn.relu(younger)
        self.sow("features", "last", younger)
        return classify(self, younger, build)

    def _stem(self, images: Array, build: Build) -> tuple[Array, ...]:
        """The inputs of the first cell: one that it reads twice, or an older one that is twice as large."""
        colours, channels = images.shape[-1], self.channels
        x = jnp.transpose(images, (3, 0, 1, 2)) if build.planes else images
        if not self.stem:
            return (x,)
        if not self._imagenet(*images.shape[1:3]):
            wide = channels if self.search else STEM_CHANNELS * channels
            return (ConvolutionNorm(colours, wide, 3, build, relu=False, name="stem")(x),)
        half = channels // 2
        x = ConvolutionNorm(colours, half, 3, build, 2, relu=False, name="stem_0")(x)
        self.sow("patterns", "stem_1_input", build.images_first(x > 0))
        older = ConvolutionNorm(half, channels, 3, build, 2, name="stem_1")(x)
        self.sow("patterns", "stem_2_input", build.images_first(older > 0))
        return older, ConvolutionNorm(channels, channels, 3, build, 2, name="stem_2")(older)


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
    halvings = stages - 1 + (3 if min(image[:2]) >= IMAGENET_SIDE else 0)
    height, width = (-(-side // 2**halvings) for side in image[:2])
    return height == width and height in AUXILIARY_STRIDES
