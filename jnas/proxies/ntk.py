"""Condition number of the neural tangent kernel. Lower is better; no labels.

    kappa = lambda_max(Theta) / lambda_min(Theta),   Theta(x, x') = J(x) J(x')^T at initialisation

(Chen, Gong and Wang, "TE-NAS", ICLR 2021, https://arxiv.org/abs/2102.11535.) Range [1, inf). Theta is the
exact empirical kernel of `jnas.theory.empirical_ntk`; its eigenvalues are found in float64.

Departure: the authors' code finds eigenvalues in float32, where lambda_min can come out negative; here a
kernel whose lambda_min is beyond the precision of its entries is `"singular"`, with value inf.
"""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from jnas.nets.families import FAMILIES
from jnas.nets.modules import Build, initial_parameters
from jnas.proxies.base import KERNEL, Proxy, architectures_at_once, map_first
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


@partial(
    jax.jit,
    static_argnames=(
        "space",
        "classes",
        "channels",
        "cells_per_stage",
        "stages",
        "normalisation",
        "logits",
        "parameters",
        "initialisation",
        "implementation",
    ),
)
def kernels(
    key: Array,
    gates: Array,
    count: Array,
    images: Array,
    *,
    space: str = "nasbench201",
    classes: int,
    channels: int = 3,
    cells_per_stage: int = 1,
    stages: int | None = None,
    normalisation: str = "train",
    logits: str = "sum",
    parameters: str = "weights",
    initialisation: str = "kaiming_normal",
    implementation: str = "jnas",
) -> Array:
    """Kernels of the supernet under many gates, with the same weights and images: float32[B, M, M].

    Args:
      key: of the weights.
      gates: float32[B, cells, E, K]; only the first `count` rows are evaluated, the rest are zero.
      images: float32[N, H, W, C], standardised.
      space, channels, cells_per_stage, stages: of the network (`jnas.nets.families`); TE-NAS's stages where None.
      normalisation: `"train"` or `"frozen"`; logits, parameters, implementation: as in
        `jnas.theory.empirical_ntk`, where `"jnas"` is its own path.

    Raises `InputError` when the images do not fit the network.
    """
    family = FAMILIES[space]
    stages = stages or family.kernel_stages
    family.check_images(images.shape, stages)

    def network(build: Build) -> nn.Module:
        return family.network(channels, classes, build, cells_per_stage, stages, True)

    initial = network(Build(initialisation=initialisation))
    params = initial_parameters(initial, key, images[:1], gates[0])
    kernel = kernel_function(
        params,
        images,
        network,
        normalisation=normalisation,
        logits=logits,
        parameters=parameters,
        implementation=implementation,
    )
    size = len(images) * (classes if logits == "full" else 1)
    return map_first(
        kernel, gates, count, architectures_at_once(), jax.ShapeDtypeStruct((size, size), images.dtype)
    )


def condition_numbers(kernels: Array) -> tuple[np.ndarray, list[str]]:
    """`condition_number` of each of kernels [B, M, M]: float64[B] and B statuses."""
    pairs = [condition_number(kernel) for kernel in np.asarray(kernels)]
    return np.array([value for value, _ in pairs], np.float64), [status for _, status in pairs]
