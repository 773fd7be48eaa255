"""All operations from one node of a DARTS cell to its T targets, as one Flax module.

Liu, Simonyan and Yang, "DARTS", ICLR 2019, https://arxiv.org/abs/1806.09055. What the operations are is said in
`jnas.nets.darts_operations`; here the weights of the T edges stand side by side along the channels, (target,
channel), so that a network has few and large operations.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.nets import operations, pooling, separable
from jnas.nets.darts_operations import POOLS, SEPARABLE, pool
from jnas.nets.modules import BatchNorm, Build, initialiser, sow_pattern
from jnas.spaces import darts

LIGHT = ("skip_connect", *POOLS)
CONVOLUTIONS = tuple(name for name in darts.OPERATIONS if name in SEPARABLE)
TWICE = CONVOLUTIONS[: separable.SECONDS]


class Edges(nn.Module):
    """x [N, H, W, C] and gates [T, K] or [N, T, K] to the gated sums [T, N, H / stride, W / stride, C].

    On planes it holds the weights, and `on_planes` evaluates them.
    """

    channels: int
    targets: int
    build: Build
    stride: int = 1

    def setup(self):
        initialise = initialiser(self.build.initialisation)
        wide = self.targets * self.channels
        depthwise, pointwise, norms = {}, {}, {}
        for name in CONVOLUTIONS:
            side, _, repeats = SEPARABLE[name]
            for index in range(repeats):
                key = f"{name}_{index}"
                depthwise[key] = self.param(f"{key}_depthwise", initialise, (side, side, 1, wide))
                shape = (self.targets, 1, 1, self.channels, self.channels)
                pointwise[key] = self.param(f"{key}_pointwise", initialise, shape)
                norms[key] = BatchNorm(wide, self.build)
        if self.stride > 1:
            # Of each target's channels, these read every second pixel, the others the pixels between.
            half = self.channels // 2
            self.plain = self.param("skip_plain", initialise, (self.targets, 1, 1, self.channels, half))
            shape = (self.targets, 1, 1, self.channels, self.channels - half)
            self.shifted = self.param("skip_shifted", initialise, shape)
            norms["skip_connect"] = BatchNorm(wide, self.build)
        self.depthwise, self.pointwise, self.norms = depthwise, pointwise, norms

    def __call__(self, x: Array, gates: Array) -> Array:
        def gated(name: str, y: Array) -> Array:
            """y [N, H, W, C] or [N, H, W, T, C] weighed for each target."""
            weight = gates[..., darts.OPERATIONS.index(name)]
            y = y[..., None, :] if y.ndim == 4 else y
            weight = weight[:, None, None, :, None] if weight.ndim == 2 else weight[:, None]
            return weight * y

        reading = (*CONVOLUTIONS, *(("skip_connect",) if self.stride > 1 else ()))
        read = gates[..., jnp.array([darts.OPERATIONS.index(name) for name in reading])].sum((-2, -1)) > 0
        sow_pattern(self, "first", (x > 0) & (read[:, None, None, None] if read.ndim else read))
        y = sum(gated(name, pool(name, x, self.stride, self.build.layout)) for name in POOLS)
        y = y + gated("skip_connect", x if self.stride == 1 else self._halved(x))
        for name in CONVOLUTIONS:
            y = y + gated(name, self._convolved(name, x, gates[..., darts.OPERATIONS.index(name)] > 0))
        return jnp.moveaxis(y, -2, 0)

    def _convolved(self, name: str, x: Array, read: Array) -> Array:
        """A convolution of x [N, H, W, C] for each target: [N, H', W', T, C]; read: bool[T] or [N, T]."""
        _, dilation, repeats = SEPARABLE[name]
        stride = self.stride
        x = jnp.tile(x, self.targets)
        for index in range(repeats):
            key = f"{name}_{index}"
            if index:
                channels = jnp.repeat(read, self.channels, axis=-1)
                sow_pattern(self, f"{name}_{index}", (x > 0) & channels.reshape(-1, 1, 1, channels.shape[-1]))
            x = operations.depthwise_convolution(nn.relu(x), self.depthwise[key], stride, dilation)
            x = x.reshape(*x.shape[:-1], self.targets, self.channels)
            x = jnp.einsum("nhwtc,tcd->nhwtd", x, self.pointwise[key][:, 0, 0])
            x = self.norms[key](x.reshape(*x.shape[:-2], -1))
            stride = 1
        return x.reshape(*x.shape[:-1], self.targets, self.channels)

    def _halved(self, x: Array) -> Array:
        """The skip connection of x [N, H, W, C] for each target: [N, H / 2, W / 2, T, C]."""
        x = nn.relu(x)
        halves = [
            jnp.einsum("nhwc,tcd->nhwtd", operations.every(x, 2, "NHWC", first), kernel[:, 0, 0])
            for first, kernel in ((0, self.plain), (1, self.shifted))
        ]
        y = jnp.concatenate(halves, axis=-1)
        return self.norms["skip_connect"](y.reshape(*y.shape[:-2], -1)).reshape(y.shape)

    def arrays(self) -> tuple[separable.Weights, tuple[Array, ...]]:
        """The weights in the form of `jnas.nets.separable`, and those of a halving skip connection, by target."""

        def stacked(names: tuple[str, ...], index: int, read: Callable[[str], Array]) -> Array:
            return jnp.stack([read(f"{name}_{index}") for name in names], axis=1)

        def kernels(names: tuple[str, ...], index: int) -> tuple[Array, ...]:
            own = [self.depthwise[f"{name}_{index}"][:, :, 0] for name in names]
            return tuple(
                jnp.moveaxis(kernel.reshape(*kernel.shape[:2], self.targets, -1), 2, 0) for kernel in own
            )

        def of_norm(field: str) -> Callable[[str], Array]:
            return lambda key: getattr(self.norms[key], field).reshape(self.targets, -1)

        parts: list[Any] = []
        for index, names in enumerate((CONVOLUTIONS, TWICE)):
            parts += [
                kernels(names, index),
                stacked(names, index, lambda key: self.pointwise[key][:, 0, 0]),
                stacked(names, index, of_norm("scale")),
                stacked(names, index, of_norm("offset")),
            ]
        halving: tuple[Array, ...] = ()
        if self.stride > 1:
            halving = (
                self.plain[:, 0, 0],
                self.shifted[:, 0, 0],
                of_norm("scale")("skip_connect"),
                of_norm("offset")("skip_connect"),
            )
        return separable.Weights(*parts), halving


def on_planes(
    x: Array,
    weights: separable.Weights,
    halving: tuple[Array, ...],
    gates: Array,
    count: Array,
    stride: int,
    build: Build,
) -> tuple[Array, tuple[Array, Array]]:
    """What `Edges` computes of planes x [C, N, H, W], from its `arrays`: [T, C, N, H', W'], and its patterns.

    count: int32[], of the T targets the first that are there.
    """
    index = darts.OPERATIONS.index
    convolved = gates[:, jnp.array([index(name) for name in CONVOLUTIONS])]
    light = gates[:, jnp.array([index(name) for name in LIGHT])]
    y, seconds = separable.convolutions(
        x, weights, convolved, count, stride, build.statistics, build.axis_name
    )
    y = y + pooling.skip_and_pools(x, light, stride)
    readers = jnp.sum(convolved)
    if stride > 1:
        plain, shifted, scale, offset = halving
        halved = separable.halve(x, plain, shifted, scale, offset, build.statistics, build.axis_name)
        y = y + light[:, 0, None, None, None, None] * halved
        readers = readers + jnp.sum(light[:, 0])
    twice = convolved[:, : len(TWICE), None, None, None, None] > 0
    return y, ((x > 0) & (readers > 0), (seconds > 0) & twice)
