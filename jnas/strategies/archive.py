"""An archive of evaluations, as arrays of fixed size: what strategies under jit remember.

Architectures are compared by `jnas.proxies.combination.fitness`. A failed evaluation has -inf: it is never a parent.

Letters: T evaluations that fit, D decisions, P objectives.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.types import Candidates, Key, Strategy, Values

# A table of the places of all architectures serves spaces up to this size: hundreds of searches at once hold one each.
INDEXED = 100_000


class Archive(NamedTuple):
    """Evaluations in the order in which they were told.

    architectures: int32[T, D].
    values: float32[T, P], -inf where nothing was told yet.
    told: int32[], how many were told.
    """

    architectures: Array
    values: Array
    told: Array


def strategy(
    name: str,
    space: Space,
    objectives: int,
    budget: int,
    ask: Callable[[Key, Archive], tuple[Candidates, Archive]],
    done: Callable[[Archive], bool] = lambda archive: False,
) -> Strategy:
    """The strategy under jit whose state is its archive: all that it does is to ask."""
    return Strategy(
        name=name,
        init=lambda key: empty(budget, len(space.decisions), objectives),
        ask=ask,
        tell=lambda archive, candidates, values: (add(archive, candidates, values), {}),
        done=done,
        best=best,
        jittable=True,
    )


def empty(size: int, decisions: int, objectives: int) -> Archive:
    """An archive with room for `size` evaluations."""
    return Archive(
        jnp.zeros((size, decisions), jnp.int32), jnp.full((size, objectives), -jnp.inf), jnp.int32(0)
    )


def add(archive: Archive, candidates: Candidates, values: Values) -> Archive:
    """The archive with B evaluations appended. What does not fit is dropped."""
    architectures = jnp.asarray(candidates.architectures, jnp.int32)
    given = jnp.asarray(values.value, jnp.float32)
    places = archive.told + jnp.arange(len(architectures))
    good = jnp.isfinite(given).all(axis=1, keepdims=True)
    return Archive(
        archive.architectures.at[places].set(architectures, mode="drop"),
        archive.values.at[places].set(jnp.where(good, given, -jnp.inf), mode="drop"),
        archive.told + len(architectures),
    )


def places(archive: Archive, architectures: Array) -> Array:
    """Places where architectures int32[B, D] were told first: int32[B], -1 for those that were not."""
    told = jnp.arange(len(archive.values))
    same = (told < archive.told) & jnp.ones((len(architectures), 1), bool)
    # A decision at a time: comparisons of [B, T] that run as vectors.
    for own, theirs in zip(architectures.T, archive.architectures.T, strict=True):
        same &= own[:, None] == theirs
    first = jnp.where(same, told, len(told)).min(axis=1)
    return jnp.where(first < len(told), first, -1)


def best(archive: Archive, level: Array | None = None) -> Array:
    """The architecture with the highest fitness, of equals the one told first: int32[D].

    level: int32[T], the length of the training of each evaluation. Values of one length are compared with each other
      alone: the best is the one of the longest trainings that did not all fail.
    """
    values = archive.values
    if level is not None:
        values = jnp.where(longest(values, level)[:, None], values, -jnp.inf)
    return archive.architectures[jnp.argmax(fitness(values))]


def longest(values: ArrayLike, level: ArrayLike) -> Array:
    """True for the evaluations of the longest trainings that did not all fail; all where everything failed: bool[T].

    values: float[T, P], not finite for a failure. level: number[T], larger for a longer training.
    """
    good = jnp.isfinite(jnp.asarray(values)).all(axis=1)
    level = jnp.asarray(level)
    return (level == jnp.max(jnp.where(good, level, -1), initial=-1)) | ~good.any()


def ranks(archive: Archive, members: Array) -> Array:
    """Ranks by fitness among bool[T] evaluations, 0 for the best, of equals the one told first: int32[T]."""
    worth = fitness(jnp.where(members[:, None], archive.values, -jnp.inf))
    return jnp.argsort(jnp.argsort(-worth, stable=True), stable=True)


def no_places(space: Space, size: int) -> Array | None:
    """A table of places in an archive of `size`, of nothing told: int32[size]; None above `INDEXED`."""
    return jnp.full(space.size, size, jnp.int32) if space.size <= INDEXED else None


def placed(space: Space, table: Array | None, architectures: Array, told: Array) -> Array | None:
    """The table of places after int32[B, D] were told behind `told` others."""
    if table is None:
        return None
    return table.at[space.index(architectures)].min(told + jnp.arange(len(architectures)))


def looked_up(space: Space, table: Array | None, archive: Archive, architectures: Array) -> Array:
    """`places`, by the table of places where there is one: a look instead of T comparisons."""
    if table is None:
        return places(archive, architectures)
    first = table[space.index(architectures)]
    return jnp.where(first < len(archive.values), first, -1)
