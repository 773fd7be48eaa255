"""Parameters, FLOPs and convolutions of NAS-Bench-201 networks, in closed form.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR
2020, https://arxiv.org/abs/2001.00326. The counts equal those of its tables for every cell.

The network: 3x3 convolution and BN; then `stages` stages of `cells` cells each, with C, 2C, 4C, ... channels;
before each stage but the first a residual block of stride 2 (two 3x3 convolutions with BN beside average
pooling and a 1x1 convolution without BN); BN, ReLU, global average pooling, linear classifier.

What counts. Parameters: every weight, scale and bias, also of edges that carry zero. FLOPs: the multiply-adds
of convolutions and of the classifier and the classifier's additions of its bias; BN, ReLU, pooling and sums
are free.
"""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike

from jnas.spaces.nasbench201 import OPERATIONS

_KERNEL_AREA = np.array([{"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(name, 0) for name in OPERATIONS])


@dataclass(frozen=True)
class Macro:
    """The sizes that a network adds to a cell; the defaults are those of NAS-Bench-201's CIFAR-10 table.

    `image` is (height, width, channels); a stride of 2 halves a side, rounding up.
    """

    channels: int = 16
    cells: int = 5
    stages: int = 3
    image: tuple[int, int, int] = (32, 32, 3)
    classes: int = 10


def params(choices: ArrayLike, network: Macro) -> np.ndarray:
    """Number of parameters of the network built from each cell: int32[..., E] -> int64[...].

    choices: the operation of each edge, a place in `OPERATIONS`.

    An edge with a k x k convolution has k^2 C^2 + 2C (weights, BN scale and bias); the rest depends on
    `network`.
    """
    convolutions, areas = convs(choices), _areas(choices)
    *_, inputs = network.image
    total = 9 * inputs * network.channels + 2 * network.channels
    for stage in range(network.stages):
        width = network.channels * 2**stage
        total = total + network.cells * (areas * width**2 + convolutions * 2 * width)
        if stage:
            total = total + _residual_weights(width) + 4 * width
    last = network.channels * 2 ** (network.stages - 1)
    return total + 2 * last + (last + 1) * network.classes


def flops(choices: ArrayLike, network: Macro) -> np.ndarray:
    """Multiply-adds of the network for one image: int32[..., E] -> int64[...].

    An edge with a k x k convolution has k^2 C^2 H W; what counts is said at the head of this file.
    """
    areas = _areas(choices)
    height, width, inputs = network.image
    total = 9 * inputs * network.channels * height * width
    for stage in range(network.stages):
        channels = network.channels * 2**stage
        if stage:
            height, width = -(-height // 2), -(-width // 2)
            total = total + _residual_weights(channels) * height * width
        total = total + network.cells * areas * channels**2 * height * width
    return total + (channels + 1) * network.classes


def convs(choices: ArrayLike) -> np.ndarray:
    """Number of convolutions in each cell: int32[..., E] -> int64[...]."""
    return np.sum(_KERNEL_AREA[np.asarray(choices)] > 0, axis=-1)


def _areas(choices: ArrayLike) -> np.ndarray:
    return np.sum(_KERNEL_AREA[np.asarray(choices)], axis=-1)


def _residual_weights(width: int) -> int:
    """Convolution weights of the residual block that goes from width / 2 to `width` channels."""
    half = width // 2
    return 9 * half * width + 9 * width**2 + half * width
