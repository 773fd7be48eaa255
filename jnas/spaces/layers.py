"""Layers that the networks of spaces share, each in the compact call of the module that calls it.

Images are float32[N, H, W, C]. Padding is half the kernel on each side, so that a stride of s leaves ceil(H / s).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

# Share of the old running statistics that a training step keeps, as cells have it (`jnas.nets.modules`).
RUNNING_KEEP = 0.9


class Blocks(nn.Module):
    """Modules one after another, each called with (x, train). Outputs of all but the last are named as blocks.

    Sizes of such a network are sums over its blocks, of which each kind is counted once (`jnas.nets.own`).
    """

    blocks: tuple[nn.Module, ...]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for place, block in enumerate(self.blocks):
            # The last one gives logits, which are no block's output.
            x = block(x if place == 0 else checkpoint_name(x, f"block {place}"), train)
        return x


class Classifier(nn.Module):
    """Mean over the image, a linear layer: logits [N, classes]."""

    classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))


class Convolution(nn.Module):
    """size x size convolution without bias, batch normalisation, activation: identity, relu or relu6."""

    channels: int
    size: int
    stride: int = 1
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = convolution_norm(x, self.channels, self.size, train, self.stride)
        return x if self.activation == "identity" else getattr(nn, self.activation)(x)


class NormRelu(nn.Module):
    """Normalisation and ReLU."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return nn.relu(norm(x, train))


class InvertedBottleneck(nn.Module):
    """1x1 to `expansion` times as many channels, depthwise size x size, 1x1 to `channels`; plus x where shapes agree.

    Sandler et al., "MobileNetV2", CVPR 2018, https://arxiv.org/abs/1801.04381: ReLU6 after the first two.
    """

    channels: int
    size: int
    expansion: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        wide = self.expansion * x.shape[-1]
        y = nn.relu6(convolution_norm(x, wide, 1, train))
        y = nn.relu6(convolution_norm(y, wide, self.size, train, self.stride, wide))
        y = convolution_norm(y, self.channels, 1, train)
        return x + y if x.shape == y.shape else y


def norm(x: Array, train: bool) -> Array:
    """Batch normalisation with scale and offset, by the batch in training."""
    return nn.BatchNorm(use_running_average=not train, momentum=RUNNING_KEEP)(x)


def convolution_norm(
    x: Array, channels: int, size: int, train: bool, stride: int = 1, groups: int = 1
) -> Array:
    """size x size convolution without bias, batch normalisation."""
    padding = [(size // 2, size // 2)] * 2
    layer = nn.Conv(channels, (size, size), stride, padding, use_bias=False, feature_group_count=groups)
    return norm(layer(x), train)


def max_pool(x: Array, size: int, stride: int) -> Array:
    """Maximum of the size x size neighbourhood within the image."""
    padding = [(size // 2, size // 2)] * 2 if size % 2 else "SAME"
    return nn.max_pool(x, (size, size), (stride, stride), padding)


def average_pool(x: Array, size: int, stride: int) -> Array:
    """Mean of the size x size neighbourhood within the image."""
    padding: Any = [(size // 2, size // 2)] * 2 if size % 2 else "SAME"
    return nn.avg_pool(x, (size, size), (stride, stride), padding, count_include_pad=False)


class MaxPool(nn.Module):
    """Half the image: the maximum of each 2x2 pixels."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return max_pool(x, 2, 2)


def operation(name: str, x: Array, train: bool, stride: int = 1) -> Array:
    """An operation by name on images [N, H, W, C], which keeps their channels.

    identity; avg_pool_3x3, max_pool_3x3, not normalised; and after a ReLU, with normalisation: conv_5x5,
    dw_conv_3x3 (depthwise), sep_conv_3x3 (depthwise, then 1x1), dil_conv_3x3 (the same with dilation 2) and
    conv_1x7_7x1. Any side stands for 3 and 5. With a stride, identity is a 1x1 convolution.
    """
    size, channels = int(name[-1]) if name != "identity" else 1, x.shape[-1]
    if name == "identity":
        return x if stride == 1 else convolution_norm(nn.relu(x), channels, 1, train, stride)
    if name.startswith("avg_pool"):
        return average_pool(x, size, stride)
    if name.startswith("max_pool"):
        return max_pool(x, size, stride)
    x = nn.relu(x)
    if name == "conv_1x7_7x1":
        x = nn.Conv(channels, (1, 7), (1, stride), [(0, 0), (3, 3)], use_bias=False)(x)
        return norm(nn.Conv(channels, (7, 1), (stride, 1), [(3, 3), (0, 0)], use_bias=False)(x), train)
    if name.startswith("conv"):
        return convolution_norm(x, channels, size, train, stride)
    dilation = 2 if name.startswith("dil") else 1
    padding = [(dilation * (size // 2),) * 2] * 2
    x = nn.Conv(
        channels,
        (size, size),
        stride,
        padding,
        use_bias=False,
        feature_group_count=channels,
        kernel_dilation=dilation,
    )(x)
    return norm(x, train) if name.startswith("dw") else convolution_norm(x, channels, 1, train)
