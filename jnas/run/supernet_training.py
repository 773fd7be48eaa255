"""The training of a supernet by a one-shot method: its data, its records and checkpoints, and its tuning."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jnas.data import Dataset, stream, transforms
from jnas.data.base import stratified_split
from jnas.errors import InputError
from jnas.oneshot.settings import Uniform
from jnas.oneshot.supernets import Supernet
from jnas.oneshot.uniform import uniform
from jnas.run.fit import Epoch, fit
from jnas.run.progress import Advance
from jnas.store.checkpoints import open_checkpoints
from jnas.store.folder import RunFolder
from jnas.store.records import Evaluation
from jnas.types import Key, OneShot, State


class Split(NamedTuple):
    """dataset: with the images that the supernet learns from; images, labels: those held out from it."""

    dataset: Dataset
    images: np.ndarray
    labels: np.ndarray


class Budget(NamedTuple):
    """epochs, batch: of a supernet's training; augment: whether images are shifted and mirrored where they allow it."""

    epochs: int
    batch: int
    augment: bool

    def steps(self, dataset: Dataset) -> int:
        """Steps of all epochs."""
        return self.epochs * (len(dataset.x_train) // self.batch)

    def constants(self, dataset: Dataset) -> dict[str, Any]:
        """The arguments `steps`, `images` and `prepare` of `make` of settings in `jnas.oneshot.METHODS`."""
        return {
            "steps": self.steps(dataset),
            "images": len(dataset.x_train),
            "prepare": transforms.preparation(dataset, self.augment),
        }


def hold_out(dataset: Dataset, seed: int, share: float) -> Split:
    """The training images without a share of each class, and that share."""
    train, held = stratified_split(dataset.y_train, seed, share)
    kept = replace(dataset, x_train=dataset.x_train[train], y_train=dataset.y_train[train])
    return Split(kept, dataset.x_train[held], dataset.y_train[held])


def train_supernet(
    method: OneShot,
    split: Split,
    budget: Budget,
    keys: tuple[Key, Key],
    advance: Advance,
    *,
    stage: str = "supernet",
    start: State | None = None,
    folder: RunFolder | None = None,
    drop: Callable[[State], Array] | None = None,
    groups: tuple[str, ...] = (),
    diverged: str = "",
) -> State:
    """The state of `method` after training on a split, from the checkpoint of this stage where there is one.

    Args:
      keys: of the weights; of the order of the images and of the steps.
      start: the first state, in place of `method.init`.
      folder: where every epoch's means go to the records and states to `checkpoints/<stage>`; None stores nothing.
      drop: state -> drop probabilities [G] of `groups`, for the records.
      diverged: as for `jnas.run.fit.fit`, which has what is raised.

    Raises `InputError` when a batch does not fit the data.
    """
    images = len(split.dataset.x_train)
    if budget.batch > images:
        raise InputError(f"batch {budget.batch} does not fit: there are {images} training images")
    order_key, held_key, step_key = jax.random.split(keys[1], 3)
    train = stream.of_dataset(split.dataset)
    held = stream.of_dataset(replace(split.dataset, x_train=split.images, y_train=split.labels))

    def batches(first: int) -> Iterator[Any]:
        return zip(
            train.train(order_key, budget.batch, first, slice(None)),
            held.train(held_key, min(budget.batch, held.images), first, slice(None)),
            strict=True,
        )

    def note(epoch: Epoch, state: State) -> None:
        if folder is None:
            return
        drops = np.zeros(0) if drop is None else np.asarray(drop(state), np.float64)
        folder.records.add(
            [
                *epoch.evaluations(stage, stage, epoch.means),
                *(
                    Evaluation(
                        stage, groups[group], "drop_probability", epoch.number, group, float(p), "ok", 0.0
                    )
                    for group, p in enumerate(drops)
                ),
            ]
        )

    with contextlib.ExitStack() as stack:
        checkpoints = None
        if folder is not None:
            checkpoints = stack.enter_context(open_checkpoints(folder.path / "checkpoints" / stage))
        return fit(
            method.step, jax.jit(method.init)(keys[0]) if start is None else start, step_key, batches,
            epochs=budget.epochs, steps=images // budget.batch, advance=advance, end_epoch=note,
            checkpoints=checkpoints, diverged=diverged,
        )  # fmt: skip


def fixed_path(
    supernet: Supernet, settings: Uniform, split: Split, budget: Budget, architecture: np.ndarray
) -> OneShot:
    """The method that trains one architecture, int32[D], with weights in the supernet: tuning."""
    masks = supernet.masks_of(architecture[None])
    return uniform(supernet, settings, **budget.constants(split.dataset), draw=lambda key, images: masks)
