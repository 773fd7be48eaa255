"""Evolution on a combination of scores: mutate the best of all that was seen.

    ask:  the first time `children` random architectures, then `children` mutants of the `parents` best in the archive
    tell: the archive grows; its order is that of log_rank_sum over the whole archive

Truncation selection from an archive that forgets nothing (Bäck, Hoffmeister and Schwefel, "A Survey of Evolution
Strategies", 1991: (mu + lambda)), with the combined rank of training-free scores as the fitness, as AZ-NAS searches
(Lee and Ham, CVPR 2024, https://arxiv.org/abs/2403.19232). Aging evolution (Real et al., AAAI 2019,
https://arxiv.org/abs/1802.01548) guards against lucky noise in trained accuracies; here a score has one value for
ever, so nothing has to age. A combined rank depends on its population: it is taken anew at every generation.

Equivalent architectures count as one (`Space.canonical`); none is asked for twice.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from jnas.proxies.combination import log_rank_sum
from jnas.spaces.base import Space

# Mutants that were seen before are drawn again; a neighbourhood that is nearly used up ends in random ones.
ATTEMPTS = 20


class State(NamedTuple):
    """architectures: int32[n, D], canonical, in the order told; scores: float64[n, P], oriented; round: of asks."""

    architectures: np.ndarray
    scores: np.ndarray
    round: int


def init(space: Space, proxies: int) -> State:
    """An empty archive for P proxies."""
    return State(np.zeros((0, len(space.decisions)), np.int32), np.zeros((0, proxies)), 0)


def fitness(state: State) -> np.ndarray:
    """log_rank_sum of the archive: float64[n], higher is better."""
    return log_rank_sum({str(i): column for i, column in enumerate(state.scores.T)})


def best(state: State, count: int) -> np.ndarray:
    """Positions of the `count` best in the archive, the best first; of equals the one told first."""
    return np.argsort(-fitness(state), kind="stable")[:count]


def ask(space: Space, key: Array, state: State, children: int, parents: int) -> np.ndarray:
    """Up to `children` architectures int32[., D] that the archive does not hold; fewer once the space is used up."""
    seen = {tuple(row) for row in state.architectures.tolist()}
    pool = state.architectures[best(state, parents)] if len(seen) else None
    found: dict[tuple[int, ...], None] = {}
    for attempt in range(2 * ATTEMPTS):
        draw = jax.random.fold_in(key, attempt)
        if pool is None or attempt >= ATTEMPTS:
            drawn = space.sample(draw, children)
        else:
            parent_key, mutation_key = jax.random.split(draw)
            chosen = jax.random.randint(parent_key, (children,), 0, len(pool))
            drawn = space.mutate(mutation_key, pool[np.asarray(chosen)])
        for row in np.asarray(space.canonical(drawn)).tolist():
            if tuple(row) not in seen:
                found.setdefault(tuple(row))
        if len(found) >= children:
            break
    return np.array(list(found)[:children], np.int32).reshape(-1, len(space.decisions))


def tell(state: State, architectures: np.ndarray, scores: np.ndarray) -> State:
    """The archive with architectures int32[m, D] and their oriented scores float64[m, P] added."""
    return State(
        np.concatenate([state.architectures, architectures]),
        np.concatenate([state.scores, scores]),
        state.round + 1,
    )
