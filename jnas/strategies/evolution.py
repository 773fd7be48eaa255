"""Evolution on a combination of scores: mutate the best of all evaluations.

    ask:  the first time `children` random architectures, then `children` mutants of the `parents` best in the archive
    tell: the archive grows; its order is that of `combination.fitness` over the whole archive

Truncation selection from an archive that forgets nothing (Bäck, Hoffmeister and Schwefel, "A Survey of Evolution
Strategies", 1991: (mu + lambda)), with the combined rank of training-free scores as the fitness, as AZ-NAS searches
(Lee and Ham, CVPR 2024, https://arxiv.org/abs/2403.19232). Aging (`jnas.strategies.aging`) guards against lucky noise
in trained accuracies; a score has one value for ever, so nothing has to age. A combined rank depends on its population:
it is taken anew at every generation.

Equivalent architectures count as one (`Space.canonical`); none is asked for twice.
"""

from typing import NamedTuple

import jax
import numpy as np

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies.settings.evolution import Evolution
from jnas.types import Candidates, Info, Key, Strategy, Values

# Mutants that are in the archive are drawn again; a neighbourhood that is nearly used up ends in random ones.
ATTEMPTS = 20


class State(NamedTuple):
    """architectures: int32[n, D], canonical, in the order told; values: float64[n, P], oriented."""

    architectures: np.ndarray
    values: np.ndarray


def evolution(space: Space, settings: Evolution, objectives: int = 1) -> Strategy:
    """Generations of `children`, mutants of the `parents` best."""
    children, parents = settings.children, settings.parents

    def ask(key: Key, state: State) -> tuple[Candidates, State]:
        archived = {tuple(row) for row in state.architectures.tolist()}
        # The best first, of equals the one told first; failures are no parents.
        worth = fitness(state.values)
        order = np.argsort(-worth, kind="stable")
        pool = state.architectures[order[np.isfinite(worth[order])][:parents]]
        # Draw until there are enough that are new.
        fresh: dict[tuple[int, ...], None] = {}
        for attempt in range(2 * ATTEMPTS):
            draw = jax.random.fold_in(key, attempt)
            if not len(pool) or attempt >= ATTEMPTS:
                drawn = space.sample(draw, children)
            else:
                parent_key, mutation_key = jax.random.split(draw)
                chosen = jax.random.randint(parent_key, (children,), 0, len(pool))
                drawn = space.mutate(mutation_key, pool[np.asarray(chosen)])
            for row in np.asarray(space.canonical(drawn)).tolist():
                if tuple(row) not in archived:
                    fresh.setdefault(tuple(row))
            if len(fresh) >= children:
                break
        rows = np.array(list(fresh)[:children], np.int32).reshape(-1, len(space.decisions))
        return Candidates(rows), state

    def tell(state: State, candidates: Candidates, values: Values) -> tuple[State, Info]:
        after = State(
            np.concatenate([state.architectures, np.asarray(candidates.architectures, np.int32)]),
            np.concatenate([state.values, np.asarray(values.value, np.float64)]),
        )
        return after, {"evaluated": len(after.architectures), "best": best(after).tolist()}

    def best(state: State) -> np.ndarray:
        return state.architectures[np.argmax(fitness(state.values))]

    nothing = State(np.zeros((0, len(space.decisions)), np.int32), np.zeros((0, objectives)))
    return Strategy(
        name="evolution", init=lambda key: nothing, ask=ask, tell=tell, done=lambda state: False, best=best
    )
