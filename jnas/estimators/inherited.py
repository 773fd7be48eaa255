"""Accuracy of architectures with the weights that they inherit from a trained supernet.

One compiled program evaluates many, weights shared: side by side, `vmap` over masks; or, on a CPU where they are cells,
one after another without leaving the program, each running the operations alone that it has. Several devices share the
candidates. The running statistics of the supernet are averages over masks that no candidate has; they can be estimated
anew for each candidate from training images, as Single Path One-Shot does (Guo et al., ECCV 2020,
https://arxiv.org/abs/1904.00420).

Letters: B candidates, M masked channels or operations, N images.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.data import Dataset, transforms
from jnas.estimators.training import EVALUATION_BATCH
from jnas.oneshot.supernets import Supernet, masks_of_gates
from jnas.parallel import Program
from jnas.types import Candidates, Estimator, Key, Values, with_status


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

    A candidate whose logits are not finite has the status `not_finite`. `evaluate` raises `MemoryError` where one
    candidate does not fit by itself.
    """

    def calibrate(shared: Any, row: Any) -> Any:
        """The sums of a candidate's statistics, and a share of those of a part of the images."""
        (params, x, share), (subject, sums) = shared, row
        return jax.tree.map(
            lambda total, new: total + share * new, sums, supernet.statistics(params, subject, x)
        )

    def count_right(shared: Any, row: Any) -> Array:
        """Number of a part of the images that a candidate has right; nan where logits are not finite."""
        (params, x, y), (subject, statistics) = shared, row
        logits = supernet.evaluate(params, statistics, subject, x)
        hits = jnp.sum((jnp.argmax(logits, axis=-1) == y) & (y >= 0))
        return jnp.where(jnp.isfinite(logits).all(), hits, jnp.nan)

    # Cells by their choices one after another; masks side by side, without a loop.
    rows = -(-batch // jax.local_device_count())
    programs = {
        kind: (
            Program("statistics of candidates", calibrate, cpu_width=width, rows=rows),
            Program("inherited accuracy", count_right, cpu_width=width, rows=rows),
        )
        for kind, width in ((np.int32, 1), (np.float32, rows))
    }

    def evaluate(key: Key, candidates: Candidates) -> Values:
        start = time.perf_counter()
        subjects = _subjects(supernet, candidates)
        statistics_program, accuracy_program = programs[subjects.dtype.type]
        params, running = accuracy_program.place(variables)
        # The statistics of each candidate, [B, ...].
        each = (len(subjects),)
        statistics = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (*each, *leaf.shape)), running)
        if recalibrate:
            chosen = np.asarray(jax.random.permutation(key, len(dataset.x_train))[:recalibrate])
            # A last batch that is not full sits out.
            size = min(EVALUATION_BATCH, len(chosen))
            starts = range(0, len(chosen) - size + 1, size)
            statistics = jax.tree.map(np.zeros_like, statistics)
            for first in starts:
                x = transforms.normalise(dataset, dataset.x_train[chosen[first : first + size]])
                shared = statistics_program.place((params, x, np.float32(1 / len(starts))))
                statistics = statistics_program.stacked(shared, (subjects, statistics))
        total = np.zeros(len(subjects))
        # As few parts as may be, all equal: a last one that is mostly filling costs as much as the others.
        size = -(-len(images) // -(-len(images) // EVALUATION_BATCH))
        for part, y in transforms.parts(images, labels, size):
            shared = accuracy_program.place((params, transforms.normalise(dataset, part), y))
            total += accuracy_program.stacked(shared, (subjects, statistics))
        seconds = (time.perf_counter() - start) / len(subjects)
        return with_status(100.0 * total[:, None] / len(images), np.full(len(subjects), seconds))

    return Estimator(("accuracy",), evaluate, takes=("architectures", "gates"), batch=batch)


def _subjects(supernet: Supernet, candidates: Candidates) -> np.ndarray:
    """Candidates as the network takes them: masks float32[B, M], or architectures int32[B, D]."""
    if candidates.architectures is None:
        return np.asarray(masks_of_gates(jnp.asarray(candidates.gates)), np.float32)
    if supernet.choices and jax.default_backend() == "cpu":
        return np.asarray(candidates.architectures, np.int32)
    return np.asarray(supernet.masks_of(jnp.asarray(candidates.architectures)), np.float32)
