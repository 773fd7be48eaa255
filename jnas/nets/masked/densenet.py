"""DenseNet-121, whose layers read all earlier ones (the supernet D-121).

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks" (2017,
https://arxiv.org/abs/1608.06993), the form with bottlenecks and compression (BC); as a supernet in Zhou, Sun, Luo,
Zha, Zeng, "One-Shot Neural Architecture Search Through A Posteriori Distribution Guided Sampling" (2019,
https://arxiv.org/abs/1906.09557).

    stem        7x7 convolution of stride 2 to 2 g channels, BN, ReLU, 3x3 max pooling of stride 2; g the growth
    layer       x_0 .. x_l side by side -> BN, ReLU, 1x1 to 4 g channels, BN, ReLU, 3x3 to g channels: x_{l+1}
    block b     blocks[b] layers; x_0 is the block's input, what leaves it is x_0 .. x_L side by side
    transition  BN, ReLU, 1x1 to half of the channels, 2x2 average pooling: between the blocks
    head        BN, ReLU, mean over the image, linear

Masked are the inputs of every convolution but the stem. A 1x1 convolution, in a layer or a transition, has one group
of masks for each source, that is for x_0 and for each earlier layer; a 3x3 convolution has one. With L layers a block
has L (L + 1) / 2 + L groups and its transition L + 1. For blocks of (6, 12, 24, 16) these are 535 in 1x1 convolutions,
58 in 3x3 convolutions and 7 + 13 + 25 = 45 in transitions: the published 638, to which the classifier adds none.
For 1000 classes the network has 7,978,856 parameters.

Departures: Zhou et al.'s released network has three 3x3 convolutions (32, 32, 64 channels) for a stem, with which it
would have 8.00M parameters; here it is Huang et al.'s.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.nets import operations
from jnas.nets.masked.layers import MaskedConvolution, imagenet_stem
from jnas.nets.modules import BatchNorm, Build, classify

# Outputs of a bottleneck for each output of its layer.
BOTTLENECK = 4


class NormConvolution(nn.Module):
    """Batch normalisation, ReLU, masked convolution of all `sources`."""

    sources: tuple[int, ...]
    channels: int
    size: int
    build: Build

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(BatchNorm(x.shape[-1], self.build, name="norm")(x))
        return MaskedConvolution(
            self.channels, self.size, self.build, sources=self.sources, name="convolution"
        )(x)


class DenseNet(nn.Module):
    """Images [N, H, W, channels] to logits [N, classes].

    growth: g, the channels that a layer adds.
    blocks: how many layers each block has.
    The stem of images smaller than 64x64 is a 3x3 convolution and leaves their size as it is.
    """

    classes: int
    build: Build
    growth: int = 32
    blocks: tuple[int, ...] = (6, 12, 24, 16)

    @nn.compact
    def __call__(self, images: Array) -> Array:
        build, growth, channels = self.build, self.growth, 2 * self.growth
        x = imagenet_stem(images, channels, build)
        sources: tuple[int, ...] = (channels,)
        for block, layers in enumerate(self.blocks):
            if block > 0:
                channels = sum(sources) // 2
                x = NormConvolution(sources, channels, 1, build, name=f"transition_{block}")(x)
                x = operations.average_pool_2x2(x, build.layout)
                sources = (channels,)
            for layer in range(layers):
                name = f"layer_{block}_{layer}"
                inner = BOTTLENECK * growth
                h = NormConvolution(sources, inner, 1, build, name=f"{name}_bottleneck")(x)
                h = NormConvolution((inner,), growth, 3, build, name=name)(h)
                x = jnp.concatenate([x, h], axis=-1)
                sources = (*sources, growth)
        x = nn.relu(BatchNorm(x.shape[-1], build, name="last_norm")(x))
        return classify(self, x, build)
