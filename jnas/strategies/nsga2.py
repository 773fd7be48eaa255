"""NSGA-II: the population is the best P of parents and children, by rank, then by crowding distance.

    rank, crowding   `jnas.strategies.pareto`
    parent           the better of two members drawn at random: the lower rank, of equals the larger crowding distance
    child            uniform crossover of two parents with chance `crossover`, else the first one; then mutated
    population       the best P of parents and children in the order of tournaments

Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation 2002, https://doi.org/10.1109/4235.996017.

Departures: the children of a generation are the `batch`, not P; one at a time is the steady state of Nebro and Durillo
(LION 2009, https://doi.org/10.1007/978-3-642-11169-3_14). Crossover and mutation are those of categorical decisions. An
architecture is a member once, and a failed evaluation is none.

Letters: T evaluations that fit, B children, D decisions, P objectives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.spaces import Space
from jnas.strategies import archive, pareto
from jnas.strategies.archive import Archive
from jnas.strategies.offspring import crossed, mutants
from jnas.strategies.settings.evolution import Nsga2
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """archive: all evaluations; members: int32[population], places there, the best first, -1 behind the last."""

    archive: Archive
    members: Array


def nsga2(space: Space, settings: Nsga2, objectives: int, budget: int) -> Strategy:
    """The first `population` at random, then children, `batch` at a time."""
    size = min(settings.population, budget)

    def init(key: Key) -> State:
        return State(archive.empty(budget, len(space.decisions), objectives), jnp.full(size, -1, jnp.int32))

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        fresh_key, parent_key, share_key, mix_key, mutation_key = jax.random.split(key, 5)
        count = (state.members >= 0).sum()
        # Members are in order, so the better of two is the earlier one.
        drawn = jax.random.randint(parent_key, (2, settings.batch, 2), 0, jnp.maximum(count, 1)).min(axis=-1)
        first, second = state.archive.architectures[state.members[drawn]]
        both = jax.random.bernoulli(share_key, settings.crossover, (settings.batch, 1))
        born = jnp.where(both, crossed(space, mix_key, first, second), first)
        born = mutants(space, mutation_key, born, settings.rate)
        fresh = space.sample(fresh_key, settings.batch)
        return Candidates(jnp.where((state.archive.told < size) | (count == 0), fresh, born)), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        before, after = state.archive, archive.add(state.archive, candidates, values)
        pool = jnp.concatenate([state.members, before.told + jnp.arange(len(values.value))])
        able = (pool >= 0) & (pool < budget) & jnp.isfinite(after.values[pool]).all(axis=1)
        # An architecture that is there already is left out, and so is one that failed.
        rows = after.architectures[pool]
        same = (rows[:, None] == rows).all(axis=-1) & able[:, None]
        good = able & ~jnp.triu(same, 1).any(axis=0)
        compared = jnp.where(good[:, None], after.values[pool], -jnp.inf)
        rank = pareto.ranks(compared)
        order = jnp.lexsort((-pareto.crowding(compared, rank), rank))
        return State(after, jnp.where(good, pool, -1)[order][:size]), {}

    return Strategy(
        name="nsga2",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
