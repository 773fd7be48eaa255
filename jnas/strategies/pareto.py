"""Pareto dominance: fronts, non-dominated sorting, crowding distances, hypervolumes. Higher is better.

    a dominates b    a_p >= b_p for all objectives p, and a_p > b_p for one
    front            the values that none dominates
    rank             0 on the front, 1 on the front of the rest, ...
    crowding of i    sum_p (next_p - previous_p) / (max_p - min_p) among its rank sorted by p; inf at both ends
    hypervolume      volume of all points between the reference and some value: |union_i prod_p [reference_p, value_ip]|

Rank and crowding: Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
IEEE Transactions on Evolutionary Computation 2002, https://doi.org/10.1109/4235.996017. Hypervolume: Zitzler and
Thiele, "Multiobjective Evolutionary Algorithms", same journal 1999, https://doi.org/10.1109/4235.797969.

A row with an objective that failed (-inf) is on no front and dominates nothing. All but `hypervolume` run under jit.

Letters: B values, P objectives.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError


def dominates(first: Array, second: Array) -> Array:
    """True where values dominate others: float32[..., P], twice, -> bool[...]."""
    better = (first >= second).all(axis=-1) & (first > second).any(axis=-1)
    return better & jnp.isfinite(first).all(axis=-1)


def front(values: Array) -> Array:
    """True on the front, equal values included: float32[B, P] -> bool[B]."""
    return joined(jnp.zeros(len(values), bool), values, jnp.arange(len(values)))


def joined(on_front: Array, values: Array, places: Array) -> Array:
    """The front bool[B] after the values at `places` int32[n] were added; a place outside is passed over."""
    new = values[places]
    there = jnp.isfinite(new).all(axis=-1) & (places < len(values))
    old = on_front & ~(dominates(new[:, None], values) & there[:, None]).any(axis=0)
    beaten = (dominates(values[:, None], new) & old[:, None]).any(axis=0)
    beaten |= (dominates(new[:, None], new) & there[:, None]).any(axis=0)
    return old.at[places].set(there & ~beaten, mode="drop")


def ranks(values: Array) -> Array:
    """Ranks of non-dominated sorting: float32[B, P] -> int32[B]; B where an objective failed."""
    count = len(values)
    good = jnp.isfinite(values).all(axis=-1)
    worse = dominates(values[:, None], values)

    def peel(state: tuple[Array, Array]) -> tuple[Array, Array]:
        rank, level = state
        left = good & (rank == count)
        now = left & ~(worse & left[:, None]).any(axis=0)
        return jnp.where(now, level, rank), level + 1

    start = jnp.full(count, count, jnp.int32), jnp.int32(0)
    return jax.lax.while_loop(lambda state: (good & (state[0] == count)).any(), peel, start)[0]


def crowding(values: Array, rank: Array) -> Array:
    """Crowding distances among the values of equal rank: float32[B, P], int32[B] -> float32[B]."""
    same = rank[:, None] == rank
    infinite = jnp.array([jnp.inf])

    def along(column: Array) -> Array:
        column = jnp.where(jnp.isfinite(column), column, 0.0)
        high = jnp.where(same, column, -jnp.inf).max(axis=1)
        low = jnp.where(same, column, jnp.inf).min(axis=1)
        # A front after another, each by the objective.
        order = jnp.lexsort((column, rank))
        own, front_of = column[order], rank[order]
        inside = front_of[1:] == front_of[:-1]
        next_one = jnp.concatenate([jnp.where(inside, own[1:], jnp.inf), infinite])
        previous = jnp.concatenate([-infinite, jnp.where(inside, own[:-1], -jnp.inf)])
        gap = jnp.zeros_like(column).at[order].set(next_one - previous)
        return jnp.where(jnp.isinf(gap), gap, gap / jnp.where(high > low, high - low, 1.0))

    return sum(map(along, values.T), jnp.zeros(len(values)))


def hypervolume(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Exact hypervolume of two or three objectives: float64[..., B, P], [P] -> float64[...].

    Values that do not exceed the reference in every objective add nothing. Raises `InputError` for another P.
    """
    values = np.asarray(values, np.float64)
    if values.shape[-1] not in (2, 3):
        raise InputError(
            f"hypervolumes are those of 2 or 3 objectives, not of {values.shape[-1]}: leave some out"
        )
    above = np.maximum(values - np.asarray(reference, np.float64), 0)
    # What fails in one objective encloses nothing, and is not to leave an infinity.
    above = np.where((above > 0).all(axis=-1, keepdims=True), above, 0)
    order = np.argsort(-above[..., -1], axis=-1)
    above = np.take_along_axis(above, order[..., None], axis=-2)
    # Slices between one value of the last objective and the next: the area of the values that reach so high.
    height = above[..., -1]
    below = np.concatenate([height[..., 1:], np.zeros((*height.shape[:-1], 1))], axis=-1)
    if values.shape[-1] == 2:
        reach = np.maximum.accumulate(above[..., 0], axis=-1)
        return np.sum(reach * (height - below), axis=-1)
    count = values.shape[-2]
    prefixes = np.tril(np.ones((count, count), bool))[..., None] * above[..., None, :, :2]
    return np.sum(hypervolume(prefixes, np.zeros(2)) * (height - below), axis=-1)
