"""Accuracy after training: many architectures of a cell space in one compiled program.

The training images are split by class: networks learn from four fifths, and a candidate's accuracy is that on the last.
Test images are not looked at, so that they can judge the result of a search. The training is that of
`jnas.estimators.batch_training`.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from jnas.data import Dataset
from jnas.data.base import stratified_split
from jnas.errors import InputError
from jnas.estimators.batch_training import accuracies, room
from jnas.nets import networks
from jnas.parallel import filled
from jnas.spaces.base import Space
from jnas.types import Candidates, Estimator, Key, Values, with_status

VALIDATION = 0.2


def trained(space: Space, dataset: Dataset, settings: Any) -> Estimator:
    """Percent of held-out images after training each architecture, objective `accuracy`.

    settings: epochs, batch, learning_rate, weight_decay, channels and cells_per_stage, as `settings.Training` has them.
    A candidate's fidelity is its share of the epochs. A training that diverges has the status `not_finite`. Raises
    `InputError` where a batch does not fit, and for a space whose architectures are not built alone.
    """
    networks.kind_of(space)
    learn, held = stratified_split(dataset.y_train, 0, VALIDATION)
    if settings.batch > len(learn):
        raise InputError(
            f"batch {settings.batch} does not fit: {len(learn)} images are left to train on; lower it"
        )
    split = replace(
        dataset, x_train=dataset.x_train[learn], y_train=dataset.y_train[learn], x_test=dataset.x_train[held],
        y_test=dataset.y_train[held],
    )  # fmt: skip
    size, width, mesh = room()

    def train(key: Key, choices: np.ndarray, epochs: int) -> np.ndarray:
        """Accuracies of choices int32[B, cells, E], in programs of one row or of `size`."""
        rows = filled(choices, 1 if len(choices) == 1 and mesh is None else size)
        values = accuracies(
            key, rows, split, space=space, epochs=epochs, batch=settings.batch,
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, channels=settings.channels,
            cells_per_stage=settings.cells_per_stage, width=width, mesh=mesh,
        )  # fmt: skip
        return np.asarray(values, np.float64)[: len(choices), 0]

    def evaluate(key: Key, candidates: Candidates) -> Values:
        start = time.perf_counter()
        choices = np.asarray(space.choices(np.asarray(candidates.architectures)), np.int32)
        shares = np.ones(len(choices)) if candidates.fidelity is None else np.asarray(candidates.fidelity)
        epochs = np.maximum(1, np.rint(shares * settings.epochs).astype(int))
        value = np.zeros(len(choices))
        # Trainings of one length run in one program.
        for count in np.unique(epochs):
            rows = np.flatnonzero(epochs == count)
            value[rows] = train(key, choices[rows], int(count))
        return with_status(value[:, None], (time.perf_counter() - start) * epochs / epochs.sum())

    return Estimator(("accuracy",), evaluate, batch=size)
