"""The host loop of a supernet's training: epochs, records, checkpoints, going on after an interruption, and stopping
before a loss that is not finite spoils what was learned.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas import data as datasets
from jnas.oneshot.posterior import Gating
from jnas.oneshot.supernets import Supernet
from jnas.oneshot.training import Objective, SupernetState, SupernetTrainer, supernet_trainer
from jnas.study.config import PosteriorConfig
from jnas.study.progress import Progress
from jnas.study.records import Evaluation, RunError
from jnas.study.run_folder import RunFolder
from jnas.study.training import CHECKPOINT_SECONDS


class Split(NamedTuple):
    """dataset: with the images that the supernet learns from; images, labels: those held out from it."""

    dataset: datasets.Dataset
    images: np.ndarray
    labels: np.ndarray


def make_trainer(
    settings: PosteriorConfig,
    supernet: Supernet,
    split: Split,
    gating: Gating,
    key: Array,
    logits: Array,
    inclusion: np.ndarray,
    *,
    draw: Callable[[Array, int], Array] | None = None,
    tuning: bool = False,
) -> SupernetTrainer:
    """Of the supernet, with the masks of its posterior or of `draw`; by the settings of tuning where `tuning`."""
    objective = Objective(
        gating,
        jnp.asarray(inclusion, jnp.float32),
        settings.examples * len(split.dataset.x_train),
        settings.temperature,
        settings.weight_penalty,
        settings.entropy,
        settings.penalty,
    )
    return supernet_trainer(
        supernet,
        split.dataset,
        key,
        objective=objective,
        logits=logits,
        epochs=settings.tuning_epochs if tuning else settings.epochs,
        batch=settings.batch,
        learning_rate=settings.tuning_rate if tuning else settings.learning_rate,
        logits_rate=settings.logits_rate,
        augment=settings.augment,
        draw=draw,
    )


def train(
    settings: PosteriorConfig,
    supernet: Supernet,
    trainer: SupernetTrainer,
    key: Array,
    folder: RunFolder,
    progress: Progress,
) -> SupernetState:
    """The trained supernet, from its checkpoint where there is one; every epoch goes to the records."""
    import orbax.checkpoint as ocp

    state = trainer.init(key)
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    directory = (folder.path / "checkpoints" / "supernet").absolute()
    with (
        ocp.CheckpointManager(directory, options=options) as checkpoints,
        progress.task("training the supernet", settings.epochs, "epochs") as advance,
    ):
        done = checkpoints.latest_step() or 0
        if done:
            state = checkpoints.restore(done, args=ocp.args.StandardRestore(state))
            advance(done)

        def store(step: int, state: SupernetState) -> None:
            if checkpoints.latest_step() != step:
                checkpoints.save(step, args=ocp.args.StandardSave(state))

        stored = time.monotonic()
        for number in range(done, settings.epochs):
            start = time.perf_counter()
            after, record = trainer.epoch(state, number)
            values = {name: float(value) for name, value in record._asdict().items()}
            if not all(math.isfinite(value) for value in values.values()):
                if number:
                    store(number, state)
                raise RunError(
                    f"the supernet's loss is not finite in epoch {number + 1} of {settings.epochs}: lower "
                    f"posterior.learning_rate and give another --out; the state after epoch {number} is kept in "
                    f"'{directory}'"
                )
            state = after
            _record_epoch(supernet, state, number, values, time.perf_counter() - start, folder)
            if time.monotonic() - stored > CHECKPOINT_SECONDS or number == settings.epochs - 1:
                store(number + 1, state)
                stored = time.monotonic()
            advance(1)
    return state


def tune(
    settings: PosteriorConfig,
    supernet: Supernet,
    split: Split,
    gating: Gating,
    key: Array,
    inclusion: np.ndarray,
    state: SupernetState,
    found: np.ndarray,
    folder: RunFolder,
    progress: Progress,
) -> SupernetState | None:
    """The found candidate after further epochs with its own masks; None where none are asked for."""
    if not settings.tuning_epochs:
        return None
    trainer = make_trainer(
        settings, supernet, split, gating, key, state.logits, inclusion,
        draw=lambda key, images: jnp.asarray(found)[None], tuning=True,
    )  # fmt: skip
    tuned = trainer.init(key)._replace(params=state.params, batch_stats=state.batch_stats)
    with progress.task("tuning what was found", settings.tuning_epochs, "epochs") as advance:
        for number in range(settings.tuning_epochs):
            start = time.perf_counter()
            tuned, record = trainer.epoch(tuned, number)
            values = {name: float(value) for name, value in record._asdict().items()}
            each = (time.perf_counter() - start) / len(values)
            folder.records.add(
                Evaluation("tuning", number, 0, 0, name, "found", value, each)
                for name, value in values.items()
            )
            advance(1)
    return tuned


def _record_epoch(
    supernet: Supernet,
    state: SupernetState,
    number: int,
    values: dict[str, float],
    seconds: float,
    folder: RunFolder,
) -> None:
    drop = np.asarray(jax.nn.sigmoid(state.logits), np.float64)
    each = seconds / len(values)
    folder.records.add(
        [
            Evaluation("supernet", number, 0, 0, name, "supernet", value, each)
            for name, value in values.items()
        ]
        + [
            Evaluation("supernet", number, 0, group, "drop_probability", name, float(drop[group]), 0.0)
            for group, name in enumerate(supernet.groups)
        ]
    )
