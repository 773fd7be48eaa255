"""Estimators made of other estimators: repeats of one, means over repeats, two objectives as one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.types import Candidates, Estimator, Key, Values


def repeated(estimator: Estimator, repeats: int) -> Estimator:
    """The estimator asked `repeats` times, each by a key of its own: objectives `name/0`, `name/1`, ..."""

    def evaluate(key: Key, candidates: Candidates) -> Values:
        parts = [estimator.evaluate(jax.random.fold_in(key, repeat), candidates) for repeat in range(repeats)]
        value, status, cost = zip(*parts, strict=True)
        return Values(np.concatenate(value, axis=1), np.concatenate(status, axis=1), np.sum(cost, axis=0))

    names = tuple(f"{name}/{repeat}" for repeat in range(repeats) for name in estimator.objectives)
    return estimator._replace(objectives=names, evaluate=evaluate, jittable=False)


def mean(estimator: Estimator) -> Estimator:
    """The means over repeats: `ntk/0`, `ntk/1` become `ntk`. One failed repeat fails the mean."""

    def evaluate(key: Key, candidates: Candidates) -> Values:
        value, status, cost = estimator.evaluate(key, candidates)
        columns = _columns(estimator.objectives).values()
        statuses = [np.asarray(status)[:, places] for places in columns]
        # The first failure names the status: argmax finds the first that is not zero, `ok`.
        failures = [np.take_along_axis(each, (each != 0).argmax(1)[:, None], 1)[:, 0] for each in statuses]
        return Values(averaged(value, estimator.objectives), np.stack(failures, axis=1), cost)

    names = tuple(_columns(estimator.objectives))
    return estimator._replace(objectives=names, evaluate=evaluate, jittable=False)


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


def averaged(values: Array | np.ndarray, objectives: tuple[str, ...]) -> np.ndarray:
    """Means over the repeats of each objective: float64[B, R] of columns `objectives` to float64[B, P]."""
    columns = _columns(objectives).values()
    return np.stack([np.asarray(values)[:, places].mean(axis=1) for places in columns], axis=1)


def _columns(objectives: tuple[str, ...]) -> dict[str, list[int]]:
    """The columns of each objective, its repeats."""
    columns: dict[str, list[int]] = {}
    for place, name in enumerate(objectives):
        columns.setdefault(name.partition("/")[0], []).append(place)
    return columns
