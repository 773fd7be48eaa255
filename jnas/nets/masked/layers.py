"""Convolutions whose input channels can be masked: what a posterior over channels acts on.

A module that calls `mask_inputs` has, in the collection `masks`, one array of ones for each group of its input
channels (one group, or one for each source where the channels are those of several sources side by side). Given
other arrays, [C_g] for all images or [N, C_g] for each its own, the channels are multiplied by them, which equals
masking the slices of the kernel that act on them. Without the collection nothing is masked.

`jax.eval_shape` of a network's `init` shows all groups with their sizes, without computing anything.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.nets.modules import IMAGENET_SIDE, BatchNorm, Build, ConvolutionNorm, initialiser


def mask_inputs(module: nn.Module, x: Array, sources: tuple[int, ...] = ()) -> Array:
    """x [N, ..., C] with its channels multiplied by the masks of `module`.

    sources: how many channels each group has, in their order; all are one group where empty.
    """
    if module.is_initializing():
        sizes = sources or (x.shape[-1],)
        module.variable("masks", "inputs", lambda: tuple(jnp.ones(size) for size in sizes))
    masks: tuple[Array, ...] | None = module.get_variable("masks", "inputs")
    if masks is None:
        return x
    mask = jnp.concatenate(masks, axis=-1).astype(x.dtype)
    return x * mask.reshape(-1, *(1,) * (x.ndim - 2), mask.shape[-1])


class MaskedConvolution(nn.Module):
    """Convolution without bias of the masked channels of x [N, H, W, C]; sources: as `mask_inputs` says."""

    channels: int
    size: int
    build: Build
    stride: int = 1
    dilation: int = 1
    sources: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.channels)
        kernel = self.param("kernel", initialiser(self.build.initialisation), shape)
        masked = mask_inputs(self, x, self.sources)
        return self.build.convolution(masked, kernel, self.stride, self.dilation)


class MaskedClassifier(nn.Module):
    """Logits [N, classes] of the masked channels of x [N, H, W, C], after ReLU and the mean over the image."""

    classes: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features = jnp.mean(nn.relu(x), axis=(1, 2))
        shape = (features.shape[-1], self.classes)
        kernel = self.param("kernel", initialiser(self.build.initialisation), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        return mask_inputs(self, features) @ kernel + bias


class MaskedConvolutionNorm(nn.Module):
    """ReLU (if `relu`), masked convolution, batch normalisation."""

    channels: int
    size: int
    build: Build
    stride: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(x) if self.relu else x
        x = MaskedConvolution(self.channels, self.size, self.build, self.stride, name="convolution")(x)
        return BatchNorm(self.channels, self.build, name="norm")(x)


def imagenet_stem(images: Array, channels: int, build: Build) -> Array:
    """The first layers of networks for ImageNet, called in a compact module; smaller images keep their size."""
    large = min(images.shape[1:3]) >= IMAGENET_SIDE
    size, stride = (7, 2) if large else (3, 1)
    stem = ConvolutionNorm(images.shape[-1], channels, size, build, stride, relu=False, name="stem")
    x = nn.relu(stem(images))
    return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)]) if large else x
