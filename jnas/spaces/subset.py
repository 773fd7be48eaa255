"""A space restricted to some of its architectures: those that a table holds, that fit a device, that were listed."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.errors import InputError
from jnas.spaces.base import Moves, Space

# Mutants drawn at a time; the first that is a member is taken.
TRIES = 16


def subset(space: Space, members: np.ndarray) -> Space:
    """`space` whose `sample` and `mutate` give members alone, bool[size] in lexicographic order.

    A mutation without a member among `TRIES` mutants gives the architecture itself.
    Raises `InputError` without members.
    """
    numbers = jnp.asarray(np.flatnonzero(members), jnp.int32)
    allowed = jnp.asarray(members)
    if not len(numbers):
        raise InputError(f"none of the architectures of {space.name} is a member: give at least one")

    def sample(key: Array, count: int) -> Array:
        chosen = numbers[jax.random.randint(key, (count,), 0, len(numbers))]
        return jnp.stack(jnp.unravel_index(chosen, space.decisions), axis=-1).astype(jnp.int32)

    def mutate(key: Array, architectures: ArrayLike) -> Array:
        parents = jnp.asarray(architectures, jnp.int32)
        tried = space.mutate(key, jnp.broadcast_to(parents, (TRIES, *parents.shape)))
        good = allowed[space.index(tried)]
        first = jnp.take_along_axis(tried, jnp.argmax(good, axis=0)[None, ..., None], axis=0)[0]
        return jnp.where(good.any(axis=0)[..., None], first, parents)

    return replace(space, moves=Moves(sample, mutate))
