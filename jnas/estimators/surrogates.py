"""Surrogates: from the values of a few architectures to those of all others, by features of each.

    gaussian_process     squared exponential kernel  s^2 exp(-|x - x'|^2 / (2 l^2 F)) + n^2 [x = x']  on standardised
                         features; l, s and n maximise the marginal likelihood (Rasmussen and Williams, 2006)
    random_forest        300 trees; the deviation is that of the trees' predictions
    gradient_boosting    scikit-learn's histogram trees; the deviation is that of ten models on bootstrap samples
    ridge                linear, its penalty by the marginal likelihood

Features that do not vary among the labelled are left out. Values become normal scores first
(`jnas.estimators.predictor.normal_scores`), which an outlier does not move and whose order is that of the values: a
prediction is a normal score among the labelled, with a standard deviation in the same unit. A prior, such as a
combination of training-free scores (`jnas.proxies.combination.log_rank_sum`), becomes a normal score of the population;
a surrogate then learns what the labels add to it.

White et al., "How Powerful are Performance Predictors in Neural Architecture Search?", NeurIPS 2021,
https://arxiv.org/abs/2104.01177. On `jnas.spaces.graph_features` as Kadlecova et al., ICML 2024,
https://arxiv.org/abs/2404.16551.
"""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import BayesianRidge

from jnas.errors import InputError, unknown_name
from jnas.estimators.predictor import FEWEST_TRAINED, normal_scores

Surrogate = Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
TREES = 300
BOOTSTRAPS = 10
# A deviation below it is taken for it: models that agree on every row are not certain.
FLOOR = 1e-3
# Of the logarithms of length, scale and noise: features have unit variance and explain most.
START = np.log([1.0, 1.0, 0.3])
# So many labels determine the three numbers; all take part in the posterior.
MOST_TO_FIT = 256
# Keeps the factorisation of equal rows positive in float64.
JITTER = 1e-8


def predict(
    name: str,
    features: np.ndarray,
    labelled: np.ndarray,
    values: np.ndarray,
    seed: int = 0,
    prior: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation float64[B] of the normal score of every architecture, by the surrogate `name`.

    features: float[B, F] of the population. labelled: int[T], positions of those with values float[T].
    prior: float[B], higher for better architectures.

    Raises `InputError` for an unknown name, fewer than four values, and values or features that are not finite.
    """
    if name not in SURROGATES:
        raise unknown_name("surrogate", name, SURROGATES)
    features, labelled, values = np.asarray(features, np.float64), np.asarray(labelled), np.asarray(values)
    if len(labelled) < FEWEST_TRAINED or labelled.shape != values.shape:
        raise InputError(
            f"{len(labelled)} labelled architectures with {len(values)} values: give at least {FEWEST_TRAINED}, one "
            "value each"
        )
    if not np.isfinite(values).all() or not np.isfinite(features).all():
        raise InputError("a value or a feature is not finite: leave that architecture out")
    own = features[labelled]
    varies = own.std(axis=0) > 0
    if not varies.any():
        raise InputError("no feature tells the labelled architectures apart: label others")
    scaled = (features[:, varies] - own[:, varies].mean(0)) / own[:, varies].std(0)
    base = np.zeros(len(features)) if prior is None else normal_scores(prior)
    mean, deviation = SURROGATES[name](scaled, labelled, normal_scores(values) - base[labelled], seed)
    return base + mean, np.maximum(deviation, FLOOR)


def gaussian_process(
    features: np.ndarray, labelled: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and deviation, of a new observation."""
    observed = features[labelled]
    own = _squared_distances(observed, observed)
    offset = targets.mean()
    residual = targets - offset

    def covariance(logarithms: np.ndarray, count: int) -> np.ndarray:
        length, scale, noise = np.exp(logarithms)
        within = own[:count, :count]
        return scale**2 * np.exp(-within / (2 * length**2)) + (noise**2 + JITTER) * np.eye(count)

    def loss(logarithms: np.ndarray) -> float:
        part = residual[:MOST_TO_FIT]
        factor = cho_factor(covariance(logarithms, len(part)), lower=True)
        # A weak prior keeps the three away from 0 and infinity where labels are few.
        belief = np.sum((logarithms - START) ** 2) / 4
        return float(0.5 * part @ cho_solve(factor, part) + np.log(np.diag(factor[0])).sum() + belief)

    chosen = minimize(loss, START, method="Nelder-Mead").x
    factor = cho_factor(covariance(chosen, len(targets)), lower=True)
    length, scale, noise = np.exp(chosen)
    cross = scale**2 * np.exp(-_squared_distances(features, observed) / (2 * length**2))
    explained = np.einsum("bt,tb->b", cross, cho_solve(factor, cross.T))
    deviation = np.sqrt(np.maximum(scale**2 - explained, 0) + noise**2)
    return offset + cross @ cho_solve(factor, residual), deviation


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|x - x'|^2 / F between the rows of two arrays."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0) / a.shape[1]


def random_forest(
    features: np.ndarray, labelled: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the trees."""
    model = RandomForestRegressor(TREES, random_state=seed).fit(features[labelled], targets)
    each = np.stack([tree.predict(features) for tree in model.estimators_])
    return each.mean(0), each.std(0)


def gradient_boosting(
    features: np.ndarray, labelled: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of models on bootstrap samples."""
    generator, each = np.random.default_rng(seed), []
    for _ in range(BOOTSTRAPS):
        rows = generator.integers(0, len(targets), len(targets))
        # Leaves of scikit-learn's default size would not split a few labels.
        model = HistGradientBoostingRegressor(
            min_samples_leaf=min(20, max(1, len(targets) // 10)), random_state=seed
        )
        each.append(model.fit(features[labelled][rows], targets[rows]).predict(features))
    return np.mean(each, axis=0), np.std(each, axis=0)


def ridge(
    features: np.ndarray, labelled: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bayesian linear regression: weights of one variance, by scikit-learn's evidence maximisation."""
    model = BayesianRidge().fit(features[labelled], targets)
    mean, deviation = model.predict(features, return_std=True)
    return mean, deviation


SURROGATES: dict[str, Surrogate] = {
    "gaussian_process": gaussian_process,
    "random_forest": random_forest,
    "gradient_boosting": gradient_boosting,
    "ridge": ridge,
}
