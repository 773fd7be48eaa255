"""Vision transformers: embedding, depth, and heads and MLP ratio of each layer.

    embedding=64|depth=2|heads_1=2|ratio_1=3|heads_2=4|ratio_2=4     layers beyond the depth are left out

The image is cut into 8x8 patches or smaller, so that there are 4x4 of them where its sides are multiples of four; each
is embedded linearly, a class token and learned positions are added. A layer is layer normalisation and self-attention,
then layer normalisation and two dense layers with GELU, each added to its input. A head has 16 channels whatever the
embedding. Logits are linear in the normalised class token. There are 3 (6^2 + 6^3 + 6^4) = 4,644 distinct networks with
depths 2 to 4 and three embeddings.

The kind of space of Chen, Peng, Fu and Ling, "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021,
https://arxiv.org/abs/2107.00651. Departures: smaller everywhere, for images of 8x8 to 32x32; absolute positions; no
decision on the width of queries, keys and values, which follows the heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jnas.spaces.base import Space
from jnas.spaces.layers import Blocks
from jnas.spaces.networks import of_networks

EMBEDDINGS, DEPTHS, HEADS, RATIOS = (32, 48, 64), (2, 3, 4), (2, 3, 4), (2, 4)
# Patches on a side, and channels of a head.
GRID, HEAD = 4, 16


class Patches(nn.Module):
    """Images [N, H, W, C] to tokens [N, 1 + patches, width], the class token first."""

    width: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        side = tuple(max(1, length // GRID) for length in x.shape[1:3])
        x = nn.Conv(self.width, side, side, "VALID")(x)
        x = x.reshape(len(x), -1, self.width)
        token = self.param("token", nn.initializers.normal(0.02), (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
        return x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))


class Layer(nn.Module):
    """Self-attention and two dense layers, tokens [N, T, width] to tokens."""

    heads: int
    ratio: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = x.shape[-1]
        y = nn.LayerNorm()(x)
        shape = (*y.shape[:-1], self.heads, HEAD)
        query, key, value = (nn.Dense(self.heads * HEAD)(y).reshape(shape) for _ in range(3))
        weights = nn.softmax(jnp.einsum("nqhc,nkhc->nhqk", query, key) / jnp.sqrt(HEAD), axis=-1)
        mixed = jnp.einsum("nhqk,nkhc->nqhc", weights, value)
        x = x + nn.Dense(width)(mixed.reshape(*y.shape[:-1], -1))
        return x + nn.Dense(width)(nn.gelu(nn.Dense(self.ratio * width)(nn.LayerNorm()(x))))


class Head(nn.Module):
    """Logits [N, classes] of the class token."""

    classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return nn.Dense(self.classes)(nn.LayerNorm()(x[:, 0]))


def _decisions() -> tuple[dict[str, Sequence[Any]], dict[str, dict[str, Sequence[Any]]]]:
    decisions: dict[str, Sequence[Any]] = {"embedding": EMBEDDINGS, "depth": DEPTHS}
    conditions: dict[str, dict[str, Sequence[Any]]] = {}
    for layer in range(1, DEPTHS[-1] + 1):
        names = {f"heads_{layer}": HEADS, f"ratio_{layer}": RATIOS}
        decisions |= names
        if layer > DEPTHS[0]:
            conditions |= {name: {"depth": tuple(d for d in DEPTHS if d >= layer)} for name in names}
    return decisions, conditions


def network(architecture: Mapping[str, Any], classes: int) -> Blocks:
    """The transformer of an architecture."""
    layers = [
        Layer(architecture[f"heads_{layer}"], architecture[f"ratio_{layer}"])
        for layer in range(1, architecture["depth"] + 1)
    ]
    return Blocks((Patches(architecture["embedding"]), *layers, Head(classes)))


SPACE: Space = of_networks("transformer", _decisions()[0], network, _decisions()[1])
