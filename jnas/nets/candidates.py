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
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
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
    stride: int
    build: Build
    operation: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        side, dilation, repeats = SEPARABLE[self.operation]
        build, channels, initialise = self.build, self.channels, initialiser(self.build.initialisation)

        def kernels(name: str, *shape: int) -> list[Array]:
            return [self.param(f"{name}_{i}", initialise, (*shape, channels)) for i in range(repeats)]

        layers = zip(kernels("depthwise", side, side, 1), kernels("pointwise", 1, 1, channels), strict=True)
        for index, (depthwise, pointwise) in enumerate(layers):
            if index:
                sow_pattern(self, f"relu_{index}", x > 0)
            stride = 1 if index else self.stride
            x = build.depthwise_convolution(nn.relu(x), depthwise, stride, dilation)
            x = gate_channels(self, f"depthwise_{index}", x)
            x = operations.pointwise_convolution(x, pointwise, build.layout)
            x = gate_channels(self, f"pointwise_{index}", x)
            x = BatchNorm(channels, build, name=f"norms_{index}")(x)
        return x


class FactorizedReduction(nn.Module):
    """Half the image: two 1x1 convolutions of relu(x), one of them shifted by a pixel, side by side, normalised.

    An odd number of channels gives the shifted one the larger half.
    """

    channels: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        layout, half = self.build.layout, self.channels // 2
        x, axis = nn.relu(x), layout.index("C")
        halves = []
        for name, first, outputs in (("plain", 0, half), ("shifted", 1, self.channels - half)):
            shape = (1, 1, x.shape[axis], outputs)
            kernel = self.param(name, initialiser(self.build.initialisation), shape)
            y = operations.pointwise_convolution(operations.every(x, 2, layout, first), kernel, layout)
            halves.append(gate_channels(self, name, y))
        return BatchNorm(self.channels, self.build, name="norm")(jnp.concatenate(halves, axis=axis))


class CrossConvolution(nn.Module):
    """ReLU, 1x7 convolution, 7x1 convolution, normalisation."""

    channels: int
    stride: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        initialise = initialiser(self.build.initialisation)
        wide = self.param("wide", initialise, (1, 7, self.channels, self.channels))
        tall = self.param("tall", initialise, (7, 1, self.channels, self.channels))
        x, stride, form = nn.relu(x), self.stride, ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, wide, (1, stride), [(0, 0), (3, 3)], dimension_numbers=form)
        x = jax.lax.conv_general_dilated(x, tall, (stride, 1), [(3, 3), (0, 0)], dimension_numbers=form)
        return BatchNorm(self.channels, self.build, name="norm")(x)


@dataclass(frozen=True)
class AveragePool:
    """Mean of the size x size neighbourhood within the image."""

    size: int
    stride: int
    build: Build

    def __call__(self, x: Array) -> Array:
        layout = self.build.layout
        return operations.every(operations.average_pool(x, layout, self.size), self.stride, layout)


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
    return Operation(lambda channels, stride, build: AveragePool(size, stride, build))


def _max_pool(channels: int, stride: int, build: Build) -> Callable[[Array], Array]:
    return lambda x: operations.every(operations.max_pool_3x3(x, build.layout), stride, build.layout)


def _skip(channels: int, stride: int, build: Build) -> nn.Module | Callable[[Array], Array]:
    return FactorizedReduction(channels, build) if stride > 1 else identity


OPERATIONS: dict[str, Operation] = {
    "none": Operation(None),
    "skip_connect": Operation(_skip),
    "nor_conv_1x1": convolution(1),
    "nor_conv_3x3": convolution(3),
    "avg_pool_3x3": average_pool(3),
    "max_pool_3x3": Operation(_max_pool),
    **{
        name: Operation(partial(Separable, operation=name), repeats, convolution=True)
        for name, (_, _, repeats) in SEPARABLE.items()
    },
    "conv_7x1_1x7": Operation(CrossConvolution, convolution=True),
}
