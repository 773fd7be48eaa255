"""NAS-Bench-Macro: the operation of each of eight layers, 6,561 codes of 3,969 distinct networks.

    01221020     the layers from the image to the classifier

    0   identity; 1x1 convolution and normalisation where the shape changes
    1   inverted bottleneck (MobileNetV2's block), 3x3, three times the channels inside
    2   inverted bottleneck, 5x5, six times the channels inside

A 3x3 convolution gives 32 channels; stages of 2, 3 and 3 layers begin with stride 2 and twice the channels; a 1x1
convolution to 1,280 channels, pooling and a linear classifier end the network.

Canonical form. In the second and third layer of a stage identity is no layer, so that (m, 0) and (0, m) are one
network: the representative is (0, m). That leaves 9 x 21 x 21 = 3,969. The published table repeats the values of one
network: split by the canonical form wherever something is fitted.

Source: Su, Huang, Li, You, Wang, Qian, Zhang and Xu, "Prioritized Architecture Sampling with Monto-Carlo Tree Search",
CVPR 2021, https://arxiv.org/abs/2103.11922. Parameters and FLOPs equal those of its table.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError
from jnas.spaces.base import Space, Text
from jnas.spaces.layers import Blocks, Classifier, Convolution, InvertedBottleneck
from jnas.spaces.networks import of_networks

# (side, expansion) of the operations that are inverted bottlenecks.
BOTTLENECKS = {1: (3, 3), 2: (5, 6)}
STAGES = (2, 3, 3)
LAYERS = sum(STAGES)
NAMES = tuple(f"layer_{layer}" for layer in range(1, LAYERS + 1))
# The second layer of each stage of three; the third follows.
SECONDS = (3, 6)
STEM, HEAD = 32, 1280


def write(decisions: np.ndarray) -> str:
    """A digit a layer."""
    return "".join(map(str, decisions.tolist()))


def read(text: str) -> np.ndarray:
    """The operations of eight digits: int32[8]. Raises `InputError` for another text."""
    if len(text) != LAYERS or set(text) - set("012"):
        raise InputError(
            f"'{text}' is not of the space nasbench_macro: give {LAYERS} digits of 0, 1 and 2, such as 01221020"
        )
    return np.array(list(map(int, text)), np.int32)


def canonical(architectures: ArrayLike) -> Array:
    """The representative of each network (see the head of this file): int32[..., 8] -> int32[..., 8]."""
    rows = jnp.asarray(architectures, jnp.int32)
    for second in SECONDS:
        pair = rows[..., second : second + 2]
        late = pair[..., 1:] == 0
        rows = rows.at[..., second : second + 2].set(jnp.where(late, pair[..., ::-1], pair))
    return rows


def _network(architecture: Mapping[str, int], classes: int) -> Blocks:
    starts, channels = np.cumsum((0, *STAGES[:-1])).tolist(), STEM
    blocks: list[nn.Module] = [Convolution(STEM, 3, activation="relu6")]
    for layer, name in enumerate(NAMES):
        stride, channels = (2, 2 * channels) if layer in starts else (1, channels)
        if architecture[name] in BOTTLENECKS:
            blocks.append(InvertedBottleneck(channels, *BOTTLENECKS[architecture[name]], stride))
        elif layer in starts:
            blocks.append(Convolution(channels, 1, stride, "identity"))
    return Blocks((*blocks, Convolution(HEAD, 1, activation="relu6"), Classifier(classes)))


SPACE: Space = of_networks(
    "nasbench_macro",
    dict.fromkeys(NAMES, (0, 1, 2)),
    _network,
    text=Text(write, read),
    canonical_form=canonical,
)
