"""ResNet-50 with four kernel sizes side by side in place of each 3x3 convolution (the supernet R-50).

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2016, https://arxiv.org/abs/1512.03385); with four
kernel sizes in Zhou, Sun, Luo, Zha, Zeng, "One-Shot Neural Architecture Search Through A Posteriori Distribution
Guided Sampling" (2019, https://arxiv.org/abs/1906.09557).

    stem    7x7 convolution of stride 2 to w channels, BN, ReLU, 3x3 max pooling of stride 2
    stage s blocks[s] blocks of inner width w 2**s and 4 w 2**s outputs; the first of each stage but the first halves
            the image
    block   x -> ReLU(skip(x) + h): 1x1 to the inner width, BN, ReLU, four kernels, BN, ReLU, 1x1 to the outputs, BN
            four kernels   convolutions of sizes 1, 3, 5 and 9 of the whole inner width, each to a quarter of it,
                           concatenated; 5 is a 3x3 kernel and 9 a 5x5 kernel, dilated by 2; the stride is here
            skip           x, or where the shape changes: 1x1 convolution (stride), BN
    head    mean over the image, linear

Masked are the inputs of every convolution but the stem, each with a group of its own: 16 blocks * 6 + 4 skips = 100.

The number of parameters, for 1000 classes. A 3x3 convolution of width w has 9 w^2 weights; the four kernels have
(1 + 9 + 9 + 25) w^2 / 4 = 11 w^2. The widths' squares add up to 1,257,472 over the 16 blocks, so that ResNet-50's
25,557,032 become 28,071,976. Zhou et al. give 44.0M, and no code for this network. No reading of their description
tried here gives that number: undilated kernels of 5 and 9 are 29 w^2 and 50.7M, only the larger dilated 15 w^2 and
33.1M, only the smaller 25 w^2 and 45.7M; convolutions of a quarter to a quarter are 17.7M, of the whole width to the
whole width 78.9M with twice the inner width. It would take an inner width of 1.38 w.

Departures: that number. The stride lies on the four kernels, as it does on the 3x3 convolution in later ResNets, and
not on the first 1x1 convolution, as in He et al.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError
from jnas.nets.masked.layers import MaskedConvolution, MaskedConvolutionNorm, imagenet_stem
from jnas.nets.modules import BatchNorm, Build, classify

# What a convolution spans -> its kernel's size and dilation.
KERNELS = {1: (1, 1), 3: (3, 1), 5: (3, 2), 9: (5, 2)}
# Outputs of a block for each channel of its inner width.
EXPANSION = 4


class FourKernels(nn.Module):
    """Masked convolutions of all four sizes, a quarter of the channels each, side by side."""

    channels: int
    build: Build
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        share, build = self.channels // len(KERNELS), self.build
        spans = [
            MaskedConvolution(share, size, build, self.stride, dilation, name=f"span_{span}")(x)
            for span, (size, dilation) in KERNELS.items()
        ]
        return jnp.concatenate(spans, axis=-1)


class Block(nn.Module):
    """x [N, H, W, C] to [N, H / stride, W / stride, 4 inner]."""

    inner: int
    build: Build
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inner, build, stride = self.inner, self.build, self.stride
        outputs = EXPANSION * inner
        h = MaskedConvolutionNorm(inner, 1, build, relu=False, name="reduce")(x)
        h = FourKernels(inner, build, stride, name="kernels")(nn.relu(h))
        h = BatchNorm(inner, build, name="norm")(h)
        h = MaskedConvolutionNorm(outputs, 1, build, name="expand")(h)
        if x.shape[-1] != outputs or stride != 1:
            x = MaskedConvolutionNorm(outputs, 1, build, stride, relu=False, name="skip")(x)
        return nn.relu(x + h)


class FourKernelResNet(nn.Module):
    """Images [N, H, W, channels] to logits [N, classes].

    width: w, the inner width of the first stage, a multiple of 4.
    blocks: how many blocks each stage has.
    The stem of images smaller than 64x64 is a 3x3 convolution and leaves their size as it is.
    """

    classes: int
    build: Build
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)

    @nn.compact
    def __call__(self, images: Array) -> Array:
        build, width = self.build, self.width
        if width % len(KERNELS):
            raise InputError(f"a width of {width} has no quarters: choose a multiple of {len(KERNELS)}")
        x = imagenet_stem(images, width, build)
        for stage, blocks in enumerate(self.blocks):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = Block(width * 2**stage, build, stride, name=f"block_{stage}_{index}")(x)
        return classify(self, x, build)
