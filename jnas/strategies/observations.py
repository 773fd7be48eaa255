"""Observations of a strategy that runs on the host: what was told, and which architectures were not yet.

Equivalent architectures count as one (`Space.canonical`).

Letters: B, N architectures, D decisions, P objectives.
"""

from typing import NamedTuple

import jax
import numpy as np

from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.types import Candidates, Key, Values

# Random draws are repeated so often before a space counts as used up.
ATTEMPTS = 20
DRAWS = 64


class Observations(NamedTuple):
    """architectures: int32[n, D] in the order told; values: float64[n, P], -inf for a failure."""

    architectures: np.ndarray
    values: np.ndarray


def nothing(space: Space, objectives: int) -> Observations:
    """No observations."""
    return Observations(np.zeros((0, len(space.decisions)), np.int32), np.zeros((0, objectives)))


def add(state: Observations, candidates: Candidates, values: Values) -> Observations:
    """The observations with B more."""
    given = np.asarray(values.value, np.float64)
    good = np.isfinite(given).all(axis=1, keepdims=True)
    return Observations(
        np.concatenate([state.architectures, np.asarray(candidates.architectures, np.int32)]),
        np.concatenate([state.values, np.where(good, given, -np.inf)]),
    )


def best(state: Observations) -> np.ndarray:
    """The architecture with the highest fitness, of equals the one told first: int32[D]."""
    return state.architectures[int(np.argmax(fitness(state.values)))]


def standardised(state: Observations) -> np.ndarray:
    """Fitness with mean 0 and deviation 1 over what did not fail, float64[n]; a failure has the worst finite value.

    Raises `ValueError` where all failed.
    """
    worth = fitness(state.values)
    good = worth[np.isfinite(worth)]
    return (np.maximum(worth, good.min()) - good.mean()) / (good.std() or 1.0)


def codes(space: Space, architectures: np.ndarray) -> list[tuple[int, ...]]:
    """Representatives of the classes of int32[N, D], to be members of a set."""
    # A canonical form of no architectures is asked of no space.
    rows = np.asarray(space.canonical(lengthened(architectures))) if len(architectures) else architectures
    return [tuple(row) for row in rows[: len(architectures)].tolist()]


def lengthened(architectures: np.ndarray) -> np.ndarray:
    """int32[N, D] with the last row repeated up to a power of two: functions compile for few N, not for each one."""
    more = (1 << (len(architectures) - 1).bit_length()) - len(architectures)
    return np.concatenate([architectures, np.repeat(architectures[-1:], more, axis=0)])


def distinct_new(
    space: Space, state: Observations, proposals: np.ndarray, count: int, key: Key
) -> np.ndarray:
    """The first `count` proposals int32[N, D] that are new, each class once; random new ones fill up: int32[B, D].

    Fewer than `count` where the space seems to be used up.
    """
    seen = set(codes(space, state.architectures))
    taken: list[np.ndarray] = []
    for attempt in range(1 + ATTEMPTS):
        proposals = np.asarray(proposals, np.int32)
        # Nothing is asked of a space about no proposals.
        good = np.zeros(0, bool)
        if len(proposals):
            good = np.asarray(space.contains(lengthened(proposals)))[: len(proposals)]
        for row, code, member in zip(proposals, codes(space, proposals), good, strict=True):
            if len(taken) < count and member and code not in seen:
                seen.add(code)
                taken.append(row)
        if len(taken) == count:
            break
        proposals = np.asarray(space.sample(jax.random.fold_in(key, attempt), max(DRAWS, 2 * count)))
    return np.array(taken, np.int32).reshape(-1, len(space.decisions))
