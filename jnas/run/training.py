"""The host loop of a training: epochs, progress, checkpoints, and going on after an interruption."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jnas.config.old_search import TrainingConfig
from jnas.data import Dataset
from jnas.estimators.training import Trainer, TrainState, trainer
from jnas.run.progress import Progress
from jnas.spaces import Space
from jnas.store import checkpoints as stored_states
from jnas.store.folder import RunFolder
from jnas.store.records import Evaluation, Records

# Seldom enough that storing costs a small part of training, often enough that a kill loses little.
CHECKPOINT_SECONDS = 15.0


def train_architectures(
    config: TrainingConfig,
    dataset: Dataset,
    architectures: np.ndarray,
    key: jax.Array,
    folder: RunFolder,
    progress: Progress,
    space: Space,
) -> dict[str, Any]:
    """Train each of int32[B, D] alike; returns the `training` part of result.json, the found cell first.

    Every epoch's test accuracy and loss go to the records, weights to `checkpoints/<index>` of the folder.
    """
    rows = []
    progress.say(
        f"training the found cell and {len(architectures) - 1} random cells for {config.epochs} epochs each"
    )
    with progress.task("training", len(architectures) * config.epochs) as advance:
        for index, architecture in enumerate(architectures):
            name = space.to_string(architecture)
            _train_one(
                config,
                dataset,
                space.name,
                architecture,
                jax.random.fold_in(key, index),
                folder,
                index,
                name,
                advance,
            )
            rows.append({"architecture": name, **_curves(folder.records, index, config.epochs)})
    return {"epochs": config.epochs, "found": rows[0], "random": rows[1:]}


def _train_one(
    config: TrainingConfig,
    dataset: Dataset,
    space: str,
    architecture: np.ndarray,
    key: jax.Array,
    folder: RunFolder,
    index: int,
    name: str,
    advance: Callable[[int], None],
) -> None:
    if len(_stored(folder.records, index, "test_accuracy")) == config.epochs:
        advance(config.epochs)
        return
    import orbax.checkpoint as ocp

    init_key, run_key = jax.random.split(key)
    steps = trainer(
        dataset,
        tuple(int(choice) for choice in architecture),
        run_key,
        space=space,
        epochs=config.epochs,
        batch=config.batch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        channels=config.channels,
        cells_per_stage=config.cells_per_stage,
        augment=config.augment,
    )
    state = steps.init(init_key)
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    directory = (folder.path / "checkpoints" / str(index)).absolute()
    with ocp.CheckpointManager(directory, options=options) as checkpoints:
        done, state = stored_states.restore(checkpoints, state, directory)
        advance(done)

        def store(step: int, state: TrainState) -> None:
            stored_states.store(checkpoints, step, state, directory)

        _epochs(steps, state, range(done, config.epochs), folder.records, index, name, store, advance)


def _epochs(
    steps: Trainer,
    state: TrainState,
    numbers: range,
    records: Records,
    index: int,
    name: str,
    store: Callable[[int, TrainState], None],
    advance: Callable[[int], None],
) -> None:
    stored = time.monotonic()
    for number in numbers:
        start = time.perf_counter()
        state, loss = steps.epoch(state, number)
        values = {"train_loss": float(loss), "test_accuracy": steps.accuracy(state)}
        seconds = (time.perf_counter() - start) / len(values)
        records.add(
            Evaluation("training", number, 0, index, proxy, name, value, seconds)
            for proxy, value in values.items()
        )
        if time.monotonic() - stored > CHECKPOINT_SECONDS or number == numbers[-1]:
            store(number + 1, state)
            stored = time.monotonic()
        advance(1)


def _stored(records: Records, index: int, proxy: str) -> dict[int, float]:
    """One value an epoch, of architecture `index`."""
    return {
        e.round: e.value
        for e in records.all()
        if (e.stage, e.candidate, e.proxy) == ("training", index, proxy)
    }


def _curves(records: Records, index: int, epochs: int) -> dict[str, Any]:
    accuracy, loss = _stored(records, index, "test_accuracy"), _stored(records, index, "train_loss")
    return {
        "test_accuracy": accuracy[epochs - 1],
        "test_accuracy_by_epoch": [accuracy[epoch] for epoch in range(epochs)],
        "train_loss_by_epoch": [loss[epoch] for epoch in range(epochs)],
    }
