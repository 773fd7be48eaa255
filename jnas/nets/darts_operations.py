"""The operations of DARTS cells as Flax modules on images [N, H, W, C], and their weights.

Liu, Simonyan and Yang, "DARTS", ICLR 2019, https://arxiv.org/abs/1806.09055: separable convolutions are ReLU,
depthwise convolution, 1x1 convolution and normalisation, twice; dilated ones once, with dilation 2. Pooling is
not normalised. A skip connection that halves the image is ReLU, two 1x1 convolutions of every second pixel, one
of them shifted by one pixel, side by side, and normalisation. NASNet's and AmoebaNet's further operations are
there for networks that are trained (Zoph et al., 2018, https://arxiv.org/abs/1707.07012; Real et al., 2019,
https://arxiv.org/abs/1802.01548).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.nets import operations
from jnas.nets.modules import BatchNorm, Build, gate_channels, initialiser, sow_pattern

# (side, dilation, how often) of convolutions that are depthwise and then 1x1.
SEPARABLE = {
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "sep_conv_7x7": (7, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}
POOLS = ("avg_pool_3x3", "max_pool_3x3")
KNOWN = (*SEPARABLE, *POOLS, "skip_connect", "conv_7x1_1x7", "none")


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


class PointwiseNorm(nn.Module):
    """ReLU, 1x1 convolution, normalisation: what brings a cell's input to its number of channels."""

    inputs: int
    outputs: int
    build: Build

    def setup(self):
        initialise = initialiser(self.build.initialisation)
        self.kernel = self.param("kernel", initialise, (1, 1, self.inputs, self.outputs))
        self.norm = BatchNorm(self.outputs, self.build)

    def __call__(self, x: Array) -> Array:
        y = operations.pointwise_convolution(nn.relu(x), self.kernel, self.build.layout)
        return self.norm(gate_channels(self, "kernel", y))


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


def module_of(operation: str, channels: int, build: Build, stride: int, **place: Any) -> nn.Module | None:
    """The module of an operation that has weights; None for one that has none. place: `name` or `parent`, Flax's."""
    if operation in SEPARABLE:
        return Separable(channels, operation, build, stride, **place)
    if operation == "skip_connect" and stride > 1:
        return FactorizedReduction(channels, channels, build, **place)
    if operation == "conv_7x1_1x7":
        return CrossConvolution(channels, build, stride, **place)
    return None


def pool(operation: str, x: Array, stride: int, layout: str) -> Array:
    """`avg_pool_3x3` or `max_pool_3x3` of x."""
    pooled = (
        operations.average_pool_3x3(x, layout)
        if operation == "avg_pool_3x3"
        else operations.max_pool_3x3(x, layout)
    )
    return operations.every(pooled, stride, layout)


def bring_inputs(cell: nn.Module, older: Array, younger: Array) -> list[Array]:
    """The two inputs of `cell`, in whose compact call this stands, brought to its channels and size; signs sown.

    cell: with the channels of its `inputs`, its own `channels`, and whether its older input has to `halve`.
    """
    sow_pattern(cell, "input_older", older > 0)
    sow_pattern(cell, "input_younger", younger > 0)
    return [
        _bring(cell.inputs[0], cell.channels, cell.halve, cell.build, "older")(older),
        _bring(cell.inputs[1], cell.channels, False, cell.build, "younger")(younger),
    ]


def _bring(inputs: int, channels: int, halve: bool, build: Build, name: str) -> nn.Module:
    """What brings a cell's input to its channels and, where a reduction cell lies between, to its size."""
    if halve:
        return FactorizedReduction(inputs, channels, build, name=name)
    return PointwiseNorm(inputs, channels, build, name=name)
