"""A space restricted to some of its architectures: those that a table holds, that fit a device, that were listed."""

from collections.abc import Callable
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

    return _restricted(space, sample, lambda architectures: allowed[space.index(architectures)])


def where(space: Space, fits: Callable[[ArrayLike], Array]) -> Space:
    """`space` whose `sample` and `mutate` give those alone for which int32[..., D] -> bool[...] is true.

    For spaces that are too large to list: draws are drawn anew until all fit, for ever where none does. Mutations are
    those of `subset`.
    """

    def contains(architectures: ArrayLike) -> Array:
        return fits(architectures) & space.contains(architectures)

    def sample(key: Array, count: int) -> Array:
        def again(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            rows, attempt = carry
            fresh = space.sample(jax.random.fold_in(key, attempt), count)
            return jnp.where(contains(rows)[:, None], rows, fresh), attempt + 1

        first = space.sample(key, count), jnp.int32(1)
        return jax.lax.while_loop(lambda carry: ~contains(carry[0]).all(), again, first)[0]

    return _restricted(space, sample, contains)


def _restricted(
    space: Space, sample: Callable[[Array, int], Array], contains: Callable[[ArrayLike], Array]
) -> Space:
    def mutate(key: Array, architectures: ArrayLike) -> Array:
        parents = jnp.asarray(architectures, jnp.int32)
        tried = space.mutate(key, jnp.broadcast_to(parents, (TRIES, *parents.shape)))
        return _first(contains(tried), tried, parents)

    return replace(space, moves=Moves(sample, mutate, contains))


def member(space: Space, key: Array, draw: Callable[[Array], Array]) -> Array:
    """An architecture of the space by a distribution that knows nothing of its members: int32[D].

    The first member among `TRIES` draws; without one a mutant of the last; of a mutant that is no member either, a
    member drawn uniformly. On a space of all architectures it is one draw.

    draw: key -> int32[D].
    """
    if space.moves is None or space.moves.contains is None:
        return draw(key)
    draw_key, mutation_key, sample_key = jax.random.split(key, 3)
    tried = jax.vmap(draw)(jax.random.split(draw_key, TRIES))
    others = jnp.stack([space.mutate(mutation_key, tried[-1]), space.sample(sample_key, 1)[0]])
    tried = jnp.concatenate([tried, others])
    return _first(space.contains(tried), tried, others[-1])


def _first(good: Array, tried: Array, otherwise: Array) -> Array:
    """The first of `tried` [n, ..., D] that is good, [n, ...], or else `otherwise` [..., D]."""
    first = jnp.take_along_axis(tried, jnp.argmax(good, axis=0)[None, ..., None], axis=0)[0]
    return jnp.where(good.any(axis=0)[..., None], first, otherwise)
