"""NNGP: how well the network predicts labels as a Gaussian process, before training. Higher is better; needs labels.

    score = - mean_n || y_n - prediction of y_n from the other images ||^2

by kernel regression with K = phi phi^T, phi [N, F] the features that the classifier reads, y the one-hot labels
minus their mean: a Monte Carlo estimate of the kernel of the infinitely wide classifier on one draw of the
weights (Park, Lee, Peng, Cao and Sohl-Dickstein, "Towards NNGP-guided Neural Architecture Search", 2020,
https://arxiv.org/abs/2011.06006). Range (-inf, 0].

Departures: the squared error of leaving each image out (closed form e_n = (A^-1 y)_n / (A^-1)_nn) instead of a
validation set; A = K + r I with r a thousandth of the mean eigenvalue, the middle of the authors' grid.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.proxies.base import Proxy, of_kernel
from jnas.proxies.probe import Probe

RIDGE = 1e-3


def kernel(probe: Probe) -> Array:
    """K: float32[N, N]."""
    features = probe.features
    return jnp.matmul(features, features.T, precision=jax.lax.Precision.HIGHEST) / features.shape[1]


def leave_one_out(kernel: np.ndarray, labels: np.ndarray) -> float:
    """The score of a kernel float64[N, N]."""
    targets = np.eye(labels.max() + 1)[labels]
    targets = targets - targets.mean(axis=0)
    inverse = np.linalg.inv(kernel + RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel)))
    errors = inverse @ targets / np.diag(inverse)[:, None]
    return float(-np.mean(np.sum(errors**2, axis=1)))


PROXY = Proxy(
    name="nngp",
    sign=1,
    needs_labels=True,
    summary="how well labels are predicted by the Gaussian process of the features",
    reference="Park, Lee, Peng, Cao and Sohl-Dickstein, 2020, https://arxiv.org/abs/2011.06006",
    measure=kernel,
    finish=of_kernel(leave_one_out),
)
