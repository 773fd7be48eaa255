"""The network of ENAS's best cells, as one fixed network (the supernets E and EI).

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing" (2018,
https://arxiv.org/abs/1802.03268), the micro search space and the cells that it found; as a supernet, in which channels
are what is chosen, in Zhou, Sun, Luo, Zha, Zeng, "One-Shot Neural Architecture Search Through A Posteriori
Distribution Guided Sampling" (2019, https://arxiv.org/abs/1906.09557).

    stem    3x3 convolution to 3 f channels, BN; f = `filters`
    layers  `layers` + 2 cells; the ones numbered L // 3 and 2 (L // 3) + 1 are reduction cells: half the image, 2 f
    head    ReLU, mean over the image, linear

    cell    reads the two layers before it, y_0 (the earlier) and y_1
            both are brought to f channels: ReLU, 1x1, BN, or ReLU and `ShiftedPaths` where y_0 is twice as large;
            y_1 then passes another ReLU, 1x1, BN
            y_{2+n} = op(y_i) + op'(y_j) for the node n = (i, op, j, op') of 5; what no node reads, concatenated
    ops     0, 1  twice: ReLU, depthwise 3x3 or 5x5, 1x1, BN
            2, 3  average or maximum of 3x3
            4     identity, in a reduction cell `ShiftedPaths`
            in a reduction cell ops on y_0 and y_1 have stride 2

Masked are the inputs of every 1x1 convolution, the pointwise part of a separable one included, and of the classifier;
not of depthwise convolutions, which have one weight plane a channel, nor of the stem. With L = 15 there are 15 + 2
cells with 12 pointwise parts each, 17 more 1x1 convolutions of y_1, 36 that bring layers to f channels (two a cell,
one more where a cell follows a reduction) and 2 in each reduction cell's identity: 261 groups, and the classifier's.

The number of parameters for 10 classes and colour images, by f = 36 (E) and 72 (EI):

    1x1 convolutions and stem    3,500,820    13,997,448
    depthwise convolutions         341,424       682,848
    normalisation                   44,928        89,856
    classifier                       7,210        14,410
    together                     3,894,382    14,784,562
    published                         4.6M         15.3M

Pham et al. train with an auxiliary classifier after the 13th cell, which is thrown away. Its kernels have
128 c + 4 * 128 * 768 + 7680 weights, c = 20 f: with them, and without normalisation and biases, there are 4,342,500
and 15,279,912 weights, the latter the published 15.3M. The 4.6M is Pham et al.'s own number for f = 36,
which nothing tried here gives.

Departures: no auxiliary classifier, no dropout, no dropped paths. Strides begin at the first pixel with padding on
both sides, where TensorFlow pads at the far side only. The classifier has a bias.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.nets import operations
from jnas.nets.masked.layers import MaskedClassifier, MaskedConvolution, MaskedConvolutionNorm
from jnas.nets.masked.shake_shake import ShiftedPaths
from jnas.nets.modules import BatchNorm, Build, ConvolutionNorm, initialiser

# The nodes of a cell: (input, operation, input, operation).
NORMAL = ((0, 2, 0, 0), (0, 4, 0, 1), (0, 4, 1, 1), (1, 0, 0, 1), (0, 2, 1, 1))
REDUCTION = ((1, 0, 1, 0), (0, 3, 0, 2), (1, 1, 3, 1), (1, 0, 0, 4), (0, 3, 1, 1))
SEPARABLE = {0: 3, 1: 5}
AVERAGE, MAXIMUM, IDENTITY = 2, 3, 4


class Separable(nn.Module):
    """Twice: ReLU, depthwise convolution, masked 1x1 convolution, batch normalisation."""

    channels: int
    size: int
    build: Build
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, size, build = self.channels, self.size, self.build
        for part, stride in enumerate((self.stride, 1)):
            initialise = initialiser(build.initialisation)
            kernel = self.param(f"depthwise_{part}", initialise, (size, size, 1, channels))
            x = build.depthwise_convolution(nn.relu(x), kernel, stride)
            x = MaskedConvolution(channels, 1, build, name=f"pointwise_{part}")(x)
            x = BatchNorm(channels, build, name=f"norm_{part}")(x)
        return x


class Cell(nn.Module):
    """The two layers before it, [N, H, W, C] each (the earlier may be twice as large), to the next."""

    channels: int
    build: Build
    nodes: tuple[tuple[int, int, int, int], ...]
    stride: int = 1

    @nn.compact
    def __call__(self, earlier: Array, last: Array) -> Array:
        channels, build = self.channels, self.build

        def fitted(x: Array, name: str) -> Array:
            """x with the cell's channels, and with the size of the last layer."""
            if x.shape[1:3] != last.shape[1:3]:
                return ShiftedPaths(channels, build, name=name)(nn.relu(x))
            if x.shape[-1] != channels:
                return MaskedConvolutionNorm(channels, 1, build, name=name)(x)
            return x

        def applied(name: str, operation: int, source: int) -> Array:
            # Nodes are as small as the cell's output already.
            x, stride = states[source], self.stride if source < 2 else 1
            if operation in SEPARABLE:
                return Separable(channels, SEPARABLE[operation], build, stride, name=name)(x)
            if operation == AVERAGE:
                return operations.average_pool(x, build.layout)[:, ::stride, ::stride]
            if operation == MAXIMUM:
                return nn.max_pool(x, (3, 3), (stride, stride), [(1, 1), (1, 1)])
            if operation == IDENTITY and stride > 1:
                return ShiftedPaths(channels, build, stride, name=name)(x)
            return x

        base = MaskedConvolutionNorm(channels, 1, build, name="base")
        states = [fitted(earlier, "earlier"), base(fitted(last, "last"))]
        for node, (left, left_operation, right, right_operation) in enumerate(self.nodes):
            left_value = applied(f"node_{node}_left", left_operation, left)
            states.append(left_value + applied(f"node_{node}_right", right_operation, right))
        read = {source for left, _, right, _ in self.nodes for source in (left, right)}
        return jnp.concatenate([state for index, state in enumerate(states) if index not in read], axis=-1)


class EnasNetwork(nn.Module):
    """Images [N, H, W, channels] to logits [N, classes].

    filters: f of the first cells, 36 for E and 72 for EI; a multiple of 2.
    layers: L, how many cells there are beside the two reduction cells.
    """

    filters: int
    classes: int
    build: Build
    layers: int = 15

    @nn.compact
    def __call__(self, images: Array) -> Array:
        build, channels = self.build, self.filters
        stem = ConvolutionNorm(images.shape[-1], 3 * channels, 3, build, relu=False, name="stem")
        earlier = last = stem(images)
        third = self.layers // 3
        for layer in range(self.layers + 2):
            reduces = layer in (third, 2 * third + 1)
            channels *= 2 if reduces else 1
            nodes = REDUCTION if reduces else NORMAL
            cell = Cell(channels, build, nodes, 2 if reduces else 1, name=f"cell_{layer}")
            earlier, last = last, cell(earlier, last)
        return MaskedClassifier(self.classes, build, name="classifier")(last)
