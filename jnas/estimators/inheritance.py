"""Weights that a child begins its training with: those of its parent where both have them, fresh ones elsewhere.

A weight is the parent's where its network reads it: where the gradient of the sum of squared logits, of some noise for
images, is not zero in its copy (operations of cells are stacked over edges, a copy each). Path and shape say which of
the child's it is.

The value of a candidate is a function of its key and its ancestors (`Candidates.ancestors`). So weights are not stored:
those of the last `KEPT` trainings are remembered, and those of a parent that is not among them, as after a kill, are
trained again from its oldest ancestor that is not, one after another.

Lamarckian evolution: Elsken, Metzen and Hutter, ICLR 2019, https://arxiv.org/abs/1804.09081. Departure: nothing
preserves the function of the parent; a new operation begins with fresh weights.

Letters: B candidates, G generations, D decisions, N images.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.nets.modules import PER_CHANNEL
from jnas.types import Candidates, Key, Params

# Trainings whose weights are remembered, and images of noise.
KEPT = 128
IMAGES = 8

# Architectures from the oldest to the parent.
Chain: TypeAlias = tuple[tuple[int, ...], ...]


class Weights(NamedTuple):
    """Weights after a training, and which of them its network reads: bool, 1 along the axes of one copy."""

    params: Params
    read: Params


# (key, architectures int32[B, D], what each begins with or None) -> (float[B], weights after training)
Train: TypeAlias = Callable[[Key, np.ndarray, list[Weights | None]], tuple[np.ndarray, list[Weights]]]


def _axes(path: Any, leaf: Any) -> tuple[int, ...]:
    """The axes of one copy: the last, or the last four of a convolution's weights or both of a classifier's."""
    own = 1 if path[-1].key in PER_CHANNEL else 4
    return tuple(range(max(0, leaf.ndim - own), leaf.ndim))


@cache
def observer(image: tuple[int, ...]) -> Callable[[Any, Params, Array], Weights]:
    """(network, parameters, choices of one architecture) -> weights, for images [H, W, C]: one function for each."""

    def observe(network: Any, params: Params, choice: Array) -> Weights:
        noise = jax.random.normal(jax.random.key(0), (IMAGES, *image))

        def squares(params: Params) -> Array:
            return (network.apply({"params": params}, noise, choice) ** 2).sum()

        slopes = jax.grad(squares)(params)
        return Weights(
            params,
            jax.tree_util.tree_map_with_path(
                lambda path, leaf: (leaf != 0).any(axis=_axes(path, leaf), keepdims=True), slopes
            ),
        )

    return observe


def matched(params: Params, starts: Sequence[Weights | None]) -> Weights:
    """Weights that B trainings begin with, shaped as `params`, [B, ...]; `read` where they are inherited."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    rows = []
    for start in starts:
        known = dict(jax.tree_util.tree_leaves_with_path(start.params)) if start else {}
        read = dict(jax.tree_util.tree_leaves_with_path(start.read)) if start else {}
        for path, leaf in leaves:
            if path not in known or known[path].shape != leaf.shape:
                axes = _axes(path, leaf)
                known[path] = np.zeros(leaf.shape, leaf.dtype)
                read[path] = np.zeros([1 if a in axes else n for a, n in enumerate(leaf.shape)], bool)
        parts = ([known[path] for path, _ in leaves], [read[path] for path, _ in leaves])
        rows.append(Weights(*(jax.tree.unflatten(tree, part) for part in parts)))
    return jax.tree.map(lambda *columns: np.stack(columns), *rows)


def joined(fresh: Params, start: Weights | None) -> Params:
    """The weights that a training begins with."""
    if start is None:
        return fresh
    return jax.tree.map(jnp.where, start.read, start.params, fresh)


def inheriting(train: Train) -> Callable[[Key, Candidates], np.ndarray]:
    """(key, candidates with ancestors) -> values float[B], by a function that trains from given weights."""
    known: OrderedDict[tuple[bytes, Chain], Weights] = OrderedDict()

    def keep(key: Key, chain: Chain, weights: Weights) -> None:
        known[np.asarray(jax.random.key_data(key)).tobytes(), chain] = weights
        while len(known) > KEPT:
            known.popitem(last=False)

    def weights_of(key: Key, chain: Chain) -> Weights | None:
        data = np.asarray(jax.random.key_data(key)).tobytes()
        there = next((end for end in range(len(chain), 0, -1) if (data, chain[:end]) in known), 0)
        weights = known[data, chain[:there]] if there else None
        for end in range(there, len(chain)):
            weights = train(key, np.array(chain[end : end + 1], np.int32), [weights])[1][0]
            keep(key, chain[: end + 1], weights)
        if chain:
            known.move_to_end((data, chain))
        return weights

    def evaluate(key: Key, candidates: Candidates) -> np.ndarray:
        rows, ancestors = np.asarray(candidates.architectures), np.asarray(candidates.ancestors)
        chains = [tuple(map(tuple, chain[chain[:, 0] >= 0].tolist())) for chain in ancestors]
        values, after = train(key, rows, [weights_of(key, chain) for chain in chains])
        for row, chain, weights in zip(rows.tolist(), chains, after, strict=True):
            keep(key, (*chain, tuple(row)), weights)
        return values

    return evaluate
