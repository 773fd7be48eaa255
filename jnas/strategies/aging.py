"""Aging evolution: the best of a tournament is mutated, its child replaces the oldest member.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019,
https://arxiv.org/abs/1802.01548. As every child takes the place of the oldest member, the population is the last
`population` evaluations. Members of a tournament are drawn with replacement, as in the authors' code.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.settings import Aging
from jnas.types import Candidates, Key, Strategy


def aging(space: Space, settings: Aging, objectives: int, budget: int) -> Strategy:
    """The first `population` at random, then mutants of tournament winners, `batch` at a time."""
    size = min(settings.population, budget)

    def children(key: Key, state: Archive) -> Array:
        choice_key, mutation_key = jax.random.split(key)
        # With replacement among the youngest; an archive that is filling up has fewer.
        ages = jax.random.randint(
            choice_key, (settings.batch, settings.tournament), 0, jnp.clip(state.told, 1, size)
        )
        members = jnp.maximum(state.told - 1 - ages, 0)
        winners = jax.vmap(lambda rows: rows[jnp.argmax(fitness(state.values[rows]))])(members)
        return space.mutate(mutation_key, state.architectures[winners])

    def ask(key: Key, state: Archive) -> tuple[Candidates, Archive]:
        fresh_key, child_key = jax.random.split(key)
        fresh = space.sample(fresh_key, settings.batch)
        return Candidates(jnp.where(state.told < size, fresh, children(child_key, state))), state

    return Strategy(
        name="aging",
        init=lambda key: archive.empty(budget, len(space.decisions), objectives),
        ask=ask,
        tell=lambda state, candidates, values: (archive.add(state, candidates, values), {}),
        done=lambda state: False,
        best=archive.best,
        jittable=True,
    )
