"""Further scores of the exact neural tangent kernel: its size, and its fit to the labels.

With Theta [N, N] the kernel of `jnas.theory.empirical_ntk`, its eigenvalues l_i and eigenvectors v_i, and Y [N, O]
the one-hot labels minus their mean:

    ntk_trace            = sum_i l_i                                            higher is better; no labels
    ntk_mean_eigenvalue  = ntk_trace / N                                        higher is better; no labels
    ntk_alignment        = <Theta, Y Y^T> / (||Theta|| ||Y Y^T||)               higher is better; labels
    ntk_training_speed   = 1 - sum_i ||v_i^T Y||^2 exp(-2 l_i / mean l) / ||Y||^2    higher is better; labels

Trace: Xu et al., "KNAS", ICML 2021, https://arxiv.org/abs/2111.14454, and Shu et al., "NASI", ICLR 2022,
https://arxiv.org/abs/2109.00817. Alignment (y^T K y, normalised): Cristianini et al., "On Kernel-Target
Alignment", NeurIPS 2001. Speed: the share of the labels' energy that gradient flow on the squared loss of the
linearised network has fitted after the time 1 / mean eigenvalue (Jacot et al., 2018,
https://arxiv.org/abs/1806.07572; what neural-tangents' `predict.gradient_descent_mse` integrates); time is
measured in the kernel's own scale, so that the speed does not repeat the trace.

Images of one class alone leave nothing of Y: status `"one_class"`. A full kernel [N O, N O] is used
as it is, with Y flattened.
"""

import numpy as np

from jnas.proxies.base import KERNEL, KernelScore, Proxy, of_kernel


def _targets(kernel: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Y: float64[N, O], or [N O, 1] for a full kernel."""
    targets = np.eye(labels.max() + 1)[labels]
    targets = targets - targets.mean(axis=0)
    return targets if len(kernel) == len(labels) else targets.reshape(-1, 1)


def alignment(kernel: np.ndarray, labels: np.ndarray) -> float:
    """Cosine between Theta and Y Y^T, in [-1, 1]."""
    targets = _targets(kernel, labels)
    labelled = targets @ targets.T
    return float(np.sum(kernel * labelled) / (np.linalg.norm(kernel) * np.linalg.norm(labelled)))


def training_speed(kernel: np.ndarray, labels: np.ndarray) -> float:
    """Share of the labels' energy fitted after the time 1 / mean eigenvalue, in [0, 1]."""
    targets = _targets(kernel, labels)
    eigenvalues, vectors = np.linalg.eigh(kernel)
    energies = np.sum((vectors.T @ targets) ** 2, axis=1)
    left = np.exp(-2 * np.maximum(eigenvalues, 0) / eigenvalues.mean())
    return float(1 - np.sum(energies * left) / energies.sum())


def _proxy(name: str, score: KernelScore, summary: str, reference: str, needs_labels: bool) -> Proxy:
    return Proxy(
        name, 1, needs_labels, summary, reference, subject=KERNEL, finish=of_kernel(score, needs_labels)
    )


TRACE = _proxy(
    "ntk_trace",
    lambda kernel, labels: float(np.trace(kernel)),
    "trace of the neural tangent kernel",
    "Xu et al., ICML 2021, https://arxiv.org/abs/2111.14454",
    False,
)
MEAN_EIGENVALUE = _proxy(
    "ntk_mean_eigenvalue",
    lambda kernel, labels: float(np.trace(kernel) / len(kernel)),
    "mean eigenvalue of the neural tangent kernel",
    "Xu et al., ICML 2021, https://arxiv.org/abs/2111.14454",
    False,
)
ALIGNMENT = _proxy(
    "ntk_alignment",
    alignment,
    "alignment of the neural tangent kernel with the labels, y^T K y normalised",
    "Cristianini, Shawe-Taylor, Elisseeff and Kandola, NeurIPS 2001",
    True,
)
TRAINING_SPEED = _proxy(
    "ntk_training_speed",
    training_speed,
    "share of the labels that the linearised network has fitted after one mean time constant",
    "Jacot, Gabriel and Hongler, 2018, https://arxiv.org/abs/1806.07572",
    True,
)
