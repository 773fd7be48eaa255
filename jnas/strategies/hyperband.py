"""Successive halving and Hyperband: many short trainings, of which the best are trained longer.

A bracket trains n architectures for a share r of the full training, the best 1/eta of them for eta r, and so on:

    rung i = 0, 1, ...:   max(1, floor(n eta^-i)) trainings at the share r eta^i,      the last at 1

Successive halving repeats one bracket, r = eta^(1 - rungs) and n = eta^(rungs - 1) where nothing else is said.
Hyperband goes through s = rungs - 1, ..., 0 and starts anew, with

    n = floor(rungs / (s + 1)) eta^s,      r = eta^-s

A batch of B is filled with what can be asked for: slots of rungs whose predecessor was told to the end, then a bracket
more. As the members of a batch are told together, the whole schedule is known beforehand: it is a list of slots, and
asking runs under jit.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016,
https://arxiv.org/abs/1502.07943; Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband", JMLR 2018,
https://jmlr.org/papers/v18/16-558.html. n is that of the paper's table and of HpBandSter; its Algorithm 1 has
ceil(rungs eta^s / (s + 1)).

Departures: a failure is not promoted; where too few of a rung succeeded, a new architecture takes the place. A promoted
architecture is trained anew, as an estimator keeps no weights.

Letters: B candidates, D decisions, T slots.
"""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.settings.fidelity import Bohb, Hyperband, SuccessiveHalving
from jnas.types import Candidates, Key, Strategy

# The number of trainings and their level, 0 for the shortest, of each rung.
Bracket: TypeAlias = Sequence[tuple[int, int]]
# (key, archive, levels int32[T]) -> new architectures int32[B, D].
Propose: TypeAlias = Callable[[Key, Archive, Array], Array]


class Schedule(NamedTuple):
    """Slots in the order in which they are asked for.

    level: int32[T], the length of the training, 0 for the shortest.
    rung: int32[T], the number of its rung among all rungs of all brackets.
    source: int32[T], the rung that it is promoted from; -1 for a new architecture.
    rank: int32[T], its rank there, 0 for the best.
    """

    level: Array
    rung: Array
    source: Array
    rank: Array


def bracket(count: int, eta: int, first: int, rungs: int) -> Bracket:
    """The bracket of `count` architectures whose first trainings are of the level `first`."""
    return [(max(1, count // eta ** (level - first)), level) for level in range(first, rungs)]


def brackets(eta: int, rungs: int) -> list[Bracket]:
    """Hyperband's brackets, the one with the shortest trainings first."""
    return [
        bracket(rungs // (steps + 1) * eta**steps, eta, rungs - 1 - steps, rungs)
        for steps in reversed(range(rungs))
    ]


def shares(eta: int, rungs: int) -> Array:
    """The share of the full training of each level: float32[rungs]."""
    return jnp.asarray([1 / eta ** (rungs - 1 - level) for level in range(rungs)], jnp.float32)


def schedule(repeated: Sequence[Bracket], batch: int, slots: int) -> Schedule:
    """The first `slots` slots of brackets that are repeated, asked for in batches."""
    filled: list[tuple[int, int, int, int]] = []
    # (number, trainings, level, source, taken so far) of rungs that are not full; the place where each full one ended.
    waiting: list[tuple[int, int, int, int, int]] = []
    ended: dict[int, int] = {-1: 0}
    following, started = cycle(repeated), 0
    while len(filled) < slots:
        told = len(filled)
        while (room := told + batch - len(filled)) > 0:
            ready = (place for place, rung in enumerate(waiting) if ended.get(rung[3], told + 1) <= told)
            if (place := next(ready, None)) is None:
                for step, (count, level) in enumerate(next(following)):
                    waiting.append((started, count, level, started - 1 if step else -1, 0))
                    started += 1
                continue
            number, count, level, source, taken = waiting.pop(place)
            more = min(count - taken, room)
            filled += [(level, number, source, taken + rank) for rank in range(more)]
            if taken + more < count:
                waiting.insert(place, (number, count, level, source, taken + more))
            else:
                ended[number] = len(filled)
    columns = np.array(filled, np.int32).reshape(-1, 4)[:slots].T
    return Schedule(*(jnp.asarray(column) for column in columns))


def halving(
    name: str,
    space: Space,
    repeated: Sequence[Bracket],
    settings: SuccessiveHalving | Hyperband | Bohb,
    objectives: int,
    budget: int,
    propose: Propose | None = None,
) -> Strategy:
    """Brackets that are repeated. propose: new architectures; None draws them uniformly."""
    batch = settings.batch
    # The last batch may reach beyond the budget.
    room = -(-budget // batch) * batch
    plan, share = schedule(repeated, batch, room), shares(settings.eta, settings.rungs)

    def ask(key: Key, state: Archive) -> tuple[Candidates, Archive]:
        level, _, source, rank = (column[state.told + jnp.arange(batch)] for column in plan)
        members = (plan.rung == source[:, None]) & (jnp.arange(room) < state.told)
        worth = jax.vmap(lambda own: fitness(jnp.where(own[:, None], state.values, -jnp.inf)))(members)
        place = jnp.take_along_axis(jnp.argsort(-worth, axis=1, stable=True), rank[:, None], axis=1)
        promoted = jnp.isfinite(jnp.take_along_axis(worth, place, axis=1))
        new = propose(key, state, plan.level) if propose else space.sample(key, batch)
        rows = jnp.where(promoted, state.architectures[place[:, 0]], new)
        return Candidates(rows, fidelity=share[level]), state

    return archive.strategy(name, space, objectives, room, ask)._replace(
        asks="trainings", best=lambda state: archive.best(state, plan.level)
    )


def successive_halving(space: Space, settings: SuccessiveHalving, objectives: int, budget: int) -> Strategy:
    """One bracket from the shortest trainings on, again and again."""
    count = settings.configurations or settings.eta ** (settings.rungs - 1)
    one = bracket(count, settings.eta, 0, settings.rungs)
    return halving("successive_halving", space, [one], settings, objectives, budget)


def hyperband(space: Space, settings: Hyperband, objectives: int, budget: int) -> Strategy:
    """Every bracket in turn."""
    repeated = brackets(settings.eta, settings.rungs)
    return halving("hyperband", space, repeated, settings, objectives, budget)
