"""The network that a genotype is trained as: cells stacked, on CIFAR's or ImageNet's scale.

Liu, Simonyan and Yang, "DARTS", ICLR 2019, https://arxiv.org/abs/1806.09055: three stages of normal cells with a
reduction cell between them, channels doubled by each reduction cell; global average pooling and a linear
classifier. Images of ImageNet's size go through three convolutions of stride 2 first. In training, paths are
dropped (Larsson et al., 2017, https://arxiv.org/abs/1605.07648): the output of every operation but an identity
is set to zero with some probability, for each image, and scaled up otherwise; an auxiliary classifier reads the
output of the second reduction cell (Szegedy et al., 2015, https://arxiv.org/abs/1409.4842).

Any genotype will do: other numbers of nodes, both edges of a node from one source, other concatenations. Kernels
are depthwise and 1x1, normalisation has scale and offset.

Departure: dropped paths draw from one key a network, folded in by the place of the edge.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.nets import darts_cost, operations
from jnas.nets.darts_operations import KNOWN, POOLS, bring_inputs, module_of, pool
from jnas.nets.modules import BatchNorm, Build, ConvolutionNorm, initialiser, sow_pattern
from jnas.spaces.genotype import INPUTS, Genotype

AUXILIARY_CHANNELS = (128, 768)
# The auxiliary head pools 5x5 to 2x2: with stride 3 what CIFAR's images have become, with 2 what ImageNet's have.
AUXILIARY_STRIDES = {8: 3, 7: 2}


def check(genotype: Genotype) -> None:
    """Raise `InputError` for an operation that no network here has."""
    unknown = sorted({name for name, _ in (*genotype.normal, *genotype.reduce)} - set(KNOWN))
    if unknown:
        raise InputError(f"unknown operation '{unknown[0]}' in the genotype (operations: {', '.join(KNOWN)})")


class Cell(nn.Module):
    """The outputs of the two cells before to the output of a cell.

    edges: (operation, source) in pairs, one pair a node; concat: the nodes that make the output.
    """

    channels: int
    inputs: tuple[int, int]
    edges: tuple[tuple[str, int], ...]
    concat: tuple[int, ...]
    reduction: bool
    halve: bool
    build: Build

    @nn.compact
    def __call__(self, older: Array, younger: Array, drop: Array | float, key: Array | None) -> Array:
        nodes = bring_inputs(self, older, younger)
        for place in range(0, len(self.edges), 2):
            parts = [self._edge(number, nodes, drop, key) for number in (place, place + 1)]
            nodes.append(parts[0] + parts[1])
        return jnp.concatenate([nodes[node] for node in self.concat], axis=-1)

    def _edge(self, number: int, nodes: Sequence[Array], drop: Array | float, key: Array | None) -> Array:
        name, source = self.edges[number]
        x = nodes[source]
        stride = 2 if self.reduction and source < INPUTS else 1
        if name == "none":
            return jnp.zeros_like(x[:, ::stride, ::stride])
        module = module_of(name, self.channels, self.build, stride, name=f"edge_{number}_{name}")
        if module is not None:
            y = module(x)
        elif name in POOLS:
            y = pool(name, x, stride, self.build.layout)
        else:
            return x
        return y if key is None else drop_path(jax.random.fold_in(key, number), y, drop)


def drop_path(key: Array, x: Array, rate: Array | float) -> Array:
    """x [N, ...] with each image's zero with probability `rate`, and divided by the probability of being kept."""
    kept = jax.random.bernoulli(key, 1 - rate, (len(x), *(1,) * (x.ndim - 1)))
    return x * (kept / (1 - rate)).astype(x.dtype)


def stem(module: nn.Module, channels: int, images: Array) -> tuple[Array, Array, tuple[int, int], bool]:
    """What the first cell of `module`, in whose compact call this stands, reads of images [N, H, W, C].

    The older and the younger input, their channels, and whether the older one is twice as large.
    """
    build, colours = module.build, images.shape[-1]
    if min(images.shape[1:3]) < darts_cost.IMAGENET_SIDE:
        wide = darts_cost.STEM_CHANNELS * channels
        x = ConvolutionNorm(colours, wide, 3, build, relu=False, name="stem")(images)
        return x, x, (wide, wide), False
    half = channels // 2
    x = ConvolutionNorm(colours, half, 3, build, 2, relu=False, name="stem_0")(images)
    sow_pattern(module, "stem_1_input", x > 0)
    older = ConvolutionNorm(half, channels, 3, build, 2, name="stem_1")(x)
    sow_pattern(module, "stem_2_input", older > 0)
    younger = ConvolutionNorm(channels, channels, 3, build, 2, name="stem_2")(older)
    return older, younger, (channels, channels), True


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


class Network(nn.Module):
    """Images [N, H, W, channels] to logits [N, O], and in training the auxiliary head's or None.

    channels, cells_per_stage: 36 and 6 on CIFAR-10 (20 cells), 48 and 4 on ImageNet (14 cells).
    """

    genotype: Genotype
    channels: int
    classes: int
    build: Build
    cells_per_stage: int = 6
    stages: int = 3
    auxiliary: bool = False

    @nn.compact
    def __call__(
        self, images: Array, drop: Array | float = 0.0, key: Array | None = None
    ) -> tuple[Array, Array | None]:
        """drop: probability that a path is dropped; key: of that, or None to keep all."""
        build, channels = self.build, self.channels
        older, younger, inputs, halve = stem(self, channels, images)
        extra, seen = None, 0
        for index, reduction in enumerate(darts_cost.reductions(self.cells_per_stage, self.stages)):
            channels *= 2 if reduction else 1
            edges, concat = self.genotype[2:] if reduction else self.genotype[:2]
            cell = Cell(
                channels, inputs, edges, concat, reduction, halve, build, name=f"cell_{index}"
            )  # fmt: skip
            own = None if key is None else jax.random.fold_in(key, index)
            older, younger = younger, cell(older, younger, drop, own)
            inputs, halve = (inputs[1], len(concat) * channels), reduction
            seen += reduction
            if self.auxiliary and reduction and seen == self.stages - 1:
                extra = AuxiliaryHead(inputs[1], self.classes, build, name="auxiliary_head")(younger)
        features = jnp.mean(younger, axis=(1, 2))
        initialise = initialiser(build.initialisation)
        kernel = self.param("classifier_kernel", initialise, (inputs[1], self.classes))
        bias = self.param("classifier_bias", nn.initializers.zeros, (self.classes,))
        return features @ kernel + bias, extra


def auxiliary_fits(image: tuple[int, ...], stages: int = 3) -> bool:
    """Whether the auxiliary head can read what images [H, W, C] have become."""
    height, width = image[:2]
    for _ in range(3 if min(height, width) >= darts_cost.IMAGENET_SIDE else 0):
        height, width = -(-height // 2), -(-width // 2)
    for _ in range(stages - 1):
        height, width = -(-height // 2), -(-width // 2)
    return height == width and height in AUXILIARY_STRIDES


def parameters(variables: Any) -> int:
    """Number of parameters, without the auxiliary head, as the published counts have it."""
    return sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
        if path[0].key != "auxiliary_head"
    )
