"""Architectures that were not evaluated yet: a strategy's proposals, then random ones, none asked for twice.

Architectures with one representative (`Space.canonical`) count as one. A space of at most `LISTED` architectures is a
list with one member of each class: which of them are left is known, to the last one. Of a larger space the archive and
the proposals are compared in pairs, and random draws fill up.

Letters: B asked for, N proposals, T evaluations that fit, M classes, D decisions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies.archive import Archive
from jnas.strategies.hashing import mixed
from jnas.types import Key

# A list of more architectures takes longer to score than most surrogates deserve.
LISTED = 20_000
# Random draws of a larger space, among which those that were not evaluated fill up; at least twice those asked for.
DRAWS = 64
# Further changes of a mutant, each with chance 1/2.
FURTHER = 2


class Unseen(NamedTuple):
    """Choice among the architectures of one space that were not evaluated.

    listed: int32[M, D], the first member of each class in lexicographic order; None for a larger space.
    new: (archive, int32[N, D]) -> bool[N], members of the space of whose class none was evaluated.
    choose: (key, archive, proposals int32[N, D], scores float32[N], B) -> int32[min(B, M), D], the new proposals with
      the highest scores, different by class; then random new architectures. A score of -inf or nan proposes nothing.
      Once the space is used up, any.
    used_up: archive -> whether no architecture of a listed space is left.
    """

    listed: Array | None
    new: Callable[[Archive, Array], Array]
    choose: Callable[[Key, Archive, Array, Array, int], Array]
    used_up: Callable[[Archive], bool]


def unseen(space: Space) -> Unseen:
    """The choice among architectures of a space, for strategies under jit."""
    return _of_list(space) if space.size <= LISTED else _of_pairs(space)


def _of_list(space: Space) -> Unseen:
    everything = space.all()
    inside = np.flatnonzero(space.contains(everything))
    classes = np.asarray(space.index(space.canonical(everything)))
    distinct, first = np.unique(classes[inside], return_index=True)
    count = len(distinct)
    listed = jnp.asarray(everything[inside[first]], jnp.int32)
    # The place of each architecture's class in the list; `count` for a class without members.
    places = np.minimum(np.searchsorted(distinct, classes), count - 1)
    place = jnp.asarray(np.where(distinct[places] == classes, places, count), jnp.int32)

    def free(archive: Archive) -> Array:
        told = jnp.arange(len(archive.architectures)) < archive.told
        rows = jnp.where(told, place[space.index(archive.architectures)], count)
        return jnp.ones(count, bool).at[rows].set(False, mode="drop")

    def new(archive: Archive, architectures: Array) -> Array:
        return jnp.append(free(archive), False)[place[space.index(architectures)]]

    def choose(key: Key, archive: Archive, proposals: Array, scores: Array, asked: int) -> Array:
        good = jnp.isfinite(scores)
        rows = jnp.where(good, place[space.index(proposals)], count)
        # Below every proposal, in random order.
        lowest = jnp.min(jnp.where(good, scores, 0.0), initial=0.0)
        drawn = lowest - 1 - shuffled(key, count)
        total = drawn.at[rows].max(scores, mode="drop")
        best = jax.lax.top_k(jnp.where(free(archive), total, -jnp.inf), min(asked, count))[1]
        # The architecture that was proposed, not its class's first: a table may hold one of them alone.
        winners = jnp.where(good & (scores == jnp.append(total, 0)[rows]), rows, count)
        proposed = jnp.full(count, -1).at[winners].set(jnp.arange(len(rows)), mode="drop")[best]
        allowed = space.contains(proposals)[proposed] & (proposed >= 0)
        return jnp.where(allowed[:, None], proposals[proposed], listed[best])

    return Unseen(listed, new, choose, lambda archive: int(archive.told) >= count and not free(archive).any())


def _of_pairs(space: Space) -> Unseen:
    def new(archive: Archive, architectures: Array) -> Array:
        told = jnp.arange(len(archive.architectures)) < archive.told
        equal = _equal(space.canonical(architectures), space.canonical(archive.architectures))
        return space.contains(architectures) & ~(equal & told).any(axis=1)

    def choose(key: Key, archive: Archive, proposals: Array, scores: Array, asked: int) -> Array:
        draws = space.sample(key, max(DRAWS, 2 * asked))
        rows = jnp.concatenate([proposals, draws])
        # Proposals by their scores, then draws; equal ones behind the first of them, and what was evaluated at the end.
        scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
        order = jnp.argsort(-scores, stable=True)
        count = jnp.isfinite(scores).sum()
        ahead = jnp.arange(len(scores)) < count
        tier = jnp.concatenate([jnp.where(ahead, 0, 2), jnp.ones(len(draws), int)])
        rows = rows.at[: len(scores)].set(proposals[order])[jnp.argsort(tier, stable=True)]
        codes = space.canonical(rows)
        repeated = jnp.tril(_equal(codes, codes), -1).any(axis=1)
        behind = jnp.argsort(repeated | ~new(archive, rows), stable=True)
        return rows[behind[:asked]]

    return Unseen(None, new, choose, lambda archive: False)


def shuffled(key: Key, count: int) -> Array:
    """Numbers in 0..1 that put 0, 1, ..., count - 1 into a random order: float32[count].

    Hashes of 64 random bits and the place: noise for each place would take most of an ask's time.
    """
    first, second = jax.random.bits(key, (2,))
    return (mixed(mixed(jnp.arange(count, dtype=jnp.uint32) + first) ^ second) >> 8) * jnp.float32(2**-24)


def mutants(key: Key, space: Space, archive: Archive, count: int, parents: int) -> Array:
    """Mutants of the best `parents` in the archive, with one to three changes: int32[count, D].

    Failures are no parents, unless nothing else is there.
    """
    parent_key, further_key, *keys = jax.random.split(key, 3 + FURTHER)
    worth = fitness(archive.values)
    order = jnp.argsort(-worth, stable=True)
    most = jnp.clip(jnp.isfinite(worth).sum(), 1, parents)
    rows = archive.architectures[order[jax.random.randint(parent_key, (count,), 0, most)]]
    rows = space.mutate(keys[0], rows)
    for own, again in zip(keys[1:], jax.random.bernoulli(further_key, 0.5, (FURTHER, count)), strict=True):
        rows = jnp.where(again[:, None], space.mutate(own, rows), rows)
    return rows


def _equal(first: Array, second: Array) -> Array:
    """True for pairs of equal rows, int32[N, D] and int32[T, D]: bool[N, T]."""
    return (first[:, None] == second[None]).all(axis=-1)
