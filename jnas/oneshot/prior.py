"""A prior over operations from training-free scores: theory says where the posterior starts.

Scores that know no label (TE-NAS's: the kernel's condition number and the linear regions of the supernet without an
operation) rank the operations by how much they are missed. From ranks r_g in (0, 1), 1 for the most missed,

    logit u_g = logit u + s (2 r_g - 1)          inclusion probability of the prior
    logit p_g = logit p - s (2 r_g - 1)          drop probability that training starts from

u and p are those without theory, s >= 0 is how much theory counts. jnas's own; nobody has published it.
"""

import numpy as np
from scipy.stats import rankdata


def informed(
    drop: float, inclusion: float, missed: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """`(drop probabilities, inclusion probabilities)`, float64[G] each, from how much operations are missed [G]."""
    rank = (rankdata(missed) - 0.5) / len(missed)
    shift = strength * (2 * rank - 1)
    return _sigmoid(_logit(drop) - shift), _sigmoid(_logit(inclusion) + shift)


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
