"""A list of architectures, evaluated once: draws from a space or a posterior, finalists of another search.

The best has the highest value or, with several objectives, the highest sum of logarithms of ranks in the list.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jnas.proxies.combination import fitness
from jnas.types import Candidates, Info, Key, Strategy, Values

# A sharp distribution draws the same architecture again and again: after so many times as many draws as are asked for,
# the different ones are taken for all.
ROUNDS_OF_DRAWING = 8


class State(NamedTuple):
    """architectures: int32[B, D]; values: float64[B, P], or None before they are told."""

    architectures: np.ndarray
    values: np.ndarray | None


def listed(draw: Callable[[Key], np.ndarray], total: int, name: str = "listed") -> Strategy:
    """Ask once for the architectures int32[B, D], at most `total`, that `draw` makes of a key."""

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
        total=total,
    )


def distinct(sample: Callable[[Key, int], ArrayLike], key: Key, count: int) -> np.ndarray:
    """The first `count` different rows of `sample`, in their order: int32[., D]; fewer where there seem to be fewer."""
    rows: dict[bytes, np.ndarray] = {}
    for part in range(ROUNDS_OF_DRAWING):
        drawn = np.asarray(sample(jax.random.fold_in(key, part), count))
        for row in drawn:
            rows.setdefault(row.tobytes(), row)
        if len(rows) >= count:
            break
    return np.array(list(rows.values())[:count], np.int32).reshape(-1, drawn.shape[1])
