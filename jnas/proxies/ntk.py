"""Condition number of the neural tangent kernel. Lower is better; no labels.

    kappa = lambda_max(Theta) / lambda_min(Theta),   Theta(x, x') = J(x) J(x')^T at initialisation

(Chen, Gong and Wang, "TE-NAS", ICLR 2021, https://arxiv.org/abs/2102.11535.) Range [1, inf). Theta is the
exact empirical kernel of `jnas.theory.empirical_ntk`; its eigenvalues are found in float64.

Departure: the authors' code finds eigenvalues in float32, where lambda_min can come out negative; here a
kernel whose lambda_min is beyond the precision of its entries is `"singular"`, with value inf.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import numpy as np
from jax import Array

from jnas.nets.modules import Build
from jnas.proxies.base import KERNEL, Proxy
from jnas.theory import empirical_ntk

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


def kernel_function(
    params: Mapping,
    images: Array,
    network: Callable[[Build], nn.Module],
    *,
    normalisation: str,
    logits: str,
    parameters: str,
    implementation: str,
) -> Callable[[Array], Array]:
    """gates [cells, E, K] to the kernel [M, M] of one network, by the implementation asked for.

    network: a build to the network to score; M = N, or N O for `logits="full"`.
    """
    own = implementation == "jnas"
    axis_name = "images" if normalisation == "frozen" else None
    built = network(Build(statistics=normalisation, planes=own, axis_name=axis_name))

    def kernel(gates: Array) -> Array:
        def apply(params, images):
            return built.apply({"params": params}, images, gates)

        if not own:
            return empirical_ntk.by_neural_tangents(
                apply,
                params,
                images,
                implementation=implementation,
                statistics=normalisation,
                logits=logits,
                parameters=parameters,
            )
        jacobian = empirical_ntk.jacobian(
            apply,
            params,
            images,
            statistics=normalisation,
            logits=logits,
            parameters=parameters,
            channels=built.channels,
        )
        return empirical_ntk.kernel_of(jacobian, logits)

    return kernel


def condition_numbers(kernels: Array) -> tuple[np.ndarray, list[str]]:
    """`condition_number` of each of kernels [B, M, M]: float64[B] and B statuses."""
    pairs = [condition_number(kernel) for kernel in np.asarray(kernels)]
    return np.array([value for value, _ in pairs], np.float64), [status for _, status in pairs]
