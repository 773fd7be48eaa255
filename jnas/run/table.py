"""A table of accuracies made by training: every distinct cell of a space, with several seeds, resumable.

Cells are trained by `jnas.estimators.batch_training`, as many side by side as the device likes, in a fixed random order
of the space's distinct cells: a table of a thousand cells grows to one of all by the same command with more. What is
done is in a journal beside the table, as for `jnas score`, and the same executors do it.
"""

import itertools
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from msgspec import Meta
from scipy.stats import kendalltau

from jnas import data as datasets
from jnas import spaces
from jnas.config import read
from jnas.config.read import whole_numbers
from jnas.errors import InputError
from jnas.estimators import batch_training, compact_table, official_tables
from jnas.estimators.compact_table import Table
from jnas.nets import networks
from jnas.nets.sizes import Macro
from jnas.run.evaluate import Evaluator
from jnas.run.executors import runner
from jnas.run.progress import Progress
from jnas.run.score import of_shard
from jnas.settings import Batch, CellsPerStage, Channels, Data, LearningRate, Settings, WeightDecay
from jnas.store.folder import write_file
from jnas.store.score_files import open_journal
from jnas.types import Candidates, Estimator, Key, Values, with_status


class TableConfig(Settings, frozen=True, kw_only=True):
    """Space, data and recipe of all trainings of a table."""

    space: Annotated[str, Meta(description="search space (jnas list spaces)")] = "nasbench201"
    data: Data = "digits"
    seed: Annotated[
        int, Meta(ge=0, le=2**32 - 1, description="seed of the order of the cells and of all trainings")
    ] = 0
    seeds: Annotated[
        int, Meta(ge=1, description="trainings of each cell, with weights and order of images of their own")
    ] = 3
    # One cell between a stem and a classifier, wide and briefly trained: there the cell decides, and the draw of the
    # weights little. In three stages of four channels and 12 epochs, two seeds agree by a Kendall tau of .2.
    channels: Channels = 32
    cells_per_stage: CellsPerStage = 1
    stages: Annotated[
        int, Meta(ge=1, description="stages, each with half the image and twice the channels")
    ] = 1
    epochs: Annotated[int, Meta(ge=1, description="epochs of a training")] = 5
    batch: Batch = 128
    learning_rate: LearningRate = 0.2
    weight_decay: WeightDecay = 5e-4
    curve: Annotated[
        str, Meta(description="epochs after which to measure, separated by commas; the last one is `epochs`")
    ] = "1,3,5"


from_mapping = partial(read.from_mapping, TableConfig)


def points(config: TableConfig) -> tuple[int, ...]:
    """The epochs after which accuracies are measured, ascending. Raises `InputError`."""
    found = whole_numbers(config.curve, "curve", 1)
    if found[-1] != config.epochs:
        raise InputError(
            f"curve is '{config.curve}': its last number must be that of the epochs, {config.epochs}"
        )
    return found


def estimator(config: TableConfig, dataset: datasets.Dataset) -> Estimator:
    """Test accuracies in percent after training: objectives `accuracy/SEED/EPOCH` for each seed and point.

    The key of an evaluation is not looked at: `config.seed` alone decides.
    """
    space = spaces.get(config.space)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1), config.seeds)

    def evaluate(key: Key, candidates: Candidates) -> Values:
        start = time.perf_counter()
        cells = np.asarray(candidates.architectures, np.int32)
        choices = np.asarray(space.choices(cells), np.int32)
        columns = [
            batch_training.accuracies(
                key, choices, dataset, space=space, epochs=config.epochs, batch=config.batch,
                learning_rate=config.learning_rate, weight_decay=config.weight_decay, channels=config.channels,
                cells_per_stage=config.cells_per_stage, stages=config.stages, evaluate_at=points(config),
            )
            for key in keys
        ]  # fmt: skip
        value = np.concatenate(columns, axis=1).astype(np.float64)
        return with_status(value, np.full(len(cells), (time.perf_counter() - start) / len(cells)))

    objectives = [f"accuracy/{seed}/{epoch}" for seed in range(config.seeds) for epoch in points(config)]
    return Estimator(tuple(objectives), evaluate, batch=batch_training.at_once())


def order(config: TableConfig) -> np.ndarray:
    """The distinct cells in the order in which they are trained: int32[A, D]."""
    space = spaces.get(config.space)
    every = space.all()
    distinct = np.unique(np.asarray(space.canonical(every)), axis=0)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    return np.asarray(distinct[np.asarray(jax.random.permutation(key, len(distinct)))])


