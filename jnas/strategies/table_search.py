"""Search strategies on a table of accuracies, as pure functions under jit: hundreds of seeds at once.

A strategy is `(key, signal, space, evaluations) -> (int32[T], float32[T])`: which architectures it evaluates, one after
another, as numbers in the space's lexicographic order, and what each evaluation showed. `signal`, float32[S, size],
holds what it can show: one of the S trainings of the architecture, drawn at random, nan where it was not trained.
Architectures that the table does not hold are not asked for: a table may hold a part of the space.

    random search      architectures uniformly, with replacement (Bergstra and Bengio, JMLR 2012)
    aging evolution    the best of `tournament` members of a population of `population` is mutated; its child replaces
                       the oldest member (Real, Aggarwal, Huang and Le, AAAI 2019, https://arxiv.org/abs/1802.01548)
    local search       the neighbours of the best architecture so far in random order, a better one at once taking its
                       place; from a new random one when none is left (White, Nolen and Savani, UAI 2021,
                       https://arxiv.org/abs/2005.02960)

Departures. Evolution: mutation draws up to `TRIES` mutants and takes the first that the table holds. Local search:
neighbours are drawn with replacement, and it starts anew after as many draws without success as there are neighbours.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jnas.spaces import base
from jnas.spaces.base import Space

POPULATION, TOURNAMENT = 30, 10
TRIES = 16


def _sample(key: Array, known: Array, count: int) -> Array:
    """Numbers of architectures that the table holds: int32[count]."""
    places = jnp.cumsum(known) - 1
    wanted = jax.random.randint(key, (count,), 0, places[-1] + 1)
    return jnp.searchsorted(places, wanted).astype(jnp.int32)


def _show(key: Array, signal: Array, number: Array) -> Array:
    """One training of an architecture, drawn among those that there are: float32[]."""
    trainings = signal[:, number]
    chances = jnp.where(jnp.isfinite(trainings), 0.0, -jnp.inf)
    return trainings[jax.random.categorical(key, chances)]


def _mutant(key: Array, known: Array, space: Space, number: Array) -> Array:
    """A neighbour of an architecture that the table holds; itself where `TRIES` find none."""
    architecture = jnp.stack(jnp.unravel_index(number, space.decisions)).astype(jnp.int32)
    tried = space.mutate(key, jnp.broadcast_to(architecture, (TRIES, len(space.decisions))))
    numbers = base.index(space.decisions, tried)
    found = known[numbers]
    return jnp.where(found.any(), numbers[jnp.argmax(found)], number)


def _show_all(key: Array, signal: Array, numbers: Array) -> Array:
    keys = jax.random.split(key, len(numbers))
    return jax.vmap(lambda key, number: _show(key, signal, number))(keys, numbers)


def random_search(key: Array, signal: Array, space: Space, evaluations: int) -> tuple[Array, Array]:
    """Uniformly drawn architectures."""
    draw_key, shown_key = jax.random.split(key)
    asked = _sample(draw_key, jnp.isfinite(signal).any(axis=0), evaluations)
    return asked, _show_all(shown_key, signal, asked)


def aging_evolution(key: Array, signal: Array, space: Space, evaluations: int) -> tuple[Array, Array]:
    """The first `POPULATION` at random, then children."""
    known = jnp.isfinite(signal).any(axis=0)
    population = min(POPULATION, evaluations)
    start_key, shown_key, steps_key = jax.random.split(key, 3)
    first = _sample(start_key, known, population)
    shown = _show_all(shown_key, signal, first)

    def step(state, inputs):
        members, fitness = state
        key, oldest = inputs
        choice_key, mutation_key, own_key = jax.random.split(key, 3)
        contestants = jax.random.randint(choice_key, (min(TOURNAMENT, population),), 0, population)
        parent = members[contestants[jnp.argmax(fitness[contestants])]]
        child = _mutant(mutation_key, known, space, parent)
        value = _show(own_key, signal, child)
        return (members.at[oldest].set(child), fitness.at[oldest].set(value)), (child, value)

    steps = evaluations - population
    inputs = (jax.random.split(steps_key, steps), jnp.arange(steps) % population)
    _, (children, values) = jax.lax.scan(step, (first, shown), inputs)
    return jnp.concatenate([first, children]), jnp.concatenate([shown, values])


def local_search(key: Array, signal: Array, space: Space, evaluations: int) -> tuple[Array, Array]:
    """Neighbours of the best so far."""
    known = jnp.isfinite(signal).any(axis=0)
    patience = sum(choices - 1 for choices in space.decisions)

    def step(state, key):
        current, value, failures = state
        fresh_key, mutation_key, own_key = jax.random.split(key, 3)
        anew = failures >= patience
        fresh = _sample(fresh_key, known, 1)[0]
        asked = jnp.where(anew, fresh, _mutant(mutation_key, known, space, current))
        shown = _show(own_key, signal, asked)
        better = anew | (shown > value)
        state = (
            jnp.where(better, asked, current),
            jnp.where(better, shown, value),
            jnp.where(better, 0, failures + 1),
        )
        return state, (asked, shown)

    start = (jnp.int32(0), jnp.float32(-jnp.inf), jnp.int32(patience))
    _, trace = jax.lax.scan(step, start, jax.random.split(key, evaluations))
    return trace


ON_TABLES: dict[str, Callable[[Array, Array, Space, int], tuple[Array, Array]]] = {
    "random_search": random_search,
    "aging_evolution": aging_evolution,
    "local_search": local_search,
}


@partial(jax.jit, static_argnames=("name", "space", "evaluations"))
def traces(keys: Array, signal: Array, *, name: str, space: Space, evaluations: int) -> tuple[Array, Array]:
    """What a strategy of `ON_TABLES` evaluates, and sees, for each of keys [R]: int32[R, T], float32[R, T]."""
    return jax.vmap(lambda key: ON_TABLES[name](key, signal, space, evaluations))(keys)


def incumbents(shown: Array, worth: Array) -> Array:
    """What the architecture with the best evaluation so far is worth: float[R, T], both arguments so.

    shown: what each evaluation showed; worth: what its architecture is worth.
    """

    def better(left, right):
        newer = right[0] > left[0]
        return jnp.where(newer, right[0], left[0]), jnp.where(newer, right[1], left[1])

    return jax.lax.associative_scan(better, (shown, worth), axis=1)[1]
