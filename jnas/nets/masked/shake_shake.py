"""Shake-Shake-26: a residual network whose blocks have two branches (the supernets M and MI).

Gastaldi, "Shake-Shake regularization" (2017, https://arxiv.org/abs/1705.07485); as a supernet in Zhou, Sun, Luo,
Zha, Zeng, "One-Shot Neural Architecture Search Through A Posteriori Distribution Guided Sampling" (2019,
https://arxiv.org/abs/1906.09557).

    stem    3x3 convolution to `stem` channels, BN
    stage s of 3, `blocks` blocks of `stem * width * 2**s` channels; the first of stages 1 and 2 halves the image
    block   x -> skip(x) + (branch_0(x) + branch_1(x)) / 2
            branch   ReLU, 3x3 (stride), BN, ReLU, 3x3, BN
            skip     x, or where the channels change: ReLU, `ShiftedPaths`
    head    ReLU, mean over the image, linear

Depth 26 = 1 + 3 stages * 4 blocks * 2 + 1. For 10 classes and colour images the kernels, the classifier's included,
hold 26,170,032 weights at width 6 and 72,657,072 at width 10: the published 26.2M and 72.7M. (All parameters, with
biases and normalisation, are 26,192,922 and 72,695,194.)

Masked are the inputs of every convolution but the stem, and of the classifier.

Departures: the branches are averaged, always; Gastaldi weighs them by random numbers, anew in the forward and in the
backward pass, which is a regulariser that masks drawn at random take the place of. Zhou et al. mask the image's
channels at the stem too, which leaves nothing to choose.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.nets.masked.layers import MaskedClassifier, MaskedConvolution, MaskedConvolutionNorm
from jnas.nets.modules import BatchNorm, Build, ConvolutionNorm

STAGES = 3
BRANCHES = 2


class ShiftedPaths(nn.Module):
    """x [N, H, W, C] to [N, H / stride, W / stride, channels], without losing every second pixel.

    Two paths take every `stride`-th pixel, one of them from x shifted by one pixel towards the origin (zeros come in
    at the far edges). Each is a masked 1x1 convolution to half of the channels; side by side they are normalised.
    """

    channels: int
    build: Build
    stride: int = 2

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shifted = jnp.pad(x[:, 1:, 1:], [(0, 0), (0, 1), (0, 1), (0, 0)])
        half = self.channels // 2
        paths = [
            MaskedConvolution(share, 1, self.build, self.stride, name=name)(path)
            for name, path, share in (("straight", x, half), ("shifted", shifted, self.channels - half))
        ]
        return BatchNorm(self.channels, self.build, name="norm")(jnp.concatenate(paths, axis=-1))


class Block(nn.Module):
    """x to its skip and the mean of the branches."""

    channels: int
    build: Build
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, build, stride = self.channels, self.build, self.stride
        total = jnp.zeros((), x.dtype)
        for branch in range(BRANCHES):
            h = MaskedConvolutionNorm(channels, 3, build, stride, name=f"branch_{branch}_a")(x)
            total = total + MaskedConvolutionNorm(channels, 3, build, name=f"branch_{branch}_b")(h)
        if x.shape[-1] != channels or stride != 1:
            x = ShiftedPaths(channels, build, stride, name="skip")(nn.relu(x))
        return x + total / BRANCHES


class ShakeShake(nn.Module):
    """Images [N, H, W, channels] to logits [N, classes].

    width: k, 6 for M and 10 for MI.
    blocks: in each stage.
    stem: channels of the stem, which the widths of the stages are multiples of.
    """

    width: int
    classes: int
    build: Build
    blocks: int = 4
    stem: int = 16

    @nn.compact
    def __call__(self, images: Array) -> Array:
        build = self.build
        x = ConvolutionNorm(images.shape[-1], self.stem, 3, build, relu=False, name="stem")(images)
        for stage in range(STAGES):
            channels = self.stem * self.width * 2**stage
            for index in range(self.blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = Block(channels, build, stride, name=f"block_{stage}_{index}")(x)
        return MaskedClassifier(self.classes, build, name="classifier")(x)
