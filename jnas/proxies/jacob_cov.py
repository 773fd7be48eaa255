"""Jacobian covariance: how independent the images' input gradients are. Higher is better; no labels.

    score = - sum_n [ log(lambda_n + k) + 1 / (lambda_n + k) ],    k = 1e-5

over the eigenvalues of the correlation matrix, between the images of a batch, of the gradients of summed
logits by the input (Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training",
first version, 2020, https://arxiv.org/abs/2006.04647v1). Largest, -N (1 + small), when all are uncorrelated.
"""

import numpy as np

from jnas.proxies.base import Proxy, status_of

# The authors' constant: it bounds what a correlation of one costs.
K = 1e-5


def spread(correlations: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """The score of correlations [N, N], with its status; `"singular"` where an image has no gradient."""
    correlations = np.asarray(correlations, np.float64)
    if not np.isfinite(correlations).all():
        return float("nan"), "not_finite"
    if (np.diag(correlations) < 0.5).any():
        return float("-inf"), "singular"
    # Rounding may leave an eigenvalue of zero slightly negative.
    eigenvalues = np.maximum(np.linalg.eigvalsh(correlations), 0) + K
    value = float(-np.sum(np.log(eigenvalues) + 1 / eigenvalues))
    return value, status_of(value)


PROXY = Proxy(
    name="jacob_cov",
    sign=1,
    needs_labels=False,
    summary="how independent the input gradients of the images are",
    reference="Mellor, Turner, Storkey and Crowley, 2020, https://arxiv.org/abs/2006.04647v1",
    measure=lambda probe: probe.jacobian_correlations,
    finish=spread,
)
