"""A list of architectures, evaluated once: finalists of another search, draws from a posterior, a user's own.

The best has the highest value or, with several objectives, the highest sum of logarithms of ranks in the list.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jnas.proxies.combination import fitness
from jnas.types import Candidates, Info, Key, Strategy, Values


class State(NamedTuple):
    """architectures: int32[B, D]; values: float64[B, P], or None before they are told."""

    architectures: np.ndarray
    values: np.ndarray | None


def listed(draw: Callable[[Key], np.ndarray], name: str = "listed") -> Strategy:
    """Ask once for the architectures int32[B, D] that `draw` makes of a key."""

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        return State(np.asarray(candidates.architectures), np.asarray(values.value)), {}

    def best(state: State) -> np.ndarray:
        if state.values is None:
            return state.architectures[0]
        return state.architectures[int(np.argmax(fitness(state.values)))]

    return Strategy(
        name=name,
        init=lambda key: State(draw(key), None),
        ask=lambda key, state: (Candidates(state.architectures), state),
        tell=tell,
        done=lambda state: state.values is not None,
        best=best,
    )
