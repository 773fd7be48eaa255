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

from jnas.nets.modules import BatchNorm, Build, ConvolutionNorm, initialiser


def mask_inputs(module: nn.Module, x: Array, sources: tuple[int, ...] = ()) -> Array:
    """x [N, ..., C] with its channels multiplied by the masks of `module`.

    sources: how many channels each group has, in their order; all are one group where empty.
    """
    sizes = sources or (x.shape[-1],)
    if getattr(module, "build", Build()).planes:
        raise ValueError("masked channels are the last axis of [N, H, W, C]; planes have them first")
    if sum(sizes) != x.shape[-1]:
        raise ValueError(f"sources {sizes} do not add up to the {x.shape[-1]} channels")
    if module.is_initializing():
        module.variable("masks", "inputs", lambda: tuple(jnp.ones(size) for size in sizes))
    masks: tuple[Array, ...] | None = module.get_variable("masks", "inputs")
    if masks is None:
        return x
    mask = jnp.concatenate(masks, axis=-1).astype(x.dtype)
    return x * mask.reshape(-1, *(1,) * (x.ndim - 2), mask.shape[-1])


class MaskedConvolution(nn.Module):
    """Convolution without bias of the masked channels of x [N, H, W, inputs]."""

    inputs: int
    outputs: int
    size: int
    build: Build
    stride: int = 1
    sources: tuple[int, ...] = ()
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, self.inputs, self.outputs)
        kernel = self.param("kernel", initialiser(self.build.initialisation), shape)
        masked = mask_inputs(self, x, self.sources)
        return self.build.convolution(masked, kernel, self.stride, self.dilation)


class MaskedClassifier(nn.Module):
    """Logits [N, classes] of masked features [N, inputs]."""

    inputs: int
    classes: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", initialiser(self.build.initialisation), (self.inputs, self.classes))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        return mask_inputs(self, x) @ kernel + bias


class MaskedConvolutionNorm(nn.Module):
    """ReLU (if `relu`), masked convolution, batch normalisation."""

    inputs: int
    outputs: int
    size: int
    build: Build
    stride: int = 1
    relu: bool = True
    sources: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(x) if self.relu else x
        convolution = MaskedConvolution(
            self.inputs, self.outputs, self.size, self.build, self.stride, self.sources, name="convolution"
        )
        return BatchNorm(self.outputs, self.build, name="norm")(convolution(x))


def imagenet_stem(images: Array, channels: int, build: Build, small_images: bool) -> Array:
    """The first layers of networks for ImageNet, called in a compact module; small images keep their size."""
    size, stride = (3, 1) if small_images else (7, 2)
    stem = ConvolutionNorm(images.shape[-1], channels, size, build, stride, relu=False, name="stem")
    x = nn.relu(stem(images))
    return x if small_images else nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
