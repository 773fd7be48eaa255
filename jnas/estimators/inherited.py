"""Accuracy of architectures with the weights that they inherit from a trained supernet.

One compiled program evaluates many, weights shared: side by side, `vmap` over masks; or, on a CPU where they are cells,
one after another without leaving the program, each running the operations alone that it has. Several devices share the
candidates. The running statistics of the supernet are averages over masks that no candidate has; they can be estimated
anew for each candidate from training images, as Single Path One-Shot does (Guo et al., ECCV 2020,
https://arxiv.org/abs/1904.00420).

Letters: B candidates, M masked channels or operations, N images.
"""

import logging
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnas.data import Dataset, transforms
from jnas.estimators.training import EVALUATION_BATCH
from jnas.oneshot.supernets import Supernet, masks_of_gates
from jnas.parallel import filled, local_mesh, out_of_memory, over_architectures
from jnas.types import Candidates, Estimator, Key, Values, with_status

log = logging.getLogger("jnas")


def inherited(
    supernet: Supernet,
    variables: tuple[Any, Any],
    dataset: Dataset,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    recalibrate: int = 0,
    batch: int = 10,
) -> Estimator:
    """Percent of `images` [N, H, W, C], as they are stored, that a candidate classifies correctly.

    Args:
      variables: params and running statistics, as `OneShot.params` gives them.
      dataset: says how images are standardised, and has the training images for `recalibrate`.
      recalibrate: training images, drawn by the key of `evaluate`, by whose statistics each candidate is normalised:
        the mean over batches of up to 256 of them. The supernet's running statistics where 0.
      batch: candidates in one program; after running out of memory, half as many.

    A candidate whose logits are not finite has the status `not_finite`.
    """
    at_once = batch

    def percent(key: Key, subjects: np.ndarray) -> np.ndarray:
        """Percent right of subjects [B, ...]: float64[B], nan where logits are not finite."""
        count = len(subjects)
        mesh = local_mesh() if jax.local_device_count() <= count else None
        params, statistics = variables
        if mesh is not None:
            subjects = filled(subjects, mesh.size)
            params, statistics = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
        moments = dataset.mean, dataset.std
        if recalibrate:
            chosen = np.asarray(jax.random.permutation(key, len(dataset.x_train))[:recalibrate])
            # A last batch that is not full sits out.
            size = min(EVALUATION_BATCH, len(chosen))
            starts = range(0, len(chosen) - size + 1, size)
            statistics = jax.tree.map(
                lambda leaf: np.zeros((len(subjects), *leaf.shape), leaf.dtype), statistics
            )
            for start in starts:
                part = dataset.x_train[chosen[start : start + size]], *moments
                statistics = _calibrate(supernet, params, subjects, statistics, part, 1 / len(starts), mesh)
        total = np.zeros(len(subjects))
        # As few parts as may be, all equal: a last one that is mostly filling costs as much as the others.
        size = -(-len(images) // -(-len(images) // EVALUATION_BATCH))
        for x, y in transforms.parts(images, labels, size):
            hits = _right(supernet, params, statistics, subjects, (x, *moments), y, bool(recalibrate), mesh)
            total += np.asarray(hits, np.float64)
        return 100.0 * total[:count] / len(images)

    def evaluate(key: Key, candidates: Candidates) -> Values:
        nonlocal at_once
        subjects, start = _subjects(supernet, candidates), time.perf_counter()
        values: list[np.ndarray] = []
        done = 0
        while done < len(subjects):
            part = subjects[done : done + at_once]
            try:
                values.append(percent(key, filled(part, at_once))[: len(part)])
            except jax.errors.JaxRuntimeError as error:
                if at_once == 1 or not out_of_memory(error):
                    raise
                at_once //= 2
                log.warning("out of memory: trying %d candidates side by side", at_once)
                continue
            done += len(part)
        accuracy = np.concatenate([*values, np.zeros(0)])[:, None]
        seconds = (time.perf_counter() - start) / max(1, len(subjects))
        return with_status(accuracy, np.full(len(subjects), seconds))

    return Estimator(("accuracy",), evaluate, takes=("architectures", "gates"), batch=batch)


def _subjects(supernet: Supernet, candidates: Candidates) -> np.ndarray:
    """Candidates as the network takes them: masks float32[B, M], or architectures int32[B, D]."""
    if candidates.architectures is None:
        return np.asarray(masks_of_gates(jnp.asarray(candidates.gates)), np.float32)
    if supernet.choices and jax.default_backend() == "cpu":
        return np.asarray(candidates.architectures, np.int32)
    return np.asarray(supernet.masks_of(jnp.asarray(candidates.architectures)), np.float32)


@partial(jax.jit, static_argnames=("supernet", "mesh"))
def _calibrate(
    supernet: Supernet,
    params: Any,
    subjects: Array,
    sums: Any,
    part: tuple[Array, Array, Array],
    share: float,
    mesh: Mesh | None,
) -> Any:
    """`sums` [B, ...] and a share of the statistics of a part: images, their mean and deviation."""

    def one(shared: Any, each: Any) -> Any:
        (params, images), (subject, sums) = shared, each
        statistics = supernet.statistics(params, subject, images)
        return jax.tree.map(lambda total, new: total + share * new, sums, statistics)

    shared = params, transforms.standardise(*part)
    return over_architectures(one, shared, (subjects, sums), _width(subjects, mesh), mesh)


@partial(jax.jit, static_argnames=("supernet", "each_its", "mesh"))
def _right(
    supernet: Supernet,
    params: Any,
    statistics: Any,
    subjects: Array,
    part: tuple[Array, Array, Array],
    labels: Array,
    each_its: bool,
    mesh: Mesh | None,
) -> Array:
    """Number of images of a part that each subject has right: [B]. each_its: statistics are [B, ...]."""

    def one(shared: Any, each: Any) -> Array:
        params, statistics, images, labels = shared
        subject, statistics = each if each_its else (each, statistics)
        logits = supernet.evaluate(params, statistics, subject, images)
        hits = jnp.sum((jnp.argmax(logits, axis=-1) == labels) & (labels >= 0))
        return jnp.where(jnp.isfinite(logits).all(), hits, jnp.nan)

    shared = params, None if each_its else statistics, transforms.standardise(*part), labels
    each = (subjects, statistics) if each_its else subjects
    return over_architectures(one, shared, each, _width(subjects, mesh), mesh)


def _width(subjects: Array, mesh: Mesh | None) -> int:
    """Number of subjects [B, ...] that one device takes side by side: all that it has, cells by their choices alone."""
    if jnp.issubdtype(subjects.dtype, jnp.integer):
        return 1
    return len(subjects) // (1 if mesh is None else mesh.size)
