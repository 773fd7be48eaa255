"""Acquisition functions: the worth of an evaluation, by mean m and deviation s of a prediction and the best value f.

    expected improvement       E[max(y - f, 0)] = s (u Phi(u) + phi(u)),  u = (m - f) / s;   max(m - f, 0) where s = 0
    upper confidence bound     m + weight s
    independent Thompson       y ~ N(m, s^2), drawn for each architecture by itself

Mockus, Tiesis and Zilinskas, "The Application of Bayesian Methods for Seeking the Extremum", 1978; Srinivas, Krause,
Kakade and Seeger, ICML 2010, https://arxiv.org/abs/0912.3995; independent draws as White, Neiswanger and Savani,
"BANANAS", AAAI 2021, https://arxiv.org/abs/1910.11858.

Means and deviations are float32[N]; higher is better.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from jnas.types import Key


def expected_improvement(mean: ArrayLike, deviation: ArrayLike, best: ArrayLike) -> Array:
    """Expected improvement on `best`: float32[N], at least 0."""
    mean, deviation = jnp.asarray(mean), jnp.asarray(deviation)
    certain = deviation <= 0
    scale = jnp.where(certain, 1.0, deviation)
    gain = mean - best
    ratio = gain / scale
    # Far below the best the two terms cancel, and rounding would leave less than nothing.
    expected = jnp.maximum(scale * (ratio * norm.cdf(ratio) + norm.pdf(ratio)), 0.0)
    return jnp.where(certain, jnp.maximum(gain, 0.0), expected)


def upper_confidence_bound(mean: Array, deviation: Array, weight: float) -> Array:
    """Mean plus `weight` deviations: float32[N]."""
    return mean + weight * deviation


def independent_thompson(key: Key, mean: Array, deviation: Array) -> Array:
    """One draw for each architecture by itself: float32[N]."""
    return mean + deviation * jax.random.normal(key, mean.shape)
