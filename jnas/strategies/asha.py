"""ASHA, asynchronous successive halving: a training is prolonged as soon as it is among the best of its rung.

Rung k holds the trainings for the share eta^(k + 1 - rungs) of the full one. An ask looks through the rungs, from the
last but one downwards, for a training

    among the best floor(n_k / eta) of the n_k that were told in its rung, not promoted before,

and asks for its architecture in the rung above, the best first. Where there is none it asks for a new architecture in
rung 0. A batch of B takes the first B of that order, as B workers that ask one after another would.

Li, Jamieson, Rostamizadeh, Gonina, Ben-Tzur, Hardt, Recht and Talwalkar, "A System for Massively Parallel
Hyperparameter Tuning", MLSys 2020, https://arxiv.org/abs/1810.05934.

Departures: a failure is never promoted. The members of a batch are told together, so that a search is a function of its
key. A promoted architecture is trained anew, as an estimator keeps no weights.

Letters: B candidates, D decisions, T trainings that fit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.hyperband import shares
from jnas.strategies.settings.fidelity import Asha
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """archive: of trainings; rung: int32[T], of each; promoted: bool[T], whether it was trained longer since."""

    archive: Archive
    rung: Array
    promoted: Array


def asha(space: Space, settings: Asha, objectives: int, budget: int) -> Strategy:
    """Promotions, or new architectures where there are none, `batch` at a time. budget: trainings that it remembers."""
    batch, room = settings.batch, max(budget, settings.batch)
    share = shares(settings.eta, settings.rungs)

    def init(key: Key) -> State:
        empty = archive.empty(room, len(space.decisions), objectives)
        return State(empty, jnp.zeros(room, jnp.int32), jnp.zeros(room, bool))

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        places, found = promotable(state, settings.eta, settings.rungs, batch)
        rows = jnp.where(found[:, None], state.archive.architectures[places], space.sample(key, batch))
        level = jnp.where(found, state.rung[places] + 1, 0)
        promoted = state.promoted.at[places].max(found)
        return Candidates(rows, fidelity=share[level]), state._replace(promoted=promoted)

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        rung = jnp.argmin(jnp.abs(jnp.asarray(candidates.fidelity)[:, None] - share), axis=1)
        places = state.archive.told + jnp.arange(len(rung))
        return State(
            archive.add(state.archive, candidates, values),
            state.rung.at[places].set(rung, mode="drop"),
            state.promoted,
        ), {}

    return Strategy(
        name="asha",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: False,
        best=lambda state: archive.best(state.archive, state.rung),
        asks="trainings",
        jittable=True,
    )


def promotable(state: State, eta: int, rungs: int, count: int) -> tuple[Array, Array]:
    """Places int32[count] of promotions, the highest rung first, then the best; bool[count], False for none."""
    values, order = state.archive.values, jnp.arange(len(state.rung))
    places, found = [jnp.zeros(count, int)], [jnp.zeros(count, bool)]
    for rung in reversed(range(rungs - 1)):
        members = (order < state.archive.told) & (state.rung == rung)
        worth = fitness(jnp.where(members[:, None], values, -jnp.inf))
        # The best that were not promoted, and their ranks among all: ranks of all take a sort.
        best, own = jax.lax.top_k(jnp.where(state.promoted, -jnp.inf, worth), count)
        before = (worth > best[:, None]) | ((worth == best[:, None]) & (order < own[:, None]))
        places.append(own)
        found.append(jnp.isfinite(best) & (before.sum(axis=1) < members.sum() // eta))
    everyone = jnp.concatenate(found)
    first = jnp.argsort(~everyone, stable=True)[:count]
    return jnp.concatenate(places)[first], everyone[first]
