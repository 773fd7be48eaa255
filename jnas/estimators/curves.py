"""Learning curves: what a training will reach, from its first epochs, with uncertainty; whether it is hopeless.

    f(x) = sum_k w_k f_k(x),   w_k ~ U(0, 1),       x the epoch, values in [0, 1]
    f_1  = c - a x^-alpha                           pow3: a ~ U(-.6, .6), c ~ U(0, 1.25), alpha ~ logN(0, 2)
    f_2  = c - a / log(x + 1)                       ilog2: c ~ U(0, 1), a ~ U(-.5, .5)
    f_3  = al - (al - be) exp(-ka x^de)             Janoschek: al ~ U(0, 1), be ~ U(0, 2), ka ~ logN(-2, 1),
                                                    de ~ logN(0, .5)

Curves of this prior that do not rise, leave [0, 1] or are not finite are drawn again. The posterior of the value at the
end weighs each prior curve by its likelihood under normal noise of deviation s, log s ~ N(-4, 1). It is computed by
importance sampling: every training shares the same prior curves. Many epochs single out few prior curves, so at most
`MOST_POINTS` epochs of a curve are read, the last ones more densely, and s is never below `LEAST_NOISE`.

Where trainings have been completed, `summaries` of their first epochs are features that a surrogate learns from
(`jnas.estimators.surrogates`), and with them the schedule of the learning rate, which lifts all curves at its end: no
prior curve knows it. Baker, Gupta, Raskar and Naik, "Accelerating Neural Architecture Search using Performance
Prediction", 2017, https://arxiv.org/abs/1705.10823, give the curve and its differences to a support vector machine.

Prior: Adriaensen, Rakotoarison, Mueller and Hutter, "Efficient Bayesian Learning Curve Extrapolation using Prior-Data
Fitted Networks", NeurIPS 2023, https://arxiv.org/abs/2310.20447, who train a network to give this posterior. Stopping:
Domhan, Springenberg and Hutter, IJCAI 2015, https://www.ijcai.org/Proceedings/15/Papers/487.pdf.

Departure: alpha = logN(0, 2) is of deviation 2, as they write it; MCMC and the network are left out.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from jnas.errors import InputError

CURVES = 20_000
MOST_POINTS = 12
# Validation accuracy at a high learning rate jumps by about as much from epoch to epoch.
LEAST_NOISE = 0.02
SHORTEST = 4
# Domhan et al. stop where the best value is beaten with less probability than this.
HOPELESS = 0.05


class Forecast(NamedTuple):
    """Ends of trainings: mean, deviation, and the probability of more than the best; float64[B] each."""

    mean: np.ndarray
    deviation: np.ndarray
    better: np.ndarray


def forecast(curves: np.ndarray, epochs: int, best: float = 1.0, seed: int = 0) -> Forecast:
    """The posterior of the values after `epochs` epochs of trainings with values float[B, n], n < epochs, in [0, 1].

    best: the value to beat. A curve that holds NaN has mean 0, deviation 0 and no chance: that training has failed.
    Raises `InputError` for curves that are longer than the training, and for values outside [0, 1].
    """
    curves = np.atleast_2d(np.asarray(curves, np.float64))
    length = curves.shape[1]
    if not 0 < length < epochs:
        raise InputError(
            f"curves of {length} epochs: give some, and fewer than the {epochs} of the whole training"
        )
    failed = np.isnan(curves).any(axis=1)
    if ((curves < 0) | (curves > 1)).any():
        raise InputError("values of curves are shares from 0 to 1: divide per cents by 100")

    # Early epochs thin out, the last stays.
    places = np.unique(np.round(np.geomspace(1, length, min(length, MOST_POINTS))).astype(int)) - 1
    paths, noise = _prior(epochs, seed)
    observed, drawn = np.nan_to_num(curves)[:, places], paths[:, places]
    distances = (observed**2).sum(1)[:, None] + (drawn**2).sum(1) - 2 * observed @ drawn.T
    logarithms = -distances / (2 * noise**2) - len(places) * np.log(noise)
    weights = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)

    ends = paths[:, -1]
    mean = weights @ ends
    deviation = np.sqrt(np.maximum(weights @ ends**2 - mean**2, 0))
    better = weights @ (ends > best)
    return Forecast(*(np.where(failed, 0.0, part) for part in (mean, deviation, better)))


def summaries(curves: np.ndarray) -> np.ndarray:
    """Features float64[B, 8] of curves float[B, n], n at least 4, whatever n is.

    First, last and largest value, mean, deviation, mean of the last quarter, mean step of the last half, and that less
    the mean step of the first half. Raises `InputError` for shorter curves.
    """
    curves = np.asarray(curves, np.float64)
    if curves.shape[1] < SHORTEST:
        raise InputError(
            f"curves of {curves.shape[1]} epochs: summaries need {SHORTEST}, for the steps of each half"
        )
    steps, half = np.diff(curves, axis=1), (curves.shape[1] - 1) // 2
    late, early = steps[:, half:].mean(1), steps[:, :half].mean(1)
    quarter = curves[:, -max(1, curves.shape[1] // 4) :].mean(1)
    columns = (
        curves[:, 0], curves[:, -1], curves.max(1), curves.mean(1), curves.std(1), quarter, late, late - early,
    )  # fmt: skip
    return np.stack(columns, axis=1)


@lru_cache(maxsize=4)
def _prior(epochs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Curves of the prior float64[`CURVES`, epochs], and the deviation of the noise on each."""
    generator = np.random.default_rng(seed)
    x, count = np.arange(1, epochs + 1.0), 2 * CURVES
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < CURVES:

        def uniform(low: float, high: float) -> np.ndarray:
            return generator.uniform(low, high, (count, 1))

        def lognormal(mean: float, deviation: float) -> np.ndarray:
            return generator.lognormal(mean, deviation, (count, 1))

        pow3 = uniform(0, 1.25) - uniform(-0.6, 0.6) * x ** -lognormal(0, 2)
        ilog2 = uniform(0, 1) - uniform(-0.5, 0.5) / np.log(x + 1)
        top, rate, shape = uniform(0, 1), lognormal(-2, 1), lognormal(0, 0.5)
        janoschek = top - (top - uniform(0, 2)) * np.exp(-rate * x**shape)
        paths = uniform(0, 1) * pow3 + uniform(0, 1) * ilog2 + uniform(0, 1) * janoschek
        inside = np.isfinite(paths).all(1) & (paths >= 0).all(1) & (paths <= 1).all(1)
        parts.append(paths[inside & (paths[:, -1] > paths[:, 0])])
    noise = np.maximum(np.exp(generator.normal(-4, 1, CURVES)), LEAST_NOISE)
    return np.concatenate(parts)[:CURVES], noise
