"""Kernels over architectures, each 1 on the diagonal and positive semi-definite.

    hamming              exp(-H(a, a') / l),          H: decisions that differ, each by its weight
    ard                  exp(-sum_d w_d 1[a_d != a'_d]),   a rate w_d > 0 of each decision
    path                 exp(-|p(a) - p(a')|_1 / l),  p: path encoding (`jnas.strategies.encodings`)
    graph                exp(-|g(a) - g(a')|^2 / l),  g: graph features (`jnas.spaces.graph_features`), standardised
    weisfeiler_lehman    c(a, a') / sqrt(c(a, a) c(a', a')),   c = sum_{t <= h} sum_{v, v'} 1[x_t(v) = x'_t(v')]

The first two are products of one kernel a decision, the third of one a bit. All lengths l are shares of the mean
distance of two random architectures. The rates begin as 1 / l, equal, and climb the likelihood (`Kernel.ascent`):
automatic relevance determination, Neal, "Bayesian Learning for Neural Networks", 1996. In the last, v are the
operations of a cell that are there, its inputs and its outputs, with x_0 the operation's name and x_{t+1}(v) the pair
of x_t(v) and the multiset of x_t of all that v reads: c counts equal subtrees, by rounds h. A cell's kinds have labels
of their own.

Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", JMLR 2011,
https://www.jmlr.org/papers/v12/shervashidze11a.html, as a kernel of cells: Ru, Wan, Dong and Osborne, "Interpretable
Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman Kernels", ICLR 2021,
https://arxiv.org/abs/2006.07556.

Departures: a label is a hash of 32 bits, the sum of hashes that of a multiset, so that kernels run under jit in any
space of cells; two different subtrees are taken for equal with a chance of 2^-31. An operation that only changes zeros
counts.

Letters: B, N architectures, D decisions, F features, V vertices of a cell.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.spaces import Space
from jnas.spaces.graph_features import graph_encoding, has_paths
from jnas.strategies.encodings import path_encoding
from jnas.strategies.hashing import mixed
from jnas.strategies.unseen import LISTED
from jnas.types import Key

# Lengths as shares of the mean distance, and rounds of labels, from which the likelihood chooses.
LENGTHS = (0.125, 0.25, 0.5, 1.0)
ROUNDS = (0, 1, 2, 3)
# Of graph features, which say the same thing many times: on the digits the likelihood of 20 to 150 cells takes 2 to 6.
GRAPH_LENGTHS = (0.5, 1.0, 2.0, 4.0)
# Steps of Adam by which the rates of `ard` climb.
ASCENT = 20
# Random architectures whose mean distance is that of the space.
PAIRS = 256
# A vertex that is not there has this label; the other labels have their last bit set.
ABSENT = np.uint32(0)


class Kernel(NamedTuple):
    """A kernel over the architectures of a space.

    features: int32[B, D] -> [B, ...], computed once for each architecture.
    gram: (features of B, features of N, parameter) -> float32[B, N].
    parameters: values of the parameter to choose from, a length, a number of rounds, or D rates.
    ascent: steps in which the logarithms of the best one climb the likelihood.
    sample: (key, parameter) -> float32[size], values of all architectures of the space in lexicographic order, normal
      with this covariance; None where that takes the factor of a matrix of that size.
    """

    features: Callable[[Array], Array]
    gram: Callable[[Array, Array, Array | float], Array]
    parameters: tuple[float, ...] | tuple[tuple[float, ...], ...]
    sample: Callable[[Key, Array | float], Array] | None = None
    ascent: int = 0


def hamming(space: Space, weights: tuple[float, ...] = ()) -> Kernel:
    """The exponential of the Hamming distance. weights: of the D decisions; 1 each where empty."""
    own = jnp.array(weights or (1.0,) * len(space.decisions))
    return _of_decisions(space, lambda length: own / length, _lengths(np.asarray(own), space))


def ard(space: Space) -> Kernel:
    """The exponential of the distance with a rate of each decision."""
    lengths = _lengths(np.ones(len(space.decisions)), space)
    starts = tuple((1 / length,) * len(space.decisions) for length in lengths)
    return _of_decisions(space, lambda rates: rates, starts)._replace(ascent=ASCENT)


def _lengths(weights: np.ndarray, space: Space) -> tuple[float, ...]:
    """Shares of the mean Hamming distance: a decision of K choices agrees with chance 1 / K."""
    mean = (weights * (1 - 1 / np.array(space.decisions))).sum()
    return tuple(float(share * mean) for share in LENGTHS)


def _of_decisions(
    space: Space,
    rates: Callable[[Array], Array],
    parameters: tuple[float, ...] | tuple[tuple[float, ...], ...],
) -> Kernel:
    """exp(-sum of the rates float32[D] of decisions that differ)."""

    def gram(first: Array, second: Array, parameter: Array | float) -> Array:
        scale = jnp.sqrt(
            jnp.repeat(
                rates(jnp.asarray(parameter)) / 2, np.array(space.decisions), total_repeat_length=width
            )
        )
        return jnp.exp(-_distances(first * scale, second * scale))

    def sample(key: Key, parameter: Array | float) -> Array:
        # The covariance is a Kronecker product of (1 - c) I + c 11^T, one a decision, whose roots are known.
        values = jax.random.normal(key, space.decisions)
        for axis, (count, rate) in enumerate(
            zip(space.decisions, rates(jnp.asarray(parameter)), strict=True)
        ):
            equal = jnp.exp(-rate)
            own, all_together = jnp.sqrt(1 - equal), jnp.sqrt(1 - equal + count * equal)
            values = own * values + (all_together - own) * values.mean(axis, keepdims=True)
        return values.reshape(-1)

    width = sum(space.decisions)
    return Kernel(space.one_hot, gram, parameters, sample if space.size <= LISTED else None)


def path(space: Space, longest: int = 3) -> Kernel:
    """The exponential of the distance of path encodings. Raises `InputError` for a space without cells."""
    return _exponential(space, path_encoding(space, longest))


def graph(space: Space) -> Kernel:
    """The exponential of the squared distance of graph features, each of variance 1 over random architectures.

    Kadlecova et al., "Surprisingly Strong Performance Prediction with Neural Graph Features", ICML 2024,
    https://arxiv.org/abs/2404.16551. Raises `InputError` for a space without cells.
    """
    encode = graph_encoding(space)
    sample = encode(space.sample(jax.random.key(0), 2 * PAIRS))
    varies = np.flatnonzero(np.asarray(sample.std(0)) > 0)
    deviation = sample[:, varies].std(0)
    return _exponential(space, lambda rows: encode(rows)[:, varies] / deviation, GRAPH_LENGTHS)


def _exponential(
    space: Space, features: Callable[[Array], Array], shares: tuple[float, ...] = LENGTHS
) -> Kernel:
    """exp(-d / l), d the squared distance of features: of bits, the number of those that differ."""
    sample = features(space.sample(jax.random.key(0), 2 * PAIRS))
    mean = ((sample[:PAIRS] - sample[PAIRS:]) ** 2).sum(-1).mean()
    lengths = tuple(float(share * mean) for share in shares)
    return Kernel(
        features, lambda first, second, length: jnp.exp(-_distances(first, second) / length), lengths
    )


def _distances(first: Array, second: Array) -> Array:
    """Squared distances of pairs of features, float32[B, F] and float32[N, F]: float32[B, N]."""
    lengths = (first**2).sum(-1)[:, None] + (second**2).sum(-1)
    # Products are exact for bits; elsewhere rounding must not give a negative distance.
    products = jnp.matmul(first, second.T, precision="highest")
    return jnp.maximum(lengths - 2 * products, 0.0)


def weisfeiler_lehman(space: Space) -> Kernel:
    """The normalised count of equal subtrees. Raises `InputError` for a space without cells."""
    if not has_paths(space):
        raise InputError(
            f"kernel weisfeiler_lehman reads the graphs of cells, and {space.name} has none: choose hamming or ard"
        )
    reads, names = _vertices(space)

    none = space.operations.index("none") if "none" in space.operations else -1
    carried = space.cells * len(space.edges)

    def features(architectures: Array) -> Array:
        """Labels by round: uint32[B, rounds, V]."""
        operations = space.choices(architectures).reshape(len(architectures), carried)
        ends = ((0, 0), (0, len(names) - carried))
        there = jnp.pad(operations != none, ends, constant_values=True)
        codes = jnp.pad(operations, ends) + jnp.asarray(names, jnp.int32)
        labels = [jnp.where(there, _mixed(codes.astype(jnp.uint32)), ABSENT)]
        for _ in ROUNDS[1:]:
            # Hashes of what is read, mixed once more so that their sum is of a multiset.
            inner = jnp.where(there, _mixed(labels[-1] ^ jnp.uint32(0x9E3779B9)), ABSENT)
            read = (inner[:, None, :] * jnp.asarray(reads, jnp.uint32)).sum(-1, dtype=jnp.uint32)
            labels.append(jnp.where(there, _mixed(labels[-1] * jnp.uint32(0x85EBCA6B) + read), ABSENT))
        return jnp.stack(labels, axis=1)

    def equal(first: Array, second: Array, rounds: Array | float) -> Array:
        """Equal labels of two architectures, [rounds, V] each, up to a round."""
        same = (first[:, :, None] == second[:, None, :]) & (first != ABSENT)[:, :, None]
        counted = jnp.asarray(ROUNDS, jnp.float32) <= rounds
        return (same.sum((1, 2), dtype=jnp.int32) * counted).sum().astype(jnp.float32)

    def gram(first: Array, second: Array, rounds: Array | float) -> Array:
        counts = jax.vmap(lambda one: jax.vmap(lambda other: equal(one, other, rounds))(second))(first)
        own, other = (jax.vmap(lambda one: equal(one, one, rounds))(part) for part in (first, second))
        return counts / jnp.sqrt(own[:, None] * other)

    return Kernel(features, gram, tuple(map(float, ROUNDS)))


def _vertices(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """reads bool[V, V], true where a vertex reads another; the first code of each vertex, int[V].

    Vertices are the E operations of each kind of cell, then the inputs and the output of each kind.
    """
    kinds, edges, codes = space.cells, len(space.edges), len(space.operations)
    graph = space.graphs[0]
    ends = graph.inputs + 1
    reads = np.zeros((kinds * (edges + ends),) * 2, bool)
    outputs = graph.outputs or (graph.nodes - 1,)
    for kind in range(kinds):
        first = kinds * edges + kind * ends
        for edge, (source, target) in enumerate(space.edges):
            place = kind * edges + edge
            if source < graph.inputs:
                reads[place, first + source] = True
            for other, (_, end) in enumerate(space.edges):
                reads[place, kind * edges + other] |= end == source
            reads[first + graph.inputs, place] |= target in outputs
    names = np.concatenate(
        [
            np.repeat(np.arange(kinds) * (codes + ends), edges),
            (np.arange(kinds)[:, None] * (codes + ends) + codes + np.arange(ends)).reshape(-1),
        ]
    )
    return reads, names


def _mixed(codes: Array) -> Array:
    """A hash of 32 bits with its last bit set: uint32 -> uint32."""
    return mixed(codes) | jnp.uint32(1)


KERNELS: dict[str, Callable[[Space], Kernel]] = {
    "hamming": hamming,
    "ard": ard,
    "path": path,
    "graph": graph,
    "weisfeiler_lehman": weisfeiler_lehman,
}
