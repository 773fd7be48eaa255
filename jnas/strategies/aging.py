"""Evolution by a population: parents by tournament or truncation, the oldest, the worst or no member is removed.

    population   the last P evaluations (`oldest`), the best P (`worst`), or all (`none`)
    parent       the best of a tournament of S members, drawn with replacement; or any of the `truncation` best members
    child        one decision changed; or each with chance `rate`; a share `crossover` has two parents and no mutation

Removal of the oldest is aging: Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture
Search", AAAI 2019, https://arxiv.org/abs/1802.01548. As every child takes the place of the oldest member, the
population is the last P evaluations. Tournaments are with replacement, as in the authors' code. Removal of the worst is
the steady state of Whitley, "The GENITOR Algorithm", ICGA 1989: a child enters if it is better than the worst member.
Truncation, and children by crossover beside mutants, are those of Guo et al., "Single Path One-Shot", ECCV 2020,
https://arxiv.org/abs/1904.00420.

With `inherit`, `Candidates.parent` says whose weights a child begins with (Elsken, Metzen and Hutter, ICLR 2019,
https://arxiv.org/abs/1804.09081, call it Lamarckian).

Departures: Real et al. mutate by rules of their cells; here all decisions are alike. A tournament in which all members
failed, or a population in which all did, gives a random architecture.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.offspring import crossed, mutants
from jnas.strategies.settings.evolution import Aging
from jnas.types import Candidates, Key, Strategy


def aging(space: Space, settings: Aging, objectives: int, budget: int) -> Strategy:
    """The first `population` at random, then children, `batch` at a time."""
    size = min(settings.population, budget)

    def population(state: Archive) -> tuple[Array, Array]:
        """(places in the archive int32[n], of which the first are the members; how many members, int32[])."""
        places = jnp.arange(budget)
        if settings.removal == "none":
            return places, jnp.clip(state.told, 1, budget)
        if settings.removal == "worst":
            # Of equals the older one comes first.
            places = jax.lax.top_k(fitness(state.values), size)[1]
        else:
            places = jnp.maximum(state.told - 1 - places, 0)
        return places, jnp.clip(state.told, 1, size)

    def parents(key: Key, state: Archive) -> Array:
        places, count = population(state)
        if settings.truncation:
            member = jnp.arange(len(places)) < count
            worth = jnp.where(member, fitness(state.values)[places], -jnp.inf)
            best, order = jax.lax.top_k(worth, min(settings.truncation, len(places)))
            able = jnp.maximum(jnp.isfinite(best).sum(), 1)
            return places[order[jax.random.randint(key, (settings.batch,), 0, able)]]
        drawn = places[jax.random.randint(key, (settings.batch, settings.tournament), 0, count)]
        return jax.vmap(lambda rows: rows[jnp.argmax(fitness(state.values[rows]))])(drawn)

    def children(key: Key, state: Archive) -> tuple[Array, Array, Array]:
        """(architectures int32[B, D]; whether their parents did not fail, bool[B]; places of these, int32[B])."""
        parent_key, mutation_key = jax.random.split(key)
        rows = parents(parent_key, state)
        first = state.architectures[rows]
        able = jnp.isfinite(state.values[rows]).all(axis=1)
        born = mutants(space, mutation_key, first, settings.rate)
        if settings.crossover:
            share_key, second_key, mix_key = jax.random.split(jax.random.fold_in(key, 2), 3)
            others = parents(second_key, state)
            mixed = crossed(space, mix_key, first, state.architectures[others])
            both = jax.random.bernoulli(share_key, settings.crossover, (settings.batch,))
            born = jnp.where(both[:, None], mixed, born)
            able &= ~both | jnp.isfinite(state.values[others]).all(axis=1)
        return born, able, rows

    def ask(key: Key, state: Archive) -> tuple[Candidates, Archive]:
        fresh_key, child_key = jax.random.split(key)
        fresh = space.sample(fresh_key, settings.batch)
        born, able, rows = children(child_key, state)
        able &= state.told >= size
        # Of two parents the first one's weights are inherited.
        parent = jnp.where(able, rows, -1) if settings.inherit else None
        return Candidates(jnp.where(able[:, None], born, fresh), parent=parent), state

    return archive.strategy("aging", space, objectives, budget, ask)
