"""Several scores as one: sums of ranks over a population of architectures.

A score is put in order first (`oriented`: higher is better, a failure is the worst), then replaced by its rank in
the population, so that units and outliers do not matter:

    rank_sum      = sum_p  r_p            the combination of TE-NAS (Chen et al., 2021,
                                          https://arxiv.org/abs/2102.11535)
    log_rank_sum  = sum_p  log r_p        that of AZ-NAS (Lee and Ham, 2024, https://arxiv.org/abs/2403.19232):
                                          an architecture bad in one proxy is not saved by the others

with r_p in (0, 1], the share of the population that is not better; equal scores share their mean rank. A combined
value has a meaning within its population alone.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import stats as jax_stats
from scipy.stats import rankdata

A = TypeVar("A", np.ndarray, Array)


def oriented(values: np.ndarray, statuses: Sequence[str] | np.ndarray | None, sign: int) -> np.ndarray:
    """Scores float64[B] such that higher is better and a failure is -inf.

    statuses: B texts, or None where every score is good.
    """
    good = np.asarray(values, np.float64) * sign
    failed = ~np.isfinite(good)
    if statuses is not None:
        failed |= np.asarray(statuses) != "ok"
    return np.where(failed, -np.inf, good)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Mean ranks of oriented scores [B] as shares of B, in (0, 1], 1 the best."""
    return rankdata(scores) / len(scores)


def rank_sum(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of ranks of oriented scores [B] by proxy: float64[B], higher is better."""
    return np.sum([ranks(values) for values in scores.values()], axis=0)


def log_rank_sum(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of logarithms of ranks of oriented scores [B] by proxy: float64[B], at most 0, higher is better."""
    return np.sum([np.log(ranks(values)) for values in scores.values()], axis=0)


def fitness(values: A) -> A:
    """One number for each row of oriented values [B, P], higher is better: float[B].

    The value where P is 1, else `log_rank_sum`; -inf where an objective failed. JAX's arrays may be under jit.
    """
    if values.shape[1] == 1:
        return values[:, 0]
    library, rank = (np, rankdata) if isinstance(values, np.ndarray) else (jnp, jax_stats.rankdata)
    total = sum(library.log(rank(column) / len(values)) for column in values.T)
    return library.where(library.isfinite(values).all(axis=1), total, -np.inf)
