"""Cells of NASNet and AmoebaNet: five blocks, each the sum of two operations of any two earlier outputs.

    sep_conv_3x3<0 avg_pool_3x3<1, identity<2 max_pool_3x3<0, ... / ...     the normal / the reduction cell

Hidden states 0 and 1 are the outputs of the two previous cells, 2 to 6 the blocks. Blocks that no block reads are side
by side the output. Each cell has 8^10 (2 3 4 5 6)^2 codes; an architecture is int32[40], for each cell and block twice
operation and source: 3.1e29 codes. In a reduction cell what reads hidden states 0 and 1 has stride 2.

Canonical form: the two pairs of a block in ascending order, of source and then operation. Departure: blocks that could
be exchanged are not.

Network: a 3x3 convolution, two normal cells, a reduction cell, two normal cells, a reduction cell, two normal cells,
ReLU, pooling, a linear classifier; inputs are brought to a cell's channels by ReLU, 1x1 convolution and normalisation.

Sources: Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures for Scalable Image Recognition", CVPR
2018, https://arxiv.org/abs/1707.07012; Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier
Architecture Search", AAAI 2019, https://arxiv.org/abs/1802.01548, whose eight operations these are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike

from jnas.errors import InputError
from jnas.spaces.base import Space, Text
from jnas.spaces.layers import Classifier, convolution_norm, operation
from jnas.spaces.networks import of_networks

OPERATIONS = (
    "identity", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "avg_pool_3x3", "max_pool_3x3", "dil_conv_3x3",
    "conv_1x7_7x1",
)  # fmt: skip
BLOCKS, CELLS, CHANNELS = 5, 2, 16
# The kinds of cell of the network: 1 halves the image.
KINDS = (0, 0, 1, 0, 0, 1, 0, 0)
Pairs = tuple[tuple[int, int], ...]


def canonical(architectures: ArrayLike) -> Array:
    """Both pairs of each block in ascending order: int32[..., 40] -> int32[..., 40]."""
    rows = jnp.asarray(architectures, jnp.int32)
    pairs = rows.reshape(*rows.shape[:-1], CELLS, BLOCKS, 2, 2)
    order = pairs[..., 1] * len(OPERATIONS) + pairs[..., 0]
    turned = (order[..., 0] > order[..., 1])[..., None, None]
    return jnp.where(turned, pairs[..., ::-1, :], pairs).reshape(rows.shape)


class Cell(nn.Module):
    """A cell of the two before it. pairs: (operation, source) twice a block."""

    pairs: Pairs
    channels: int
    kind: int

    @nn.compact
    def __call__(self, older: Array, younger: Array, train: bool) -> Array:
        stride = older.shape[1] // younger.shape[1]
        states = [
            convolution_norm(nn.relu(older), self.channels, 1, train, stride),
            convolution_norm(nn.relu(younger), self.channels, 1, train),
        ]
        for block in range(BLOCKS):
            outputs = [
                operation(OPERATIONS[k], states[source], train, 1 + (self.kind and source < 2))
                for k, source in self.pairs[2 * block : 2 * block + 2]
            ]
            states.append(outputs[0] + outputs[1])
        read = {source for _, source in self.pairs}
        return jnp.concatenate(
            [state for place, state in enumerate(states) if place > 1 and place not in read], -1
        )


class NasNet(nn.Module):
    """The network of a normal and a reduction cell, from images [N, H, W, C] to logits [N, classes]."""

    cells: tuple[Pairs, Pairs]
    classes: int
    channels: int = CHANNELS

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        older = younger = convolution_norm(x, self.channels, 3, train)
        channels = self.channels
        for place, kind in enumerate(KINDS):
            channels *= 1 + kind
            output = Cell(self.cells[kind], channels, kind)(older, younger, train)
            older, younger = younger, checkpoint_name(output, f"block {place + 1}")
        return Classifier(self.classes)(nn.relu(younger), train)


def write(decisions: np.ndarray) -> str:
    """`operation<source` twice a block of each cell, int[40]."""
    cells = decisions.reshape(CELLS, BLOCKS, 2, 2).tolist()
    return " / ".join(
        ", ".join(" ".join(f"{OPERATIONS[k]}<{source}" for k, source in block) for block in cell)
        for cell in cells
    )


def read(text: str) -> np.ndarray:
    """The code of a text: int32[40]. Raises `InputError` for other text."""
    cells = [[block.split(" ") for block in cell.split(", ")] for cell in text.split(" / ")]
    shapes = [[len(block) for block in cell] for cell in cells]
    decisions: list[int] = []
    for cell in cells if shapes == [[2] * BLOCKS] * CELLS else []:
        for place, block in enumerate(cell):
            for entry in block:
                name, _, source = entry.partition("<")
                if name in OPERATIONS and source in map(str, range(place + 2)):
                    decisions += [OPERATIONS.index(name), int(source)]
    if len(decisions) != 4 * BLOCKS * CELLS:
        raise InputError(
            f"'{text[:80]}' is not of the space nasnet: give two cells joined by ' / ', each of {BLOCKS} blocks joined "
            f"by ', ', such as 'identity<0 sep_conv_3x3<1', of {', '.join(OPERATIONS)} and earlier blocks"
        )
    return np.array(decisions, np.int32)


def network(architecture: Mapping[str, Any], classes: int) -> NasNet:
    """The network of an architecture."""
    values = list(architecture.values())
    pairs = [(OPERATIONS.index(name), source) for name, source in zip(values[::2], values[1::2], strict=True)]
    half = len(pairs) // 2
    return NasNet((tuple(pairs[:half]), tuple(pairs[half:])), classes)


_DECISIONS: dict[str, Sequence[Any]] = {
    f"{cell}_{block}_{part}_{number}": OPERATIONS if part == "operation" else tuple(range(block + 2))
    for cell in ("normal", "reduction")
    for block in range(BLOCKS)
    for number in (1, 2)
    for part in ("operation", "source")
}
SPACE: Space = of_networks("nasnet", _DECISIONS, network, text=Text(write, read), canonical_form=canonical)
