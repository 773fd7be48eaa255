"""Distinct architectures of a space: their number, and draws that are uniform over them.

Two distributions are called uniform. `Space.sample` draws every decision that matters uniformly: in a chain of 1 to 12
layers every depth is then as likely as any other. Uniform over distinct architectures, nearly all are of depth 12.

    weight of choice k of decision d = product over decisions c that k makes active of (sum of the weights of c)
    P(choice k | d is active) = weight of k / sum of the weights of d

where every decision depends on one other at most. Other spaces are listed, up to `LARGEST_LIST` codes, or give a list
of their own (`Space.representatives`).

Letters: D decisions.
"""

from functools import lru_cache
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.spaces.base import LARGEST_LIST, Space


def count(space: Space) -> int:
    """Number of distinct architectures, exact. Raises `InputError` where it is not known."""
    if space.representatives or space.canonical_form:
        return len(listed(space))
    sums = [sum(weights) for weights in _weights(space)]
    return prod(total for total, parents in zip(sums, _parents(space), strict=True) if not parents)


def sample(space: Space, key: Array, n: int) -> Array:
    """`n` canonical architectures with replacement, all equally likely: int32[n, D].

    Raises `InputError` where they cannot be drawn so.
    """
    if space.representatives or space.canonical_form:
        rows = listed(space)
        return jnp.asarray(rows[np.asarray(jax.random.randint(key, (n,), 0, len(rows)))], jnp.int32)
    columns = []
    for place, weights in enumerate(_weights(space)):
        total = sum(weights)
        chances = jnp.log(jnp.array([weight / total for weight in weights]))
        columns.append(jax.random.categorical(jax.random.fold_in(key, place), chances, shape=(n,)))
    return space.canonical(jnp.stack(columns, axis=-1))


@lru_cache(maxsize=8)
def listed(space: Space) -> np.ndarray:
    """All canonical architectures in lexicographic order: int[A, D].

    Raises `InputError` for a space of more than `LARGEST_LIST` codes that gives no list of its own.
    """
    if space.representatives:
        return space.representatives()
    if space.size > LARGEST_LIST:
        raise InputError(
            f"the distinct architectures of {space.name} are not listed, as it has {space.size:.1e} codes: draw from "
            "space.sample, which is uniform over decisions"
        )
    rows = space.all()
    same = np.asarray(space.index(space.canonical(rows))) == np.arange(space.size)
    return rows[same & np.asarray(space.contains(rows))]


def _parents(space: Space) -> list[tuple[int, ...]]:
    conditions = space.conditions or ((),) * len(space.decisions)
    return [tuple(parent for parent, _ in row) for row in conditions]


@lru_cache(maxsize=64)
def _weights(space: Space) -> list[list[int]]:
    """Number of ways to take all that each choice of each decision makes active."""
    weights = [[1] * choices for choices in space.decisions]
    if any(len(parents) > 1 for parents in _parents(space)):
        raise InputError(
            f"the distinct architectures of {space.name} are not counted, as some decision depends on two others: draw "
            "from space.sample, which is uniform over decisions"
        )
    # Children stand behind their parents: from the last decision to the first, each is complete when it is read.
    for place in reversed(range(len(space.decisions))):
        for parent, choices in space.conditions[place] if space.conditions else ():
            for choice in choices:
                weights[parent][choice] *= sum(weights[place])
    return weights
