"""EPE-NAS: how independent the input gradients are within each class. Higher is better; needs labels.

    score = sum_c | sum_{n, m in class c} log(|r_nm| + k) |,    k = 1e-5

where r is the correlation between images of the gradients of summed logits by the input; with more than 100
classes, the mean over pairs of classes of the absolute difference of their sums (Lopes, Alirezazadeh and
Alexandre, "EPE-NAS: Efficient Performance Estimation Without Training for Neural Architecture Search", 2021,
https://arxiv.org/abs/2102.08099). Classes that the batch does not hold count for nothing.
"""

import numpy as np

from jnas.proxies.base import Proxy, status_of

K = 1e-5
MANY_CLASSES = 100


def within_classes(correlations: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """The score of correlations [N, N] with labels [N], and its status; `"singular"` where an image has no gradient."""
    if (np.diag(correlations) < 0.5).any():
        return float("-inf"), "singular"
    logarithms = np.log(np.abs(np.asarray(correlations, np.float64)) + K)
    present = np.unique(labels)
    sums = np.array([logarithms[np.ix_(labels == c, labels == c)].sum() for c in present])
    if len(present) < MANY_CLASSES:
        value = float(np.abs(sums).sum())
    else:
        value = float(np.abs(sums[:, None] - sums[None]).sum() / 2 / len(present))
    return value, status_of(value)


PROXY = Proxy(
    name="epe_nas",
    sign=1,
    needs_labels=True,
    summary="how independent the input gradients are within each class",
    reference="Lopes, Alirezazadeh and Alexandre, 2021, https://arxiv.org/abs/2102.08099",
    measure=lambda probe: probe.jacobian_correlations,
    finish=within_classes,
)
