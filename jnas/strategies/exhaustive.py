"""Exhaustive search: every architecture of the space once, in an order drawn by the key.

It is random search without replacement, and done when the space is covered.

Letters: D decisions, P objectives.
"""

from typing import NamedTuple

import jax
import numpy as np

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies.settings.sampling import Exhaustive
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """order: int32[size, D]; values: float64[n, P], of its first n; asked: how many were asked for."""

    order: np.ndarray
    values: np.ndarray
    asked: int


def exhaustive(space: Space, settings: Exhaustive, objectives: int) -> Strategy:
    """A cursor into a shuffled list of the space. Raises `InputError` where the space is too large to list."""
    rows = space.all()
    rows = rows[np.asarray(space.contains(rows))]

    def init(key: Key) -> State:
        return State(rows[np.asarray(jax.random.permutation(key, len(rows)))], np.zeros((0, objectives)), 0)

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        end = min(state.asked + settings.batch, len(rows))
        return Candidates(state.order[state.asked : end]), state._replace(asked=end)

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        return state._replace(values=np.concatenate([state.values, values.value])), {}

    return Strategy(
        name="exhaustive",
        init=init,
        ask=ask,
        tell=tell,
        done=lambda state: len(state.values) == len(rows),
        best=lambda state: state.order[np.argmax(fitness(state.values))],
        total=len(rows),
    )
