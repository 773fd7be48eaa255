"""Many searches by one strategy on a table: under jit some at a time, or else one after another by the loop.

Letters: R searches, T evaluations of each.
"""

import time
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from jnas.run import loop
from jnas.run.progress import Advance
from jnas.spaces import Space
from jnas.types import Candidates, Estimator, Strategy, Values

# Searches in one call of a compiled program: enough to fill it, and few enough that the time left is soon known.
AT_ONCE = 50


class Searches(NamedTuple):
    """Searches by one strategy.

    numbers: int[R, T], the architectures in their order by `Space.index`, -1 behind the end of a search that ended.
    told: float[R, T], the first objective as it was told, -inf behind the end.
    compiling, running: seconds; where searches run one after another all are running.
    """

    numbers: np.ndarray
    told: np.ndarray
    compiling: float
    running: float


def searches(
    space: Space, strategy: Strategy, estimator: Estimator, keys: Array, evaluations: int, advance: Advance
) -> Searches:
    """One search for each of keys [R], each the one that `jnas.run.loop.run` does with that key."""
    way = _at_once if strategy.jittable else _one_by_one
    return way(space, strategy, estimator, keys, evaluations, advance)


def _at_once(
    space: Space, strategy: Strategy, estimator: Estimator, keys: Array, evaluations: int, advance: Advance
) -> Searches:
    start = time.perf_counter()
    asked = jax.eval_shape(lambda key: strategy.ask(key, strategy.init(key))[0], keys[0]).architectures
    rounds = -(-evaluations // asked.shape[0])
    many = min(AT_ONCE, len(keys))
    program = loop.simulate.lower(
        keys[:many], strategy=strategy, estimator=estimator, rounds=rounds
    ).compile()
    compiled = time.perf_counter()
    numbers, told = [], []
    for first in range(0, len(keys), many):
        # The last part is filled up with searches that were done, as the program takes so many.
        rows, values = jax.device_get(program(keys[min(first, len(keys) - many) :][:many]))
        new = min(many, len(keys) - first)
        numbers.append(np.asarray(space.index(rows))[-new:, :evaluations])
        told.append(values[-new:, :evaluations, 0])
        advance(new)
    done = time.perf_counter()
    return Searches(np.concatenate(numbers), np.concatenate(told), compiled - start, done - compiled)


def _one_by_one(
    space: Space, strategy: Strategy, estimator: Estimator, keys: Array, evaluations: int, advance: Advance
) -> Searches:
    start = time.perf_counter()
    numbers = np.full((len(keys), evaluations), -1)
    told = np.full((len(keys), evaluations), -np.inf)
    for row, key in enumerate(keys):
        asked, shown = _one(strategy, estimator, key, evaluations)
        numbers[row, : len(asked)] = np.asarray(space.index(asked))
        told[row, : len(shown)] = shown
        advance(1)
    return Searches(numbers, told, 0.0, time.perf_counter() - start)


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


def incumbents(told: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """Worth of the architecture that showed the best after each evaluation so far, the first of equals: float[R, T].

    told: float[R, T], the value of each evaluation; worth: float[R, T], of its architecture.
    """
    improved = np.zeros(told.shape, bool)
    improved[:, 1:] = told[:, 1:] > np.maximum.accumulate(told, axis=1)[:, :-1]
    places = np.maximum.accumulate(np.where(improved, np.arange(told.shape[1]), 0), axis=1)
    return np.take_along_axis(worth, places, axis=1)


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
