"""A table of accuracies made by training: every distinct cell of a space, with several seeds, resumable.

Cells are trained by `jnas.estimators.batch_training`, as many side by side as the device likes, in a fixed random order
of the space's distinct cells: a table of a thousand cells grows to one of all by the same command with more. What is
done is in a journal beside the table, as for `jnas score`, and the same executors do it.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from jax.sharding import Mesh
from msgspec import Meta
from scipy.stats import kendalltau

from jnas import data as datasets
from jnas import spaces
from jnas.config import read
from jnas.config.read import whole_numbers
from jnas.config.score import digest
from jnas.errors import InputError, unknown_name
from jnas.estimators import batch_training, compact_table, official_tables
from jnas.estimators.compact_table import Table
from jnas.nets.cost import Macro
from jnas.nets.families import FAMILIES
from jnas.parallel import AXIS
from jnas.run.executors import EXECUTORS, run_chunks, worker_count
from jnas.run.processes import Everyone, together
from jnas.run.progress import Progress
from jnas.run.scoring import SCORES
from jnas.settings import Data, Settings
from jnas.store.folder import write_file
from jnas.store.score_files import open_journal

# Architectures side by side on an accelerator, whose memory holds many small networks.
WIDTH_ON_ACCELERATOR = 64
# Cells in one call of the program for each device of a CPU: few, so that little is lost by a kill.
CELLS_PER_DEVICE = 4


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
    channels: Annotated[int, Meta(ge=1, description="channels of the first stage")] = 32
    cells_per_stage: Annotated[int, Meta(ge=1, description="cells in each stage")] = 1
    stages: Annotated[
        int, Meta(ge=1, description="stages, each with half the image and twice the channels")
    ] = 1
    epochs: Annotated[int, Meta(ge=1, description="epochs of a training")] = 5
    batch: Annotated[int, Meta(ge=1, description="images in a batch")] = 128
    learning_rate: Annotated[float, Meta(gt=0, description="largest learning rate of the cosine")] = 0.2
    weight_decay: Annotated[float, Meta(ge=0, description="weight decay")] = 5e-4
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


def names(config: TableConfig) -> tuple[str, ...]:
    """What is measured of each cell, as the journal calls it."""
    trainings = [f"accuracy_{seed}_{epoch}" for seed in range(config.seeds) for epoch in points(config)]
    return (*trainings, "seconds")


def chunk_size(devices: Sequence[jax.Device]) -> int:
    """How many cells one call of `chunk_trainer`'s function takes."""
    return len(devices) * (CELLS_PER_DEVICE if devices[0].platform == "cpu" else WIDTH_ON_ACCELERATOR)


def chunk_trainer(
    config: TableConfig, wanted: Sequence[str], dataset: datasets.Dataset, everyone: Everyone | None = None
) -> Any:
    """A function from architectures int32[B, D] to `{name: (float64[B], statuses)}`, all on this process's devices.

    Of several processes each trains its share of the architectures.
    """
    space, devices = spaces.get(config.space), jax.local_devices()
    mesh = Mesh(np.array(devices), (AXIS,)) if len(devices) > 1 else None
    width = 1 if devices[0].platform == "cpu" else WIDTH_ON_ACCELERATOR
    size = chunk_size(devices)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1), config.seeds)

    def train(architectures: np.ndarray) -> dict[str, np.ndarray]:
        filled = architectures[np.arange(size) % len(architectures)]
        choices = np.argmax(np.asarray(space.gates(filled)), axis=-1).astype(np.int32)
        values: dict[str, np.ndarray] = {}
        start = time.perf_counter()
        for seed, key in enumerate(keys):
            accuracy = batch_training.accuracies(
                key,
                choices,
                dataset,
                epochs=config.epochs,
                batch=config.batch,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                channels=config.channels,
                cells_per_stage=config.cells_per_stage,
                stages=config.stages,
                evaluate_at=points(config),
                width=width,
                mesh=mesh,
            )
            for place, epoch in enumerate(points(config)):
                column = np.asarray(accuracy[:, place], np.float64)
                values[f"accuracy_{seed}_{epoch}"] = column[: len(architectures)]
        each = (time.perf_counter() - start) / (size * config.seeds)
        return values | {"seconds": np.full(len(architectures), each)}

    def score(architectures: np.ndarray) -> SCORES:
        parts = [architectures]
        if everyone is not None:
            parts = np.array_split(architectures, jax.process_count())
        own = parts[jax.process_index() if everyone is not None else 0]
        values = {name: np.zeros(0) for name in wanted}
        for start in range(0, len(own), size):
            part = train(own[start : start + size])
            values = {name: np.concatenate([values[name], part[name]]) for name in wanted}
        if everyone is not None:
            said = everyone({name: column.tolist() for name, column in values.items()})
            values = {name: np.concatenate([np.array(answer[name]) for answer in said]) for name in wanted}
        return {
            name: (column, ["ok" if ok else "not_finite" for ok in np.isfinite(column)])
            for name, column in values.items()
        }

    return score