def build(
    config: TableConfig,
    cells: int | None,
    out: str | Path,
    executor: str,
    progress: Progress,
    shard: str | None = None,
    merge: Sequence[str | Path] = (),
) -> Table:
    """Train the first `cells` cells (None: all) of `order(config)`, or those that are missing, and write the table.

    shard: `"2/8"` trains the second of eight parts; merge: the tables of finished shards, which are taken over. Raises
    `InputError` for sizes that do not fit, `RunError` when the disk is full; trained cells are kept.
    """
    path = Path(out)
    if path.suffix != ".npz":
        raise InputError(f"--out '{path}': give a file ending in .npz")
    run = runner(executor, partial(estimator, config, dataset := datasets.load(config.data)))
    trained, space = order(config), spaces.get(config.space)
    if config.batch > len(dataset.x_train):
        raise InputError(f"batch {config.batch} does not fit: there are {len(dataset.x_train)} images")
    if cells is not None and not 1 <= cells <= len(trained):
        raise InputError(f"cells is {cells}: give a number from 1 to {len(trained):,}, or all")
    trained = trained[:cells]
    texts, trained = of_shard(shard, [space.to_string(cell) for cell in trained], trained)
    trainings = estimator(config, dataset)
    with open_journal(path, config, merge) as journal:
        evaluate = Evaluator(trainings, space, journal, "table", run)
        missing = sum(
            any((text, name) not in evaluate.known for name in trainings.objectives) for text in texts
        )
        if missing:
            progress.say(
                f"training {missing:,} cells of {config.space} on {dataset.name}, {config.seeds} seeds of "
                f"{config.epochs} epochs each, {len(texts) - missing:,} done before"
            )
        with progress.task("training", len(texts), "cells") as advance:
            values = evaluate(jax.random.key(config.seed), 0, Candidates(architectures=trained), advance)

    # Accuracies by cell, seed and epoch, beside the sizes of the networks that were trained.
    macro = Macro(
        config.channels,
        config.cells_per_stage,
        config.stages,
        image=dataset.x_train.shape[1:],
        classes=dataset.classes,
    )
    accuracy = np.where(np.isfinite(values.value), values.value, np.nan).astype(np.float32)
    table = Table(
        config.space,
        dataset.name,
        trained,
        epochs=np.array(points(config), np.int32),
        accuracy=accuracy.reshape(len(trained), config.seeds, -1),
        seconds=(np.asarray(values.cost) / config.seeds).astype(np.float32),
        parameters=networks.sizes_of(space, macro, space.choices(trained)).params,
    )
    write_file(path, compact_table.to_bytes(table, path))
    return table


def import_published(path: str, data: str, epochs: str, out: str | Path, progress: Progress) -> Table:
    """The compact form of what NAS-Bench-201 or NATS-Bench publishes, written to `out`. Raises `InputError`."""
    if not epochs.isdecimal():
        raise InputError(f"--epochs is '{epochs}': give 12 or 200")
    if Path(out).suffix != ".npz":
        raise InputError(f"--out '{out}': give a file ending in .npz")
    with progress.task("reading", 15_625, "cells") as advance:
        done = 0

        def note(number: int, count: int) -> None:
            nonlocal done
            advance(number - done)
            done = number

        table = official_tables.read(path, data, int(epochs), note)
    write_file(Path(out), compact_table.to_bytes(table, out))
    return table


def described(table: Table) -> str:
    """Describe a table in some lines: sizes, the spread of accuracies, how far the seeds agree."""
    final, mean = table.accuracy[:, :, -1], table.mean()
    low, middle, high = np.nanpercentile(mean, [0, 50, 100])
    lines = [
        f"{len(table.architectures):,} cells of {table.space} on {table.data}, {final.shape[1]} seeds, measured after "
        f"{', '.join(map(str, table.epochs))} epochs",
        f"mean accuracy from {low:.2f} to {high:.2f} %, median {middle:.2f} %",
    ]
    pairs = list(itertools.combinations(range(final.shape[1]), 2))
    both = [np.isfinite(final[:, a]) & np.isfinite(final[:, b]) for a, b in pairs]
    taus = [
        float(kendalltau(final[ok, a], final[ok, b]).statistic)
        for (a, b), ok in zip(pairs, both, strict=True)
        if ok.sum() > 1
    ]
    if taus:
        lines.append(f"Kendall tau between two seeds: {np.mean(taus):.3f}")
    if np.isfinite(table.seconds).any():
        lines.append(f"{np.nansum(table.seconds) * final.shape[1] / 3600:.2f} hours of training")
    return "\n".join(lines) + "\n"
