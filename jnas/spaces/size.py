"""Widths of one network: five of eight, 32,768 networks, as NATS-Bench's size space has them.

    64:16:24:8:48     outputs of (stem and cell 1) : residual block 1 : cell 2 : residual block 2 : cell 3

Each width is one of 8, 16, .., 64. There is one cell a stage, the same everywhere, of the operations of NAS-Bench-201:

    |nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|

All widths tell networks apart: the canonical form is the architecture itself. An architecture has 35 neighbours.

Source: Dong, Liu, Musial and Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size",
TPAMI 2021, https://arxiv.org/abs/2009.00437. Departure, from memory of its code: a skip connection between different
widths is a 1x1 convolution and a normalisation.
"""

from collections.abc import Mapping

import flax.linen as nn
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.spaces.base import Space, Text
from jnas.spaces.layers import Blocks, Classifier, Convolution, NormRelu, average_pool, convolution_norm
from jnas.spaces.networks import of_networks

WIDTHS = tuple(range(8, 65, 8))
NAMES = ("cell_1", "residual_1", "cell_2", "residual_2", "cell_3")
EXAMPLE = "64:16:24:8:48"


class Cell(nn.Module):
    """The cell of all stages; operations that read its input bring it to `width` channels."""

    width: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def convolution(y: Array) -> Array:
            return convolution_norm(nn.relu(y), self.width, 3, train)

        first = convolution(x)
        second = convolution(x) + convolution(first)
        skip = x if x.shape[-1] == self.width else convolution_norm(x, self.width, 1, train)
        return skip + convolution(first) + convolution(second)


class Residual(nn.Module):
    """Half the image: two convolutions beside pooling and a 1x1 convolution."""

    width: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = convolution_norm(nn.relu(x), self.width, 3, train, stride=2)
        y = convolution_norm(nn.relu(y), self.width, 3, train)
        return y + nn.Conv(self.width, (1, 1), use_bias=False)(average_pool(x, 2, 2))


def write(decisions: np.ndarray) -> str:
    """`a:b:c:d:e` of the places in `WIDTHS`, int[5]."""
    return ":".join(str(WIDTHS[place]) for place in decisions)


def read(text: str) -> np.ndarray:
    """The places in `WIDTHS` of `a:b:c:d:e`: int32[5]. Raises `InputError` for another text."""
    parts = text.split(":")
    known = [str(width) for width in WIDTHS]
    if len(parts) != len(NAMES) or any(part not in known for part in parts):
        raise InputError(
            f"'{text}' is not of the space size: give {len(NAMES)} widths of {', '.join(known)} joined by ':', such "
            f"as {EXAMPLE}"
        )
    return np.array([known.index(part) for part in parts], np.int32)


def _network(architecture: Mapping[str, int], classes: int) -> Blocks:
    widths = [architecture[name] for name in NAMES]
    cells = [Residual(width) if place % 2 else Cell(width) for place, width in enumerate(widths)]
    stem = Convolution(widths[0], 3, activation="identity")
    return Blocks((stem, *cells, NormRelu(), Classifier(classes)))


SPACE: Space = of_networks("size", dict.fromkeys(NAMES, WIDTHS), _network, text=Text(write, read))
