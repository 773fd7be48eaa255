"""Estimators made of other estimators: repeats, means over them, new tries, two objectives as one.

Whatever concerns the value of an architecture, and not which one is asked for, is here and not in
`jnas.strategies.wraps`. A search has one key, so an architecture has one value in it: repeats have keys of their own.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.types import STATUSES, Candidates, Estimator, Key, Values

OK = STATUSES.index("ok")


def repeated(estimator: Estimator, repeats: int) -> Estimator:
    """The estimator asked `repeats` times, each by a key of its own: objectives `name/0`, `name/1`, ..."""

    def evaluate(key: Key, candidates: Candidates) -> Values:
        parts = [estimator.evaluate(jax.random.fold_in(key, repeat), candidates) for repeat in range(repeats)]
        value, status, cost = zip(*parts, strict=True)
        library = _library(value[0])
        return Values(
            library.concatenate(value, axis=1),
            library.concatenate(status, axis=1),
            library.stack(cost).sum(0),
        )

    names = tuple(f"{name}/{repeat}" for repeat in range(repeats) for name in estimator.objectives)
    return estimator._replace(objectives=names, evaluate=evaluate)


def mean(estimator: Estimator) -> Estimator:
    """The means over repeats: `ntk/0`, `ntk/1` become `ntk`. One failed repeat fails the mean."""

    def evaluate(key: Key, candidates: Candidates) -> Values:
        value, status, cost = estimator.evaluate(key, candidates)
        library = _library(value)
        statuses = [status[:, np.array(places)] for places in _columns(estimator.objectives).values()]
        # The first failure names the status: argmax finds the first that is not zero, `ok`.
        failures = [
            library.take_along_axis(each, (each != OK).argmax(1)[:, None], 1)[:, 0] for each in statuses
        ]
        return Values(averaged(value, estimator.objectives), library.stack(failures, axis=1), cost)

    names = tuple(_columns(estimator.objectives))
    return estimator._replace(objectives=names, evaluate=evaluate)


def retried(estimator: Estimator, tries: int) -> Estimator:
    """The estimator that evaluates failures again, by a key of its own each time, `tries` times in all; costs add up.

    An architecture fails by one objective. Only failures are evaluated again, so this runs on the host.
    """

    def evaluate(key: Key, candidates: Candidates) -> Values:
        value, status, cost = map(np.array, estimator.evaluate(key, candidates))
        for attempt in range(1, tries):
            failed = np.flatnonzero((status != OK).any(axis=1))
            if not len(failed):
                break
            rows = Candidates(*(None if each is None else np.asarray(each)[failed] for each in candidates))
            again = estimator.evaluate(jax.random.fold_in(key, attempt), rows)
            value[failed], status[failed] = again.value, again.status
            cost[failed] += again.cost
        return Values(value, status, cost)

    return estimator._replace(evaluate=evaluate, jittable=False)


def feasible_first(estimator: Estimator, limit: float, worst: float = 0.0) -> Estimator:
    """The first objective where the cost is at most `limit`; elsewhere below `worst`, the more the cost is beyond.

        f(a) = v(a)                        where c(a) <= limit
        f(a) = worst - (c(a) - limit)      elsewhere

    So a feasible architecture is better than any other, and the others are in the order of their violation. The second
    objective is told as minus the cost. worst: a value that no architecture is below, 0 for accuracies. One failed
    objective fails both. Deb, "An efficient constraint handling method for genetic algorithms", Computer Methods in
    Applied Mechanics and Engineering 2000, https://doi.org/10.1016/S0045-7825(99)00389-8.
    """

    def evaluate(key: Key, candidates: Candidates) -> Values:
        value, status, cost = estimator.evaluate(key, candidates)
        failed = status[:, :2].max(axis=1)
        beyond = jnp.where(failed > OK, 0.0, -jnp.asarray(value)[:, 1] - limit)
        ordered = jnp.where(beyond > 0, worst - beyond, value[:, 0])
        return Values(jnp.where(failed > OK, -jnp.inf, ordered)[:, None], failed[:, None], cost)

    return estimator._replace(objectives=("_".join(estimator.objectives[:2]),), evaluate=evaluate)


def weighted_product(
    estimator: Estimator, target: float, within: float = -0.07, beyond: float = -0.07
) -> Estimator:
    """The first objective times (cost / target)^w: an accuracy and the cost that it takes, as one.

    The second objective is told as minus the cost. w is `within` up to the target and `beyond` past it; 0 and -1 make
    the target a hard one. Tan et al., "MnasNet", CVPR 2019, https://arxiv.org/abs/1807.11626. One failed objective
    fails the product.
    """

    def evaluate(key: Key, candidates: Candidates) -> Values:
        value, status, cost = estimator.evaluate(key, candidates)
        failed = status[:, :2].max(axis=1)
        share = jnp.where(failed > 0, 1.0, -jnp.asarray(value)[:, 1] / target)
        product = value[:, 0] * share ** jnp.where(share <= 1, within, beyond)
        return Values(jnp.where(failed > 0, -jnp.inf, product)[:, None], failed[:, None], cost)

    return estimator._replace(objectives=("_".join(estimator.objectives[:2]),), evaluate=evaluate)


def averaged(values: Array | np.ndarray, objectives: tuple[str, ...]) -> Any:
    """Means over the repeats of each objective: float[B, R] of columns `objectives` to float[B, P]."""
    columns = _columns(objectives).values()
    return _library(values).stack([values[:, np.array(places)].mean(axis=1) for places in columns], axis=1)


def _library(values: Array | np.ndarray) -> Any:
    """NumPy for its own arrays, whose numbers have 64 bits; else JAX's, which may be under jit."""
    return np if isinstance(values, np.ndarray) else jnp


def _columns(objectives: tuple[str, ...]) -> dict[str, list[int]]:
    """The columns of each objective, its repeats."""
    columns: dict[str, list[int]] = {}
    for place, name in enumerate(objectives):
        columns.setdefault(name.partition("/")[0], []).append(place)
    return columns
