"""Local search: from the best of some random architectures to ever better neighbours.

    first   the first neighbour that is better takes the place of the current architecture
    best    the best neighbour does, when all were evaluated

Neighbours differ in one decision. They are evaluated in random order, and none that was evaluated before: its value is
known, and the search moves to it, if it is better, without an evaluation. An architecture without a better neighbour is
a local maximum: the search starts anew from `initial` random architectures (`restart`), or goes on from the best of all
evaluations whose neighbours were not all evaluated (`next_best`).

White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021,
https://arxiv.org/abs/2005.02960. Departures: their code passes over neighbours that were evaluated before even where
they are better. Where a batch is larger than the number of neighbours left, random architectures fill it.

Letters: T evaluations that fit, B candidates, M neighbours, D decisions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.settings.evolution import Local
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """State of a climb.

    archive: all evaluations. place: int32[], the current one among them, -1 among random starts. since: int32[], the
    first of these starts. expanded: bool[T], those left with all their neighbours evaluated. places: where each
    architecture was told first (`archive.no_places`).
    """

    archive: Archive
    place: Array
    since: Array
    expanded: Array
    places: Array | None


def local(space: Space, settings: Local, objectives: int, budget: int) -> Strategy:
    """`initial` random architectures, then neighbours of the current one, `batch` at a time."""

    def init(key: Key) -> State:
        nothing = archive.empty(budget, len(space.decisions), objectives)
        unmarked = jnp.zeros(budget, bool)
        return State(nothing, jnp.int32(-1), jnp.int32(0), unmarked, archive.no_places(space, budget))

    def around(known: Archive, table: Array | None, place: Array) -> tuple[Array, Array, Array]:
        """(neighbours int32[M, D]; their places in the archive int32[M], or -1; those to be evaluated bool[M])."""
        rows = space.neighbours(known.architectures[place])
        places = archive.looked_up(space, table, known, rows)
        return rows, places, (places < 0) & space.contains(rows)

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        fresh_key, order_key = jax.random.split(key)
        fresh = space.sample(fresh_key, settings.batch)
        rows, _, left = around(state.archive, state.places, state.place)
        left &= state.place >= 0
        order = jnp.argsort(jnp.where(left, jax.random.uniform(order_key, left.shape), 2.0))[: settings.batch]
        taken = jnp.where(left[order][:, None], rows[order], fresh[: len(order)])
        return Candidates(jnp.concatenate([taken, fresh[len(order) :]])), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        known = archive.add(state.archive, candidates, values)
        told_rows = jnp.asarray(candidates.architectures, jnp.int32)
        table = archive.placed(space, state.places, told_rows, state.archive.told)
        worth = fitness(known.values)
        told = jnp.arange(budget)
        # The best of enough random starts climbs.
        start = jnp.argmax(jnp.where(told >= state.since, worth, -jnp.inf))
        started = (known.told - state.since >= settings.initial) & jnp.isfinite(worth[start])
        place = jnp.where(state.place >= 0, state.place, jnp.where(started, start, -1))

        def move(climb: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            """(place, expanded, whether it moved): to a better neighbour whose value is known, or from a maximum."""
            place, expanded, _ = climb
            _, places, left = around(known, table, place)
            # Going on from a maximum does not lead back to another one that was left.
            closed = expanded[places] if settings.at_maximum == "next_best" else False
            near = jnp.where((places >= 0) & ~jnp.bool_(closed), worth[places], -jnp.inf)
            best, complete = places[jnp.argmax(near)], ~left.any()
            better = near.max() > worth[place]
            if settings.improvement == "best":
                better &= complete
            at_maximum = complete & ~better
            expanded = expanded.at[place].max(at_maximum)
            if settings.at_maximum == "next_best":
                open_worth = jnp.where(expanded, -jnp.inf, worth)
                after = jnp.where(jnp.isfinite(open_worth).any(), jnp.argmax(open_worth), -1)
            else:
                after = jnp.int32(-1)
            place_after = jnp.where(better, best, jnp.where(at_maximum, after, place))
            return place_after, expanded, place_after != place

        place, expanded, _ = jax.lax.while_loop(
            lambda climb: climb[2] & (climb[0] >= 0), move, (place, state.expanded, jnp.bool_(True))
        )
        # A new round of starts begins with what is told next; without a good one the round goes on.
        since = jnp.where((place < 0) & ((state.place >= 0) | started), known.told, state.since)
        return State(known, place, since, expanded, table), {}

    return Strategy(
        name="local",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive),
        jittable=True,
    )
