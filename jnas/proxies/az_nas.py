"""AZ-NAS: expressivity, progressivity and trainability from the features of blocks. Higher is better; no labels.

With block outputs f_1 .. f_L on noise and the covariance between the channels of f_l over images and positions,

    expressivity   = sum_l H_l,     H_l = - sum_c p_c log p_c,   p = eigenvalues of the covariance / their sum
    progressivity  = min_l ( H_l+1 - H_l )
    trainability   = mean_l ( 2 - s_l - 1 / s_l )

where s_l is the largest singular value of the mean over images and positions of g_l-1 g_l^T, g_l random signs
and g_l-1 = (d f_l / d f_l-1)^T g_l; where a block halves the image, squares of 2x2 positions are joined in the
channels of g_l-1 (Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024,
https://arxiv.org/abs/2403.19232). The fourth component, complexity, is `flops`. A block that passes its input
on unchanged, or gives zero, has a trainability of -inf, status `"not_finite"`, as in the authors' code.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.proxies.base import Proxy, finite
from jnas.proxies.probe import Probe

# Of the authors: keeps 0 log 0 and 1 / 0 finite.
SMALL_SHARE, SMALL_SINGULAR_VALUE = 1e-8, 1e-6


def _noise(probe: Probe) -> Array:
    return jax.random.normal(jax.random.fold_in(probe.key, 1), probe.images[0].shape)


def _blocks(probe: Probe, x: Array, shifts: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of the blocks [N, H, W, C], in the order of the network."""
    outputs = probe.view.blocks(probe.params, x, shifts)
    if len(outputs) < 2:
        raise InputError(
            f"the network names {len(outputs)} blocks: give the outputs of two or more to "
            "jax.ad_checkpoint.checkpoint_name(x, 'block 1')"
        )
    return outputs


def covariances(probe: Probe) -> tuple[Array, ...]:
    """Between the channels of each block's output: float32[C, C] each."""
    matrices = []
    for feature in _blocks(probe, _noise(probe), {}).values():
        rows = feature.reshape(-1, feature.shape[-1])
        rows = rows - jnp.mean(rows, axis=0)
        matrices.append(jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST) / len(rows))
    return tuple(matrices)


def transfers(probe: Probe) -> tuple[tuple[Array, Array], ...]:
    """For each block but the first, the mean of g_l-1 g_l^T, and whether g_l-1 equals g_l."""
    x = _noise(probe)
    names: list[str] = []

    def outputs_of_blocks():
        outputs = _blocks(probe, x, {})
        names.extend(outputs)
        return outputs

    # Names in the order of the network, which a dictionary that passed through JAX has lost.
    shapes = jax.eval_shape(outputs_of_blocks)
    zeros = {name: jnp.zeros(shape.shape) for name, shape in shapes.items()}
    keys = jax.random.split(jax.random.fold_in(probe.key, 2), len(zeros))
    signs = {
        name: jax.random.rademacher(key, shape.shape, jnp.float32)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }

    def products(boundaries):
        outputs = _blocks(probe, x, boundaries)
        return sum(jnp.vdot(signs[name], feature) for name, feature in outputs.items())

    gradients = jax.grad(products)(zeros)
    matrices = []
    for before, after in itertools.pairwise(names):
        inside, outside = gradients[before], signs[after]
        equal = (
            jnp.all(inside == outside) if inside.shape == outside.shape else jnp.zeros((), bool)
        ) | jnp.all(inside == 0)
        if inside.ndim == 4 and inside.shape[1] != outside.shape[1]:
            n, height, width, channels = inside.shape
            squares = inside.reshape(n, height // 2, 2, width // 2, 2, channels)
            inside = jnp.moveaxis(squares, 3, 2).reshape(n, height // 2, width // 2, -1)
        left, right = inside.reshape(-1, inside.shape[-1]), outside.reshape(-1, outside.shape[-1])
        mean = jnp.matmul(left.T, right, precision=jax.lax.Precision.HIGHEST) / len(right)
        matrices.append((mean, equal))
    return tuple(matrices)


def entropies(matrices: tuple[np.ndarray, ...]) -> np.ndarray:
    """H of each covariance: float64[L]; zero where a block's output does not vary."""
    values = []
    for matrix in matrices:
        eigenvalues = np.maximum(np.linalg.eigvalsh(np.asarray(matrix, np.float64)), 0)
        shares = eigenvalues / max(eigenvalues.sum(), np.finfo(np.float64).tiny)
        values.append(-np.sum(shares * np.log(shares + SMALL_SHARE)))
    return np.array(values)


def isometry(matrices: tuple[tuple[np.ndarray, np.ndarray], ...]) -> float:
    """Trainability from the `transfers` of the blocks."""
    scores = []
    for matrix, degenerate in matrices:
        largest = np.linalg.norm(np.asarray(matrix, np.float64), 2)
        passed = 2 - largest - 1 / (largest + SMALL_SINGULAR_VALUE)
        scores.append(-math.inf if degenerate else float(passed))
    return float(np.mean(scores))


def _proxy(name: str, summary: str, measure: Callable[[Probe], Any], score: Callable[[Any], float]) -> Proxy:
    reference = "Lee and Ham, CVPR 2024, https://arxiv.org/abs/2403.19232"
    return Proxy(
        name, 1, False, f"AZ-NAS: {summary}", reference, measure=measure,
        finish=lambda measured, labels: finite(score(measured), labels),
    )  # fmt: skip


EXPRESSIVITY = _proxy(
    "az_expressivity",
    "entropy of the features' principal components, summed over blocks",
    covariances,
    lambda matrices: entropies(matrices).sum(),
)
PROGRESSIVITY = _proxy(
    "az_progressivity",
    "least increase of that entropy from block to block",
    covariances,
    lambda matrices: np.diff(entropies(matrices)).min(),
)
TRAINABILITY = _proxy(
    "az_trainability", "how close to an isometry the blocks pass gradients on", transfers, isometry
)
