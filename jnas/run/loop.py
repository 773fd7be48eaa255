"""The only search loop: ask, evaluate, tell.

A strategy is deterministic in its key, and values come from a store where they are there. So an interrupted search is
replayed from its store, and goes on where it stopped.

`simulate` runs the same strategies on an estimator under jit: a scan over rounds, a vmap over keys.
"""

from collections.abc import Callable
from functools import partial
from itertools import count

import jax
import numpy as np
from jax import Array

from jnas.types import Candidates, Estimator, Info, Key, Result, Strategy, Values, compiled, fidelities

# Folded into the key of a seed for the strategy. The estimator has the key of the seed itself, as `jnas score` has.
STRATEGY = 10


def strategy_key(key: Key) -> Key:
    """The key of a strategy in a search with this key."""
    return jax.random.fold_in(key, STRATEGY)


def run(
    strategy: Strategy,
    evaluate: Callable[[int, Candidates], Values],
    key: Key,
    *,
    budget: int = 0,
    note: Callable[[int, Info], None] = lambda number, info: None,
) -> Result:
    """Search until the strategy is done, the budget is spent or the space is used up.

    evaluate: (number of the round, candidates) -> values.
    key: of the search; the strategy has `strategy_key` of it.
    budget: evaluations; 0 for no limit. Of the last architectures the first are evaluated, as many as are left. A round
      of gates is evaluated as a whole or not at all.
    note: called with the number of each round and what the strategy says of it.
    """
    strategy = compiled(strategy)
    key = strategy_key(key)
    state = strategy.init(jax.random.fold_in(key, 0))
    evaluations = 0
    for number in count():
        left = budget - evaluations if budget else None
        if strategy.done(state) or left == 0:
            break
        candidates, state = strategy.ask(jax.random.fold_in(key, 1 + number), state)
        if candidates.gates is None:
            candidates = Candidates(*(None if rows is None else rows[:left] for rows in candidates))
        asked = size(candidates)
        if not asked or (left is not None and asked > left):
            break
        state, info = strategy.tell(state, candidates, evaluate(number, candidates))
        note(number, info)
        evaluations += asked
    return Result(np.asarray(strategy.best(state), np.int32), state, number, evaluations)


def size(candidates: Candidates) -> int:
    """B."""
    rows = candidates.gates if candidates.architectures is None else candidates.architectures
    return 0 if rows is None else len(rows)


def round_key(key: Key, number: int, candidates: Candidates) -> Key:
    """The key of an evaluation: of the search for architectures, one of its own for each round of gates.

    So an architecture has one value in a search, the one that `jnas score` gives it with the same seed. A pruned
    supernet is scored with fresh weights and images in each round, as TE-NAS does.
    """
    return key if candidates.gates is None else jax.random.fold_in(key, 1000 + number)


@partial(jax.jit, static_argnames=("strategy", "estimator", "rounds"))
def simulate(
    keys: Array, *, strategy: Strategy, estimator: Estimator, rounds: int
) -> tuple[Array, Array, Array]:
    """Search once for each of keys [R], all at once: architectures int32[R, T, D], values float32[R, T, P] and
    fidelities float32[R, T] in order.

    T is `rounds` times the candidates that the strategy asks for at a time. A search is the one of `run` with that key.
    """

    def search(key: Array) -> tuple[Array, Array, Array]:
        own = strategy_key(key)

        def step(state, number):
            candidates, state = strategy.ask(jax.random.fold_in(own, 1 + number), state)
            values = estimator.evaluate(key, candidates)
            state, _ = strategy.tell(state, candidates, values)
            return state, (candidates.architectures, values.value, fidelities(candidates))

        start = strategy.init(jax.random.fold_in(own, 0))
        _, (asked, told, share) = jax.lax.scan(step, start, jax.numpy.arange(rounds))
        return asked.reshape(-1, asked.shape[-1]), told.reshape(-1, told.shape[-1]), share.reshape(-1)

    return jax.vmap(search)(keys)
