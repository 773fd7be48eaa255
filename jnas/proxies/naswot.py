"""NASWOT: log-determinant of the kernel of ReLU patterns. Higher is better; no labels.

    K[n, m] = number of ReLUs with the same sign for images n and m,     score = log |det K|

(Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training", ICML 2021,
https://arxiv.org/abs/2006.04647.) A ReLU is one that the authors' network has: where several operations read
one node, each has a ReLU of its own. Range: real numbers. Status `"singular"` with -inf where two images
have one pattern.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.proxies.base import Proxy, status_of
from jnas.proxies.probe import Probe


def agreement(probe: Probe) -> Array:
    """K: float32[N, N], exact while a network has fewer than 2^24 ReLUs."""
    total = jnp.zeros((), jnp.float32)
    for signs, readers in probe.patterns:
        plus_minus = jnp.where(signs, 1.0, -1.0)
        # Signs that agree minus signs that do not; an unread node counts for nothing.
        difference = jnp.matmul(plus_minus, plus_minus.T, precision=jax.lax.Precision.HIGHEST)
        total = total + readers * (signs.shape[1] + difference) / 2
    return total


def log_determinant(kernel: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """log |det K| in float64, with its status."""
    sign, value = np.linalg.slogdet(np.asarray(kernel, np.float64))
    return (float(value), status_of(value)) if sign > 0 else (float("-inf"), "singular")


PROXY = Proxy(
    name="naswot",
    sign=1,
    needs_labels=False,
    summary="log-determinant of the kernel of ReLU patterns",
    reference="Mellor, Turner, Storkey and Crowley, ICML 2021, https://arxiv.org/abs/2006.04647",
    measure=agreement,
    finish=log_determinant,
)
