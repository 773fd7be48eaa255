"""Motifs of motifs: six motifs of operations, and one motif of those, which is the cell.

    none identity conv_1x1 none ... | ... + 1 0 2 ...     six motifs joined by '|', then '+' and the edges of the cell

Level 2: each of six motifs has four nodes, and on each of its six edges 1<-0, 2<-0, 2<-1, .. none or one of six
operations. Level 3: the cell has five nodes, and on each of its ten edges none or one of the motifs. Nodes add up. An
architecture is int32[46], 7^46 = 7.5e38 codes: the edges of the cell and those of each motif. What a space of cells and
one of layers decide, one code does.

Canonical form: equal motifs are one, motifs are numbered by the first edge of the cell that holds them, and the edges
of motifs that no edge holds are none.

Network: a 3x3 convolution, three stages of one cell, 3x3 convolutions of stride 2 to twice the channels between stages,
normalisation, ReLU, pooling, a linear classifier.

Source: Liu, Simonyan, Vinyals, Fernando and Kavukcuoglu, "Hierarchical Representations for Efficient Architecture
Search", ICLR 2018, https://arxiv.org/abs/1711.00436. Departures: operations begin with ReLU and end with
normalisation; the cell's and its motifs' nodes without edges are zeros; one cell a stage.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError
from jnas.spaces.base import Space, Text
from jnas.spaces.layers import Blocks, Classifier, Convolution, NormRelu, operation
from jnas.spaces.networks import of_networks

OPERATIONS = ("none", "conv_1x1", "dw_conv_3x3", "sep_conv_3x3", "max_pool_3x3", "avg_pool_3x3", "identity")
MOTIFS, CHANNELS, STAGES = 6, 16, 3
INNER = tuple((source, target) for target in range(1, 4) for source in range(target))
OUTER = tuple((source, target) for target in range(1, 5) for source in range(target))
MOTIF_NAMES = ("none", *(f"motif_{number}" for number in range(1, MOTIFS + 1)))


def canonical(architectures: ArrayLike) -> Array:
    """The representative of each one's class (see the head of this file): int32[..., 46] -> int32[..., 46]."""
    rows = jnp.asarray(architectures, jnp.int32)
    edges = rows[..., : len(OUTER)]
    motifs = rows[..., len(OUTER) :].reshape(*rows.shape[:-1], MOTIFS, len(INNER))
    # The first motif that equals each one.
    equal = (motifs[..., :, None, :] == motifs[..., None, :, :]).all(-1)
    first = jnp.argmax(equal, axis=-1)
    held = jnp.where(edges > 0, jnp.take_along_axis(first, jnp.maximum(edges - 1, 0), axis=-1) + 1, 0)
    # The first edge that holds each motif, or a number beyond the last.
    holds = held[..., None, :] == jnp.arange(1, MOTIFS + 1)[:, None]
    place = jnp.where(holds.any(-1), jnp.argmax(holds, axis=-1), len(OUTER))
    order = jnp.argsort(place, axis=-1, stable=True)
    label = jnp.argsort(order, axis=-1) + 1
    renamed = jnp.where(held > 0, jnp.take_along_axis(label, jnp.maximum(held - 1, 0), axis=-1), 0)
    sorted_motifs = jnp.take_along_axis(motifs, order[..., None], axis=-2)
    there = jnp.take_along_axis(place, order, axis=-1) < len(OUTER)
    kept = jnp.where(there[..., None], sorted_motifs, 0).reshape(*rows.shape[:-1], -1)
    return jnp.concatenate([renamed, kept], axis=-1).astype(jnp.int32)


class Cell(nn.Module):
    """The motif of motifs, images [N, H, W, C] to images. edges: int of each; motifs: of each the edges."""

    edges: tuple[int, ...]
    motifs: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def summed(pairs: Sequence[tuple[int, int]], carried: Sequence[int], x: Array, run: Any) -> Array:
            nodes = [x] + [jnp.zeros_like(x)] * max(target for _, target in pairs)
            for (source, target), k in zip(pairs, carried, strict=True):
                if k:
                    nodes[target] = nodes[target] + run(k, nodes[source])
            return nodes[-1]

        def motif(number: int, x: Array) -> Array:
            return summed(INNER, self.motifs[number - 1], x, lambda k, y: operation(OPERATIONS[k], y, train))

        return summed(OUTER, self.edges, x, motif)


def write(decisions: np.ndarray) -> str:
    """Operations of the motifs, then motifs of the cell, int[46]."""
    motifs = decisions[len(OUTER) :].reshape(MOTIFS, -1).tolist()
    shown = " | ".join(" ".join(OPERATIONS[k] for k in motif) for motif in motifs)
    return f"{shown} + {' '.join(map(str, decisions[: len(OUTER)].tolist()))}"


def read(text: str) -> np.ndarray:
    """The code of a text: int32[46]. Raises `InputError` for other text."""
    head, _, tail = text.partition(" + ")
    motifs, edges = [part.split(" ") for part in head.split(" | ")], tail.split(" ")
    known = (
        [len(motif) for motif in motifs] == [len(INNER)] * MOTIFS
        and all(name in OPERATIONS for motif in motifs for name in motif)
        and len(edges) == len(OUTER)
        and all(edge in map(str, range(MOTIFS + 1)) for edge in edges)
    )
    if not known:
        raise InputError(
            f"'{text[:80]}' is not of the space hierarchical: give {MOTIFS} motifs of {len(INNER)} of "
            f"{', '.join(OPERATIONS)} joined by ' | ', then ' + ' and {len(OUTER)} numbers of motifs, 0 for none"
        )
    inner = [OPERATIONS.index(name) for motif in motifs for name in motif]
    return np.array([*map(int, edges), *inner], np.int32)


def network(architecture: Mapping[str, Any], classes: int) -> Blocks:
    """The network of an architecture."""
    values = list(architecture.values())
    edges = tuple(MOTIF_NAMES.index(value) for value in values[: len(OUTER)])
    flat = [OPERATIONS.index(value) for value in values[len(OUTER) :]]
    motifs = tuple(tuple(flat[start : start + len(INNER)]) for start in range(0, len(flat), len(INNER)))
    blocks: list[nn.Module] = []
    for stage in range(STAGES):
        blocks += [Convolution(CHANNELS * 2**stage, 3, 1 + (stage > 0), "identity"), Cell(edges, motifs)]
    return Blocks((*blocks, NormRelu(), Classifier(classes)))


_EDGES: dict[str, Sequence[Any]] = {f"cell_{a}_{b}": MOTIF_NAMES for a, b in OUTER}
_INNER = {f"motif_{m}_{a}_{b}": OPERATIONS for m in range(1, MOTIFS + 1) for a, b in INNER}
SPACE: Space = of_networks(
    "hierarchical", _EDGES | _INNER, network, text=Text(write, read), canonical_form=canonical
)
