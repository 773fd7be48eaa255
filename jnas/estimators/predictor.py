"""A learned combination of training-free scores: from a few trained cells to all others, with uncertainty.

Every score becomes a normal score x_p over the population (the normal quantile of its rank, so that units and
outliers do not matter), and so do the accuracies t of the trained cells among themselves. Then

    t = c + b(x) + w^T x + e,      w ~ N(0, s^2 I),   e ~ N(0, r^2),

where b is the normal score of the training-free combination (`jnas.proxies.combination.log_rank_sum`). Without any
trained cell the prediction is that combination. s and r maximise the marginal likelihood under a weak prior.

Bayesian linear regression (MacKay, "Bayesian Interpolation", 1992,
https://doi.org/10.1162/neco.1992.4.3.415) on zero-cost proxies, as in White et al., "How Powerful are Performance
Predictors in Neural Architecture Search?", NeurIPS 2021, https://arxiv.org/abs/2104.01177, who feed proxies to
predictors without such a prior.

A prediction is a normal score among the trained cells, with a standard deviation in the same unit.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm, rankdata

from jnas.errors import InputError
from jnas.proxies.combination import log_rank_sum

# Fewer trained cells do not determine c, s and r.
FEWEST_TRAINED = 4


class Prediction(NamedTuple):
    """mean, deviation: float64[B], of the normal score of each architecture; weights: by proxy."""

    mean: np.ndarray
    deviation: np.ndarray
    weights: dict[str, float]


def predict(scores: Mapping[str, np.ndarray], trained: np.ndarray, accuracies: np.ndarray) -> Prediction:
    """Predict all architectures of a population from the accuracies of a few.

    Args:
      scores: oriented scores [B] by proxy (`jnas.proxies.combination.oriented`).
      trained: int[T], positions of the trained architectures.
      accuracies: float[T], theirs.

    Raises `InputError` for fewer than four trained architectures or accuracies that are not finite.
    """
    trained, accuracies = np.asarray(trained), np.asarray(accuracies, np.float64)
    if len(trained) < FEWEST_TRAINED or trained.shape != accuracies.shape:
        raise InputError(
            f"{len(trained)} trained architectures with {len(accuracies)} accuracies: give at least "
            f"{FEWEST_TRAINED}, one accuracy each"
        )
    if not np.isfinite(accuracies).all():
        raise InputError("an accuracy of a trained architecture is not finite: leave that architecture out")
    features = np.stack([normal_scores(values) for values in scores.values()], axis=1)
    base = normal_scores(log_rank_sum(scores))
    residual = normal_scores(accuracies) - base[trained]

    # s and r maximise the marginal likelihood of the residual under the features of the trained architectures.
    centred = features[trained] - features[trained].mean(axis=0)
    target, gram = residual - residual.mean(), centred @ centred.T

    def loss(logarithms: np.ndarray) -> float:
        prior, noise = np.exp(2 * logarithms)
        covariance = prior * gram + noise * np.eye(len(target))
        _, determinant = np.linalg.slogdet(covariance)
        # A weak prior, as both scales are about 0.1 to 1 in this unit: it matters where few cells are trained and keeps
        # the scales away from 0 and infinity.
        belief = np.sum((logarithms - np.log([0.1, 0.5])) ** 2)
        return 0.5 * (determinant + target @ np.linalg.solve(covariance, target) + belief)

    prior, noise = np.exp(minimize(loss, np.log([0.1, 0.5]), method="Nelder-Mead").x).tolist()

    # The posterior of the weights, and of c, which has a flat prior: a variance that no normal score reaches.
    design = np.concatenate([np.full((len(features), 1), 10.0), prior * features], axis=1)
    observed = design[trained]
    precision = np.eye(design.shape[1]) + observed.T @ observed / noise**2
    covariance = np.linalg.inv(precision)
    weights = covariance @ observed.T @ residual / noise**2
    mean = base + design @ weights
    deviation = np.sqrt(np.einsum("bi,ij,bj->b", design, covariance, design) + noise**2)
    return Prediction(mean, deviation, dict(zip(scores, prior * weights[1:], strict=True)))


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Normal quantiles of mean ranks: float64[B], standard normal where no two values are equal."""
    return norm.ppf((rankdata(values) - 0.5) / len(values))
