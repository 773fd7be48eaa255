"""The candidate operations of cells, by name: what an edge of a cell may carry.

`OPERATIONS` is a plain dict: assigning to it registers an operation. Those of NAS-Bench-201 (Dong and Yang, 2020,
https://arxiv.org/abs/2001.00326) are convolutions of ReLU and normalisation. Those of DARTS (Liu, Simonyan and Yang,
2019, https://arxiv.org/abs/1806.09055): separable convolutions are ReLU, depthwise convolution, 1x1 convolution and
normalisation, twice; dilated ones once, with dilation 2. Pooling is not normalised. A skip connection that halves the
image is ReLU, two 1x1 convolutions of every second pixel, one of them shifted by one pixel, side by side, and
normalisation. NASNet's and AmoebaNet's further operations are there for networks that are trained (Zoph et al., 2018,
https://arxiv.org/abs/1707.07012; Real et al., 2019, https://arxiv.org/abs/1802.01548).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.nets import operations
from jnas.nets.modules import BatchNorm, Build, ConvolutionNorm, gate_channels, initialiser, sow_pattern

# (side, dilation, how often) of convolutions that are depthwise and then 1x1.
SEPARABLE = {
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "sep_conv_7x7": (7, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}


class Separable(nn.Module):
    """Depthwise separable convolutions, each ReLU, depthwise, 1x1, normalisation; the first one strides."""

    channels: int
    operation: str
    build: Build
    stride: int = 1

    def setup(self):
        side, _, repeats = SEPARABLE[self.operation]
        initialise = initialiser(self.build.initialisation)
        self.depthwise = [
            self.param(f"depthwise_{i}", initialise, (side, side, 1, self.channels)) for i in range(repeats)
        ]
        self.pointwise = [
            self.param(f"pointwise_{i}", initialise, (1, 1, self.channels, self.channels))
            for i in range(repeats)
        ]
        self.norms = [BatchNorm(self.channels, self.build) for _ in range(repeats)]

    def __call__(self, x: Array) -> Array:
        _, dilation, _ = SEPARABLE[self.operation]
        stride = self.stride
        layers = zip(self.depthwise, self.pointwise, self.norms, strict=True)
        for index, (depthwise, pointwise, norm) in enumerate(layers):
            if index:
                sow_pattern(self, f"relu_{index}", x > 0)
            x = self.build.depthwise_convolution(nn.relu(x), depthwise, stride, dilation)
            x = gate_channels(self, f"depthwise_{index}", x)
            x = operations.pointwise_convolution(x, pointwise, self.build.layout)
            x = norm(gate_channels(self, f"pointwise_{index}", x))
            stride = 1
        return x


class FactorizedReduction(nn.Module):
    """Half the image: two 1x1 convolutions of relu(x), one of them shifted by a pixel, side by side, normalised.

    An odd number of channels gives the shifted one the larger half.
    """

    inputs: int
    outputs: int
    build: Build

    def setup(self):
        initialise = initialiser(self.build.initialisation)
        half = self.outputs // 2
        self.plain = self.param("plain", initialise, (1, 1, self.inputs, half))
        self.shifted = self.param("shifted", initialise, (1, 1, self.inputs, self.outputs - half))
        self.norm = BatchNorm(self.outputs, self.build)

    def __call__(self, x: Array) -> Array:
        layout = self.build.layout
        x = nn.relu(x)
        halves = [
            gate_channels(
                self,
                name,
                operations.pointwise_convolution(operations.every(x, 2, layout, first), kernel, layout),
            )
            for name, first, kernel in (("plain", 0, self.plain), ("shifted", 1, self.shifted))
        ]
        return self.norm(jnp.concatenate(halves, axis=layout.index("C")))


class CrossConvolution(nn.Module):
    """ReLU, 1x7 convolution, 7x1 convolution, normalisation."""

    channels: int
    build: Build
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        initialise = initialiser(self.build.initialisation)
        wide = self.param("wide", initialise, (1, 7, self.channels, self.channels))
        tall = self.param("tall", initialise, (7, 1, self.channels, self.channels))
        x = operations.cross_convolution(nn.relu(x), wide, tall, self.stride)
        return BatchNorm(self.channels, self.build, name="norm")(x)


@dataclass(frozen=True)
class AveragePool:
    """Mean of the size x size neighbourhood within the image."""

    size: int
    stride: int
    layout: str

    def __call__(self, x: Array) -> Array:
        return operations.every(operations.average_pool(x, self.layout, self.size), self.stride, self.layout)


def identity(x: Array) -> Array:
    """x"""
    return x


class Operation(NamedTuple):
    """A candidate operation.

    module: (channels, stride, build) to a Flax module from images to images where there are weights, else to a
      function of images; None: it gives zero, and an edge that carries it is not there.
    relus: how many ReLUs it has where it has weights. The first one reads the input; the signs that the others read
      are sown by `sow_pattern`, in the shape of the output.
    convolution: whether it counts among the convolutions of a network.
    """

    module: Callable[[int, int, Build], nn.Module | Callable[[Array], Array]] | None
    relus: int = 1
    convolution: bool = False


def convolution(size: int) -> Operation:
    """ReLU, size x size convolution, normalisation."""
    return Operation(
        lambda channels, stride, build: ConvolutionNorm(channels, channels, size, build, stride),
        convolution=True,
    )


def average_pool(size: int) -> Operation:
    """Mean of the size x size neighbourhood within the image, not normalised."""
    return Operation(lambda channels, stride, build: AveragePool(size, stride, build.layout))


def _separable(name: str) -> Operation:
    _, _, repeats = SEPARABLE[name]
    return Operation(
        lambda channels, stride, build: Separable(channels, name, build, stride), repeats, convolution=True
    )


def _max_pool(channels: int, stride: int, build: Build) -> Callable[[Array], Array]:
    return lambda x: operations.every(operations.max_pool_3x3(x, build.layout), stride, build.layout)


def _skip(channels: int, stride: int, build: Build) -> nn.Module | Callable[[Array], Array]:
    return FactorizedReduction(channels, channels, build) if stride > 1 else identity


OPERATIONS: dict[str, Operation] = {
    "none": Operation(None),
    "skip_connect": Operation(_skip),
    "nor_conv_1x1": convolution(1),
    "nor_conv_3x3": convolution(3),
    "avg_pool_3x3": average_pool(3),
    "max_pool_3x3": Operation(_max_pool),
    **{name: _separable(name) for name in SEPARABLE},
    "conv_7x1_1x7": Operation(
        lambda channels, stride, build: CrossConvolution(channels, build, stride), convolution=True
    ),
}
