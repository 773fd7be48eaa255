"""Local search: a better neighbour takes the place of the current architecture at once.

White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021,
https://arxiv.org/abs/2005.02960. It starts anew from a random architecture when no neighbour is better.

Departure: neighbours are drawn with replacement, and the start is new after as many failures as there are neighbours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.settings import Local
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """archive: all evaluations; place: int32[], the current one among them; failures: int32[] since it was taken."""

    archive: Archive
    place: Array
    failures: Array


def local(space: Space, settings: Local, objectives: int, budget: int) -> Strategy:
    """First improvement, with restarts; `batch` neighbours of one architecture at a time."""
    patience = sum(choices - 1 for choices in space.decisions)

    def init(key: Key) -> State:
        nothing = archive.empty(budget, len(space.decisions), objectives)
        return State(nothing, jnp.int32(0), jnp.int32(patience))

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        fresh_key, mutation_key = jax.random.split(key)
        current = jnp.broadcast_to(
            state.archive.architectures[state.place], (settings.batch, len(space.decisions))
        )
        neighbours = space.mutate(mutation_key, current)
        return Candidates(
            jnp.where(state.failures >= patience, space.sample(fresh_key, settings.batch), neighbours)
        ), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        before, after = state.archive, archive.add(state.archive, candidates, values)
        count = len(values.value)
        rows = jnp.concatenate([state.place[None], before.told + jnp.arange(count)])
        compared = fitness(after.values[jnp.minimum(rows, budget - 1)])
        # A new start is taken whatever it is worth, unless it failed.
        anew = state.failures >= patience
        winner = jnp.where(anew, 1 + jnp.argmax(compared[1:]), jnp.argmax(compared))
        place = rows[winner]
        failed = ~jnp.isfinite(after.values[place]).all()
        failures = jnp.where(winner > 0, 0, state.failures + count)
        return State(after, place, jnp.where(failed, patience, failures)), {}

    return Strategy(
        name="local",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
