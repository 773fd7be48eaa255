"""Hill climbing with inheritance, as NASH: the best of an architecture and its children goes on.

    start      the smallest of `initial` random architectures
    children   `batch` of the current one, each after `steps` random changes
    next       the best of the children and the current one, of equals the current one

Elsken, Metzen and Hutter, "Simple and Efficient Architecture Search for Convolutional Neural Networks", 2017,
https://arxiv.org/abs/1711.04528: 8 children of 5 steps. `Candidates.parent` says whose weights a child inherits.

Departures: a step changes a decision, it is not a network morphism, so a child does not begin with the values of its
parent. The current architecture competes with the value it had and is not trained on. A child that was evaluated before
is not evaluated again; where too few others are drawn, random architectures without a parent take part. The start is
evaluated in the first batch, beside its children. Of a space whose sizes are not counted the start is any.

Letters: B children, T evaluations that fit, D decisions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.nets import networks, own
from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.lemonade import sizes
from jnas.strategies.settings.evolution import HillClimbing
from jnas.strategies.unseen import unseen
from jnas.types import Candidates, Info, Key, Strategy, Values

# Children drawn for each that is evaluated, as some were evaluated before.
DRAWS = 4


class State(NamedTuple):
    """archive: all evaluations. place: int32[], the current one among them, -1 before a start that did not fail."""

    archive: Archive
    place: Array


def hill_climbing(space: Space, settings: HillClimbing, objectives: int, budget: int) -> Strategy:
    """`batch` at a time: the start with its first children, then children of the current architecture."""
    pool = unseen(space)
    counted = own.is_own(space) or space.network in networks.NETWORKS
    size = sizes(space, ["params"]) if counted else lambda rows: jnp.zeros((len(rows), 1))

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        start_key, mutation_key, choice_key = jax.random.split(key, 3)
        begins = state.place < 0
        drawn = space.sample(start_key, settings.initial)
        start = drawn[jnp.argmin(size(drawn)[:, 0])]
        current = jnp.where(begins, start, state.archive.architectures[state.place])
        children = jnp.broadcast_to(current, (DRAWS * settings.batch, len(current)))
        for step in range(settings.steps):
            children = space.mutate(jax.random.fold_in(mutation_key, step), children)
        # In the order drawn, the start before its children.
        proposals = jnp.concatenate([current[None], children])
        rows = pool.choose(
            choice_key,
            state.archive,
            proposals,
            -jnp.arange(len(proposals), dtype=jnp.float32),
            settings.batch,
        )
        near = (rows != current).sum(axis=1) <= settings.steps
        return Candidates(rows, parent=jnp.where(near & ~begins, state.place, -1)), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        known = archive.add(state.archive, candidates, values)
        worth, told = fitness(known.values), jnp.arange(budget)
        new = jnp.argmax(jnp.where(told >= state.archive.told, worth, -jnp.inf))
        before = jnp.where(state.place < 0, -jnp.inf, worth[state.place])
        return State(known, jnp.where(worth[new] > before, new, state.place)), {}

    return Strategy(
        name="hill_climbing",
        init=lambda key: State(archive.empty(budget, len(space.decisions), objectives), jnp.int32(-1)),
        ask=ask,
        tell=tell,
        done=lambda state: pool.used_up(state.archive),
        best=lambda state: archive.best(state.archive),
        jittable=not own.is_own(space),
    )
