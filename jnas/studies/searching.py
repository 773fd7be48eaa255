"""Many searches by one strategy on a table: under jit some at a time, or else one after another by the loop.

Letters: R searches, T evaluations of each.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax import Array

from jnas.report.evaluations import incumbents as leading
from jnas.run import loop
from jnas.run.progress import Advance, ignored
from jnas.spaces import Space
from jnas.types import Candidates, Estimator, Strategy, Values

# Searches in one call of a compiled program: enough to fill it, and few enough that the time left is soon known.
AT_ONCE = 50

# Fidelities float[R, T] -> trainings in full that were used so far: float64[R, T].
Used: TypeAlias = Callable[[np.ndarray], np.ndarray]


class Searches(NamedTuple):
    """Searches by one strategy.

    numbers: int[R, T], the architectures in their order by `Space.index`, -1 behind the end of a search that ended.
    told: float[R, T], the first objective as it was told, -inf behind the end.
    share: float[R, T], fidelities, 1 for a training in full; used: float64[R, T], the trainings that they amount to.
    compiling, running: seconds; where searches run one after another all are running.
    """

    numbers: np.ndarray
    told: np.ndarray
    share: np.ndarray
    used: np.ndarray
    compiling: float
    running: float


def in_full(share: np.ndarray) -> np.ndarray:
    """Used trainings where each is one in full."""
    return np.broadcast_to(np.arange(1.0, 1 + share.shape[1]), share.shape)


def searches(
    space: Space,
    make: Callable[[int], Strategy],
    estimator: Estimator,
    keys: Array,
    evaluations: int,
    advance: Advance = ignored,
    used: Used = in_full,
) -> Searches:
    """One search for each of keys [R], each the one that `jnas.run.loop.run` does with that key.

    make: number of trainings -> strategy. A search lasts so long that the used trainings reach `evaluations`: T.
    """
    strategy, trainings, counted = make(evaluations), evaluations, 0
    if not strategy.jittable:
        return _one_by_one(space, strategy, estimator, keys, evaluations, advance, used)

    def count(done: int) -> None:
        # Searches that were too short run again, and are not counted twice.
        nonlocal counted
        advance(max(0, done - counted))
        counted = max(counted, done)

    while True:
        found = _at_once(space, strategy, estimator, keys, trainings, evaluations, count, used)
        if (least := found.used[:, -1].min()) >= evaluations:
            return found
        # So many more, and some to spare, as not every search has as many short ones.
        trainings = int(np.ceil(1.1 * trainings * evaluations / least))
        strategy = make(trainings)


def _at_once(
    space: Space,
    strategy: Strategy,
    estimator: Estimator,
    keys: Array,
    trainings: int,
    evaluations: int,
    count: Callable[[int], None],
    used: Used,
) -> Searches:
    """Searches of so many trainings; those of the first part alone, where they are too short."""
    start = time.perf_counter()
    asked = jax.eval_shape(lambda key: strategy.ask(key, strategy.init(key))[0], keys[0]).architectures
    rounds = -(-trainings // asked.shape[0])
    many = min(AT_ONCE, len(keys))
    program = loop.simulate.lower(
        keys[:many], strategy=strategy, estimator=estimator, rounds=rounds
    ).compile()
    compiled = time.perf_counter()
    parts: list[tuple[np.ndarray, ...]] = []
    for first in range(0, len(keys), many):
        # The last part is filled up with searches that were done, as the program takes so many.
        rows, values, share = jax.device_get(program(keys[min(first, len(keys) - many) :][:many]))
        new = min(many, len(keys) - first)
        whole = np.asarray(space.index(rows)), values[..., 0], share, used(share)
        parts.append(tuple(each[-new:, :trainings] for each in whole))
        if parts[-1][-1][:, -1].min() < evaluations:
            break
        count(first + new)
    done = time.perf_counter()
    numbers, told, shares, sums = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Searches(numbers, told, shares, sums, compiled - start, done - compiled)


def _one_by_one(
    space: Space,
    strategy: Strategy,
    estimator: Estimator,
    keys: Array,
    evaluations: int,
    advance: Advance,
    used: Used,
) -> Searches:
    start = time.perf_counter()
    numbers = np.full((len(keys), evaluations), -1)
    told = np.full((len(keys), evaluations), -np.inf)
    for row, key in enumerate(keys):
        asked, shown = _one(strategy, estimator, key, evaluations)
        numbers[row, : len(asked)] = np.asarray(space.index(asked))
        told[row, : len(shown)] = shown
        advance(1)
    # All of these ask for trainings in full.
    share = np.ones(told.shape)
    return Searches(numbers, told, share, used(share), 0.0, time.perf_counter() - start)


def _one(
    strategy: Strategy, estimator: Estimator, key: Array, evaluations: int
) -> tuple[np.ndarray, np.ndarray]:
    """One search by the loop: (architectures int32[n, D] in their order; their first objectives float[n])."""
    asked: list[np.ndarray] = []
    shown: list[np.ndarray] = []

    def evaluate(number: int, candidates: Candidates) -> Values:
        values = estimator.evaluate(key, candidates)
        asked.append(np.asarray(candidates.architectures))
        shown.append(np.asarray(values.value)[:, 0])
        return values

    loop.run(strategy, evaluate, key, budget=evaluations)
    return np.concatenate(asked), np.concatenate(shown)


def incumbents(told: np.ndarray, worth: np.ndarray, fidelity: np.ndarray) -> np.ndarray:
    """Worth of the architecture with the best of the longest trainings so far, the first of equals: float[R, T].

    told: float[R, T], the value of each evaluation; worth: float[R, T], of its architecture; fidelity: float[R, T].
    """
    return np.take_along_axis(worth, leading(told, fidelity), axis=1)


def at_evaluations(values: np.ndarray, used: np.ndarray, evaluations: int) -> np.ndarray:
    """values [R, T] where 1, 2, ... trainings were used at most, float[R, T]: [R, evaluations]."""
    limits = np.arange(1, evaluations + 1)
    last = np.stack([np.searchsorted(row, limits, side="right") - 1 for row in used])
    return np.take_along_axis(values, last, axis=1)


def distinct(classes: np.ndarray) -> np.ndarray:
    """Different classes met after each evaluation: int[R, T], -1 for none, -> int[R, T]."""
    new = np.zeros(classes.shape, bool)
    for row, own in zip(new, classes, strict=True):
        row[np.unique(own, return_index=True)[1]] = True
    return np.cumsum(new & (classes >= 0), axis=1)


def by_distinct(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Values float[R, T] when d different architectures were met: float[R, D], d = 1 ... D.

    D is the median over searches; a search that ends with fewer keeps its last value.
    """
    most = int(np.median(counts[:, -1]))
    places = [np.searchsorted(row, np.arange(1, most + 1), side="right") - 1 for row in counts]
    return np.take_along_axis(values, np.stack(places), axis=1)
