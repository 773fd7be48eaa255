"""MobileNet-like networks: depth of each of five units, kernel and expansion of each block.

    depth_1=3|kernel_1_1=5|expansion_1_1=4|kernel_1_2=3|..     blocks beyond the depth are left out

A unit has 2 to 4 inverted bottlenecks; each has a kernel of 3, 5 or 7 and 3, 4 or 6 times the channels inside. That
makes 9^2 + 9^3 + 9^4 = 7,371 units and 7,371^5 = 2.18e19 networks, of 45 decisions. Widths are 24, 40, 80, 112 and 160
after a stem of 16; strides of the units 2, 2, 2, 1 and 2. A 1x1 convolution to 960 channels, pooling and a linear
classifier end the network.

Source: Cai, Gan, Wang, Zhang and Han, "Once-for-All: Train One Network and Specialize it for Efficient Deployment",
ICLR 2020, https://arxiv.org/abs/1908.09791; blocks of Cai, Zhu and Han, "ProxylessNAS", ICLR 2019,
https://arxiv.org/abs/1812.00332. Departures: ReLU6 everywhere and no squeeze-and-excitation; the stem has stride 1 and
the first unit too, for images of 32x32 and smaller; widths are from memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from jnas.spaces.base import Space
from jnas.spaces.layers import Blocks, Classifier, Convolution, InvertedBottleneck
from jnas.spaces.networks import of_networks

DEPTHS, KERNELS, EXPANSIONS = (2, 3, 4), (3, 5, 7), (3, 4, 6)
WIDTHS, STRIDES = (24, 40, 80, 112, 160), (1, 2, 2, 1, 2)
STEM, HEAD = 16, 960


def mobilenet(
    widths: Sequence[int] = WIDTHS, strides: Sequence[int] = STRIDES, stem: int = STEM, head: int = HEAD
) -> Space:
    """The space of units of these widths and strides."""
    decisions: dict[str, Sequence[Any]] = {}
    conditions: dict[str, dict[str, Sequence[Any]]] = {}
    for unit in range(1, len(widths) + 1):
        decisions[f"depth_{unit}"] = DEPTHS
        for block in range(1, DEPTHS[-1] + 1):
            names = {f"kernel_{unit}_{block}": KERNELS, f"expansion_{unit}_{block}": EXPANSIONS}
            decisions |= names
            if block > DEPTHS[0]:
                deep = tuple(depth for depth in DEPTHS if depth >= block)
                conditions |= {name: {f"depth_{unit}": deep} for name in names}

    def network(architecture: Mapping[str, Any], classes: int) -> Blocks:
        blocks: list[nn.Module] = [Convolution(stem, 3, activation="relu6")]
        for unit, (width, stride) in enumerate(zip(widths, strides, strict=True), start=1):
            for block in range(1, architecture[f"depth_{unit}"] + 1):
                size, expansion = (architecture[f"{name}_{unit}_{block}"] for name in ("kernel", "expansion"))
                blocks.append(InvertedBottleneck(width, size, expansion, stride if block == 1 else 1))
        return Blocks((*blocks, Convolution(head, 1, activation="relu6"), Classifier(classes)))

    return of_networks("mobilenet", decisions, network, conditions)


SPACE: Space = mobilenet()
