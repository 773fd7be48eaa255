"""Parameters, FLOPs and convolutions of the networks that DARTS cells are trained as, in closed form.

Source: Liu, Simonyan and Yang, "DARTS", ICLR 2019, https://arxiv.org/abs/1806.09055: three stages of
`network.cells` normal cells with a reduction cell between them (6 make the 20 cells for CIFAR-10, 4 the 14 for
ImageNet), `network.channels` at first, doubled by each reduction cell; a stem of three times as many channels, or
for images of ImageNet's size (`IMAGENET_SIDE`) three convolutions of stride 2. The auxiliary head is left out,
as the published counts do.

What counts. Parameters: every weight, scale and bias. FLOPs: the multiply-adds of convolutions and of the
classifier and the classifier's additions of its bias. Convolutions: operations with weights, of both cells.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jnas.nets.cost import Macro
from jnas.nets.darts_operations import SEPARABLE
from jnas.spaces import darts
from jnas.spaces.genotype import INPUTS

# From this side on images go through the stem for ImageNet.
IMAGENET_SIDE = 64
STEM_CHANNELS = 3


class Place(NamedTuple):
    """One cell of a network: its channels, those of its inputs, its kind, what its older input needs, its size."""

    channels: int
    older: int
    younger: int
    reduction: bool
    halve: bool
    height: int
    width: int


def reductions(cells: int, stages: int = 3) -> tuple[bool, ...]:
    """The kinds of a network's cells: `cells` normal ones a stage, a reduction cell between stages."""
    kinds: list[bool] = []
    for stage in range(stages):
        kinds += [True] * (stage > 0) + [False] * cells
    return tuple(kinds)


def places(network: Macro) -> Iterator[Place]:
    """Every cell of the network in order; height and width are those of its output."""
    height, width, _ = network.image
    channels, inputs, halve = network.channels, [STEM_CHANNELS * network.channels] * 2, False
    if min(height, width) >= IMAGENET_SIDE:
        height, width, inputs, halve = -(-height // 8), -(-width // 8), [channels, channels], True
    for reduction in reductions(network.cells, network.stages):
        if reduction:
            channels, height, width = 2 * channels, -(-height // 2), -(-width // 2)
        yield Place(channels, inputs[0], inputs[1], reduction, halve, height, width)
        inputs, halve = [inputs[1], darts.NODES * channels], reduction


def _counts(choices: ArrayLike, reduction: bool) -> dict[tuple[str, bool], np.ndarray]:
    """How many edges of a cell carry each operation, from an input of a reduction cell or not: int[...]."""
    chosen = np.asarray(choices)[..., int(reduction), :]
    from_input = np.array([source < INPUTS for source, _ in darts.EDGES])
    halving = from_input & reduction
    return {
        (name, halved): (chosen[..., halving == halved] == index).sum(-1)
        for index, name in enumerate(darts.OPERATIONS)
        for halved in (False, True)
    }


def _of_edge(name: str, halved: bool, channels: int) -> tuple[int, int]:
    """Weights of an operation's convolutions, which is also their multiply-adds a pixel, and normalisations."""
    if name in SEPARABLE:
        side, _, repeats = SEPARABLE[name]
        return repeats * (side**2 * channels + channels**2), repeats
    if name == "skip_connect" and halved:
        return channels**2, 1
    return 0, 0


def _stem(network: Macro) -> list[tuple[int, int, int]]:
    """(weights, pixels, channels) of each convolution before the first cell."""
    height, width, colours = network.image
    channels = network.channels
    if min(height, width) < IMAGENET_SIDE:
        wide = STEM_CHANNELS * channels
        return [(9 * colours * wide, height * width, wide)]
    sides = [(-(-height // factor), -(-width // factor)) for factor in (2, 4, 8)]
    sizes = [(colours, channels // 2), (channels // 2, channels), (channels, channels)]
    return [(9 * a * b, h * w, b) for (a, b), (h, w) in zip(sizes, sides, strict=True)]


def _inputs(place: Place) -> list[tuple[int, int]]:
    """(weights, pixels) of what brings a cell's two inputs to its channels."""
    before = (4 if place.reduction else 1) * place.height * place.width
    return [(size * place.channels, before) for size in (place.older, place.younger)]


def params(choices: ArrayLike, network: Macro) -> np.ndarray:
    """Number of parameters of the network of the operation of each edge: int32[..., 2, 14] -> int64[...]."""
    total: np.ndarray | int = sum(weights + 2 * channels for weights, _, channels in _stem(network))
    for place in places(network):
        total = total + sum(weights + 2 * place.channels for weights, _ in _inputs(place))
        for (name, halved), count in _counts(choices, place.reduction).items():
            weights, norms = _of_edge(name, halved, place.channels)
            total = total + count * (weights + norms * 2 * place.channels)
    last = darts.NODES * place.channels
    return np.asarray(total + (last + 1) * network.classes)


def flops(choices: ArrayLike, network: Macro) -> np.ndarray:
    """Multiply-adds of the network for one image: int32[..., 2, 14] -> int64[...]."""
    total: np.ndarray | int = sum(weights * pixels for weights, pixels, _ in _stem(network))
    for place in places(network):
        total = total + sum(weights * pixels for weights, pixels in _inputs(place))
        for (name, halved), count in _counts(choices, place.reduction).items():
            weights, _ = _of_edge(name, halved, place.channels)
            total = total + count * weights * place.height * place.width
    last = darts.NODES * place.channels
    return np.asarray(total + (last + 1) * network.classes)


def convs(choices: ArrayLike) -> np.ndarray:
    """Number of separable and dilated convolutions in the two cells: int32[..., 2, 14] -> int64[...]."""
    weighted = [index for index, name in enumerate(darts.OPERATIONS) if name in SEPARABLE]
    return np.isin(np.asarray(choices), weighted).sum((-2, -1))
