"""Condition number of the neural tangent kernel. Lower is better; no labels.

    kappa = lambda_max(Theta) / lambda_min(Theta),   Theta(x, x') = J(x) J(x')^T at initialisation

(Chen, Gong and Wang, "TE-NAS", ICLR 2021, https://arxiv.org/abs/2102.11535.) Range [1, inf). Theta is the
exact empirical kernel of `jnas.theory.empirical_ntk`; its eigenvalues are found in float64.

Departure: the authors' code finds eigenvalues in float32, where lambda_min can come out negative; here a
kernel whose lambda_min is beyond the precision of its entries is `"singular"`, with value inf.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import numpy as np
from jax import Array

from jnas.nets.modules import Build
from jnas.proxies.base import KERNEL, Proxy
from jnas.theory import empirical_ntk
from jnas.types import Params

if TYPE_CHECKING:
    from jnas.estimators.settings import NtkConfig

PROXY = Proxy(
    name="ntk",
    sign=-1,
    needs_labels=False,
    summary="condition number of the exact empirical neural tangent kernel (trainability)",
    reference="Chen, Gong and Wang, ICLR 2021, https://arxiv.org/abs/2102.11535",
    subject=KERNEL,
    finish=lambda kernel, labels: condition_number(kernel),
)

# A ratio of eigenvalues beyond this is below the rounding of a float32 kernel's entries.
LARGEST_CONDITION_NUMBER = 2.0**23


def condition_number(kernel: np.ndarray) -> tuple[float, str]:
    """lambda_max / lambda_min of a symmetric positive semi-definite kernel [M, M], with a status.

    Status `"ok"`; `"singular"` with value inf where lambda_min is not positive or below rounding;
    `"not_finite"` with value nan where an entry is not a number.
    """
    kernel = np.asarray(kernel, np.float64)
    if not np.isfinite(kernel).all():
        return float("nan"), "not_finite"
    eigenvalues = np.linalg.eigvalsh(kernel)
    smallest, largest = eigenvalues[0], eigenvalues[-1]
    if smallest <= 0 or largest / smallest > LARGEST_CONDITION_NUMBER:
        return float("inf"), "singular"
    return float(largest / smallest), "ok"


def kernel(
    params: Params,
    images: Array,
    network: Callable[[Build], nn.Module],
    row: Array,
    settings: "NtkConfig",
) -> Array:
    """The kernel float32[M, M] of one network, M = N, or N O for full logits, by the implementation of the settings.

    network: a build to the network to score. row: gates [cells, E, K], or choices int[cells, E] for jnas's own kernel.
    """
    own, frozen = settings.implementation == "jnas", settings.normalisation == "frozen"
    axis_name = "images" if frozen else None
    form = Build(statistics=settings.normalisation, planes=own, forwards=not own, axis_name=axis_name)
    built: Any = network(form)
    options = {
        "statistics": settings.normalisation,
        "logits": settings.logits,
        "parameters": settings.parameters,
    }

    def apply(params: Params, images: Array) -> Array:
        return built.apply({"params": params}, images, row)

    if own:
        rows = empirical_ntk.jacobian(apply, params, images, channels=built.channels, **options)
        return empirical_ntk.kernel_of(rows, settings.logits)
    return empirical_ntk.by_neural_tangents(
        apply, params, images, implementation=settings.implementation, **options
    )


def condition_numbers(kernels: Array) -> tuple[np.ndarray, list[str]]:
    """`condition_number` of each of kernels [B, M, M]: float64[B] and B statuses."""
    pairs = [condition_number(kernel) for kernel in np.asarray(kernels)]
    return np.array([value for value, _ in pairs], np.float64), [status for _, status in pairs]
