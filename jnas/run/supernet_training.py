"""The host loop of a supernet's training: epochs, records, checkpoints, going on after an interruption, and stopping
before what is not finite spoils what was learned.
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
from jnas.config.old_search import PosteriorConfig
from jnas.errors import RunError
from jnas.oneshot.posterior import Gating
from jnas.oneshot.supernets import Supernet
from jnas.oneshot.training import Objective, SupernetState, SupernetTrainer, supernet_trainer
from jnas.run.progress import Progress
from jnas.run.training import CHECKPOINT_SECONDS
from jnas.store import checkpoints as stored_states
from jnas.store.folder import RunFolder
from jnas.store.records import Evaluation


class Split(NamedTuple):
    """dataset: with the images that the supernet learns from; images, labels: those held out from it."""

    dataset: datasets.Dataset
    images: np.ndarray
    labels: np.ndarray


class Work(NamedTuple):
    """What all stages of a search share; inclusion: float64[G], the prior's u."""

    settings: PosteriorConfig
    supernet: Supernet
    gating: Gating
    split: Split
    inclusion: np.ndarray


def make_trainer(
    work: Work,
    key: Array,
    logits: Array,
    *,
    draw: Callable[[Array, int], Array] | None = None,
    tuning: bool = False,
) -> SupernetTrainer:
    """Of the supernet, with the masks of its posterior or of `draw`; by the settings of tuning where `tuning`."""
    settings = work.settings
    objective = Objective(
        work.gating,
        work.inclusion,
        settings.examples * len(work.split.dataset.x_train),
        settings.temperature,
        settings.weight_penalty,
        settings.entropy,
        settings.penalty,
    )
    return supernet_trainer(
        work.supernet,
        work.split.dataset,
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
    stage: str,
    trainer: SupernetTrainer,
    state: SupernetState,
    epochs: int,
    groups: tuple[str, ...],
    folder: RunFolder,
    progress: Progress,
) -> SupernetState:
    """`state` after so many epochs, from the checkpoint of this stage where there is one.

    Every epoch goes to the records, with the drop probabilities of `groups` (none where empty); states to
    `checkpoints/<stage>` of the folder. Raises `RunError` as soon as a loss or a state is not finite; the last state
    that was is kept.
    """
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    directory = (folder.path / "checkpoints" / stage).absolute()
    text = {"supernet": "training the supernet", "tuning": "tuning what was found"}[stage]
    with (
        ocp.CheckpointManager(directory, options=options) as checkpoints,
        progress.task(text, epochs, "epochs") as advance,
    ):
        done, state = stored_states.restore(checkpoints, state, directory)
        if done:
            advance(done)

        def store(step: int, state: SupernetState) -> None:
            if checkpoints.latest_step() != step:
                stored_states.store(checkpoints, step, state, directory)

        stored = time.monotonic()
        for number in range(done, epochs):
            start = time.perf_counter()
            after, record = trainer.epoch(state, number)
            values = {name: float(value) for name, value in record._asdict().items()}
            # A loss is that of the weights before its step: the last step of an epoch shows in the state alone.
            if not all(math.isfinite(value) for value in values.values()) or not _finite(after):
                kept = ""
                if number:
                    store(number, state)
                    kept = f"; the state after epoch {number} is kept in '{directory}'"
                rate = "tuning_rate" if stage == "tuning" else "learning_rate"
                raise RunError(
                    f"{text}: not finite in epoch {number + 1} of {epochs}: lower posterior.{rate} and give another "
                    f"--out{kept}"
                )
            state = after
            each = (time.perf_counter() - start) / len(values)
            evaluations = [
                Evaluation(stage, number, 0, 0, name, stage, value, each) for name, value in values.items()
            ]
            drop = np.asarray(jax.nn.sigmoid(state.logits), np.float64)
            folder.records.add(
                evaluations
                + [
                    Evaluation(stage, number, 0, group, "drop_probability", name, float(drop[group]), 0.0)
                    for group, name in enumerate(groups)
                ]
            )
            if time.monotonic() - stored > CHECKPOINT_SECONDS or number == epochs - 1:
                store(number + 1, state)
                stored = time.monotonic()
            advance(1)
    return state


def tune(
    work: Work, key: Array, state: SupernetState, found: np.ndarray, folder: RunFolder, progress: Progress
) -> SupernetState | None:
    """The found candidate bool[D] after further epochs with its own masks; None where none are asked for."""
    epochs = work.settings.tuning_epochs
    if not epochs:
        return None
    own = jnp.asarray(found)[None]
    trainer = make_trainer(work, key, state.logits, draw=lambda key, images: own, tuning=True)
    start = trainer.init(key)._replace(params=state.params, batch_stats=state.batch_stats)
    return train("tuning", trainer, start, epochs, (), folder, progress)


@jax.jit
def _all_finite(leaves: list[Array]) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _finite(state: SupernetState) -> bool:
    return bool(_all_finite(jax.tree.leaves(state._replace(optimizer=()))))
