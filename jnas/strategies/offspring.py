"""Children of parents, inside a space that may be restricted to some of its architectures.

    mutation    exactly one decision, uniform over D, takes another choice; or each decision does with chance `rate`
    crossover   each decision from one of two parents with equal chances

A child that is no member of the space is drawn again (`jnas.spaces.subset.member`).

Letters: B children, D decisions.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.spaces import Space
from jnas.spaces.subset import member
from jnas.types import Key


def mutants(space: Space, key: Key, parents: Array, rate: float = 0.0) -> Array:
    """Mutate each parent: int32[B, D] -> int32[B, D]. rate: chance of each decision to change; 0: exactly one does."""
    if not rate:
        return space.mutate(key, parents)
    choices = jnp.asarray(space.decisions, jnp.int32)

    def mutant(key: Key, parent: Array) -> Array:
        where_key, step_key = jax.random.split(key)
        steps = jax.random.randint(step_key, parent.shape, 1, choices)
        return (parent + steps * jax.random.bernoulli(where_key, rate, parent.shape)) % choices

    keys = jax.random.split(key, len(parents))
    return jax.vmap(lambda key, parent: member(space, key, lambda draw: mutant(draw, parent)))(keys, parents)


def crossed(space: Space, key: Key, first: Array, second: Array) -> Array:
    """Uniform crossover of each pair of parents: int32[B, D], twice, -> int32[B, D]."""

    def child(key: Key, one: Array, other: Array) -> Array:
        return member(space, key, lambda draw: space.crossover(draw, one, other))

    return jax.vmap(child)(jax.random.split(key, len(first)), first, second)