def order(config: TableConfig) -> np.ndarray:
    """The distinct cells in the order in which they are trained: int32[A, D]."""
    space = spaces.get(config.space)
    every = space.all()
    distinct = np.unique(np.asarray(space.canonical(every)), axis=0)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    return np.asarray(distinct[np.asarray(jax.random.permutation(key, len(distinct)))])


def build(
    config: TableConfig, cells: int | None, out: str | Path, executor: str, progress: Progress
) -> Table:
    """Train the first `cells` cells (None: all) of `order(config)`, or what of them is missing, and write the table.

    Raises `InputError` for what does not fit, `RunError` when the disk is full; what was trained is kept.
    """
    path = Path(out)
    if path.suffix != ".npz":
        raise InputError(f"--out '{path}': give a file ending in .npz")
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    dataset, wanted, trained = datasets.load(config.data), names(config), order(config)
    if config.batch > len(dataset.x_train):
        raise InputError(f"batch {config.batch} does not fit: there are {len(dataset.x_train)} images")
    if cells is not None and not 1 <= cells <= len(trained):
        raise InputError(f"cells is {cells}: give a number from 1 to {len(trained):,}, or all")
    space, trained = spaces.get(config.space), trained[:cells]
    texts = [space.to_string(cell) for cell in trained]
    with together() as everyone:
        first = jax.process_index() == 0
        if everyone is not None and len(set(everyone(f"{digest(config)} {len(trained)}"))) > 1:
            raise InputError("the processes were asked for different tables: give all the same command")
        if not first:
            known = everyone(None)[0] if everyone is not None else {}
            _train(config, dataset, trained, texts, known, executor, everyone, None, Progress(quiet=True))
            return _table(config, dataset, trained, texts, known)
        with open_journal(path, config) as journal:
            known = journal.read(wanted)
            if everyone is not None:
                everyone(known)
            _train(config, dataset, trained, texts, known, executor, everyone, journal, progress)
        table = _table(config, dataset, trained, texts, known)
        write_file(path, compact_table.to_bytes(table, path))
        return table


def _train(
    config: TableConfig,
    dataset: datasets.Dataset,
    trained: np.ndarray,
    texts: list[str],
    known: dict[str, dict[str, Any]],
    executor: str,
    everyone: Everyone | None,
    journal: Any,
    progress: Progress,
) -> None:
    """Train what `known` lacks, into it and the journal."""
    wanted = names(config)
    missing = [row for row, text in enumerate(texts) if len(known.get(text, {})) < len(wanted)]
    if not missing:
        return
    size = chunk_size(jax.devices())
    chunks = [missing[start : start + size] for start in range(0, len(missing), size)]
    progress.say(
        f"training {len(missing):,} cells of {config.space} on {dataset.name}, {config.seeds} seeds of "
        f"{config.epochs} epochs each, {len(texts) - len(missing):,} done before"
    )
    laps: list[float] = []
    start, workers = time.perf_counter(), 1
    with progress.task("training", len(missing), "cells") as advance:
        arrays = [trained[rows] for rows in chunks]
        for index, scores in run_chunks(executor, config, wanted, dataset, arrays, everyone, chunk_trainer):
            laps.append(time.perf_counter() - start)
            workers = worker_count(executor, len(chunks)) if len(laps) == 1 else workers
            rows = [
                (texts[row], name, float(scores[name][0][place]), scores[name][1][place])
                for place, row in enumerate(chunks[index])
                for name in wanted
            ]
            if journal is not None:
                journal.add(rows)
            for text, name, value, status in rows:
                known.setdefault(text, {})[name] = (value, status)
            advance(len(chunks[index]), preparing=len(laps) <= workers)
            if len(laps) == 2:
                each = (laps[1] - laps[0]) / size
                progress.say(f"{1 / each:.2f} cells/s, about {each * (len(missing) - 2 * size):.0f} s left")


def _table(
    config: TableConfig,
    dataset: datasets.Dataset,
    trained: np.ndarray,
    texts: list[str],
    known: Mapping[str, Mapping[str, Any]],
) -> Table:
    at = points(config)
    accuracy = np.array(
        [
            [[known[text][f"accuracy_{seed}_{epoch}"][0] for epoch in at] for seed in range(config.seeds)]
            for text in texts
        ],
        np.float32,
    )
    seconds = np.array([known[text]["seconds"][0] for text in texts], np.float32)
    macro = Macro(
        config.channels, config.cells_per_stage, config.stages, dataset.x_train.shape[1:], dataset.classes
    )
    counted = FAMILIES[config.space].params(spaces.get(config.space).choices(trained), macro)
    return Table(config.space, dataset.name, trained, np.array(at, np.int32), accuracy, seconds, counted)


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
    """What a table holds, in some lines: sizes, the spread of accuracies, how far the seeds agree."""
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
