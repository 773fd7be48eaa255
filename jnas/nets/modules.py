"""Flax modules that cell networks are built from: convolution with batch normalisation, and its forms.

`Build` says how a network is to be evaluated; a network passes it on to its parts unchanged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jnas.nets import operations
from jnas.nets.mixture import mixed_edges

# Share of the old running statistics kept at each training step (PyTorch's momentum 0.1).
RUNNING_KEEP = 0.9


def kaiming_normal(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Array:
    """Normal weights of variance 2 / fan-in (He et al., 2015, https://arxiv.org/abs/1502.01852)."""
    return nn.initializers.variance_scaling(2.0, "fan_in", "normal")(key, shape, dtype)


def pytorch_default(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Array:
    """Uniform weights within 1 / sqrt(fan-in): what PyTorch gives a layer that nobody initialises."""
    return nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")(key, shape, dtype)


INITIALISATIONS: dict[str, Callable] = {"kaiming_normal": kaiming_normal, "pytorch_default": pytorch_default}


@dataclass(frozen=True)
class Build:
    """How a network is evaluated; the function it computes is the same in every build.

    statistics: `"train"` normalises by the batch and differentiates through its statistics; `"frozen"` by
      the batch's statistics held constant; `"running"` by the stored averages.
    planes: evaluate convolutions by `jnas.nets.mixture`, on channel-first planes: fast for a few channels,
      differentiates backwards only, needs statistics of the batch.
    axis_name: name of a `vmap` over images that statistics are taken over as well.
    initialisation: a name in `INITIALISATIONS`.
    """

    statistics: str = "train"
    planes: bool = False
    axis_name: str | None = None
    initialisation: str = "kaiming_normal"

    @property
    def layout(self) -> str:
        return "CNHW" if self.planes else "NHWC"


class BatchNorm(nn.Module):
    """Batch normalisation with learned scale and offset; `build.statistics` says by which statistics."""

    channels: int
    build: Build

    def setup(self):
        self.scale = self.param("scale", nn.initializers.ones, (self.channels,))
        self.offset = self.param("offset", nn.initializers.zeros, (self.channels,))

    @nn.compact
    def __call__(self, x: Array) -> Array:
        build, shape = self.build, (self.channels,)
        averaging = self.is_mutable_collection("batch_stats")
        if averaging or build.statistics == "running":
            running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
            running_variance = self.variable("batch_stats", "variance", jnp.ones, shape)
        if build.statistics == "running":
            mean, variance = running_mean.value, running_variance.value
        else:
            mean, variance = operations.moments(x, build.layout, build.axis_name)
            if build.statistics == "frozen":
                mean, variance = jax.lax.stop_gradient((mean, variance))
        if build.statistics == "train" and averaging and not self.is_initializing():
            running_mean.value = RUNNING_KEEP * running_mean.value + (1 - RUNNING_KEEP) * mean
            running_variance.value = RUNNING_KEEP * running_variance.value + (1 - RUNNING_KEEP) * variance
        return operations.normalise(x, mean, variance, self.scale, self.offset, build.layout)


class ConvolutionNorm(nn.Module):
    """ReLU (if `relu`), convolution without bias, batch normalisation."""

    inputs: int
    outputs: int
    size: int
    build: Build
    stride: int = 1
    relu: bool = True

    def setup(self):
        initialise = INITIALISATIONS[self.build.initialisation]
        self.kernel = self.param("kernel", initialise, (self.size, self.size, self.inputs, self.outputs))
        self.norm = BatchNorm(self.outputs, self.build)

    def __call__(self, x: Array) -> Array:
        if self.build.planes:
            return mix(x, [[self]], jnp.ones((1, 1), x.dtype), relu=self.relu)[0]
        x = nn.relu(x) if self.relu else x
        return self.norm(operations.convolution(x, self.kernel, self.build.layout, self.stride))


def mix(
    x: Array,
    branches: Sequence[Sequence[ConvolutionNorm]],
    gates: Array,
    skip: Array | None = None,
    pool: Array | None = None,
    relu: bool = True,
) -> tuple[Array, ...]:
    """`mixed_edges` of x [C, N, H, W] with modules `branches[b][t]`, gates [branches, targets]."""

    def stacked(read):
        return jnp.stack([jnp.stack([read(module) for module in row]) for row in branches])

    def framed(module):
        border = (3 - module.size) // 2
        return jnp.pad(module.kernel, [(border, border)] * 2 + [(0, 0)] * 2)

    first = branches[0][0]
    scale, offset = stacked(lambda module: module.norm.scale), stacked(lambda module: module.norm.offset)
    return mixed_edges(
        x, stacked(framed), scale, offset, gates, skip, pool, first.stride, relu, first.build.statistics
    )
