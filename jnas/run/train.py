"""Trainings of single architectures: `jnas train`, and the trainings that end a search.

The folder of a training holds what the folder of a search holds, its weights in `checkpoints`, and in `tensorboard`
the curves as TensorBoard reads them.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from msgspec.structs import replace

import jnas
from jnas import data as datasets
from jnas.config.read import digest
from jnas.config.train import TrainConfig
from jnas.data import stream, transforms
from jnas.errors import InputError, RunError
from jnas.estimators import training
from jnas.estimators.settings import NASBENCH201, Recipe, Training
from jnas.nets import sizes, trainable
from jnas.parallel import out_of_memory
from jnas.run.fit import Epoch, data_sharding, fit, rows_here
from jnas.run.processes import together
from jnas.run.progress import Advance, Progress
from jnas.spaces import SPACES, Space
from jnas.store.checkpoints import Checkpoints, open_checkpoints
from jnas.store.folder import FORMAT, RunFolder, open_run
from jnas.types import Key

log = logging.getLogger("jnas")
CURVES = ("train_loss", "train_accuracy", "test_accuracy")


def train_network(
    network: trainable.Trainable,
    recipe: Recipe,
    data: stream.Stream,
    keys: tuple[Key, Key, Key],
    *,
    evaluation_batch: int,
    advance: Advance,
    end_epoch: Callable[[Epoch, dict[str, float]], None],
    checkpoints: Checkpoints | None,
    checkpoint_seconds: float = 15.0,
    diverged: str = "",
) -> None:
    """Train `network` on `data` and evaluate it after every epoch.

    keys: of the weights, of the steps, of the order of the images.
    end_epoch: called with each epoch and its values by the names in `CURVES`; accuracies in percent.
    All else as for `jnas.run.fit.fit`.
    """
    steps, rows, sharding = data.images // recipe.batch, rows_here(recipe.batch), data_sharding(recipe.batch)
    test_rows, test_sharding = rows_here(evaluation_batch), data_sharding(evaluation_batch)
    normalise = partial(transforms.standardise, mean=data.mean, std=data.std)
    recipe = replace(recipe, augment=recipe.augment and data.augmentable)
    trainer = training.trainer(network, recipe, steps=recipe.epochs * steps, normalise=normalise)
    right = jax.jit(trainer.right)

    def place(parts: tuple[np.ndarray, np.ndarray], sharding: Any) -> tuple[Array, Array]:
        x, y = (jax.make_array_from_process_local_data(sharding, part) for part in parts)
        return x, y

    def batches(first: int) -> Iterator[tuple[Any, None]]:
        for parts in data.train(keys[2], recipe.batch, first, rows):
            yield place(parts, sharding), None

    def evaluate(epoch: Epoch, state: training.State) -> None:
        parts = data.test(evaluation_batch, test_rows)
        hits = sum(int(right(state, *place(part, test_sharding))) for part in parts)
        end_epoch(epoch, {**epoch.means, "test_accuracy": 100 * hits / data.tests})

    fit(
        trainer.step, jax.jit(trainer.init)(keys[0]), keys[1], batches, epochs=recipe.epochs, steps=steps,
        advance=advance, end_epoch=evaluate, checkpoints=checkpoints,
        checkpoint_seconds=checkpoint_seconds, diverged=diverged, sharding=sharding,
    )  # fmt: skip


def check(config: Training, space: Space, dataset: datasets.Dataset) -> None:
    """Raise `InputError` where networks of the space cannot be trained on the images by these settings."""
    if space.name not in SPACES:
        raise InputError(
            f"networks of '{space.name}' cannot be trained at the end of a search, only those of "
            f"{' and '.join(SPACES)}: set training none"
        )
    images = len(dataset.x_train)
    if config.batch > images:
        raise InputError(
            f"training.batch {config.batch} does not fit: '{dataset.name}' has {images} training images"
        )


def train_architectures(
    config: Training,
    dataset: datasets.Dataset,
    architectures: np.ndarray,
    key: Key,
    folder: RunFolder,
    progress: Progress,
    space: Space,
) -> dict[str, Any]:
    """Train each of int32[B, D] alike; returns the `training` part of result.json, the found cell first.

    Every epoch's test accuracy and loss go to the records, weights to `checkpoints/<index>` of the folder.
    """
    data, rows = stream.of_dataset(dataset), []
    recipe = replace(
        NASBENCH201, epochs=config.epochs, batch=config.batch, learning_rate=config.learning_rate,
        weight_decay=config.weight_decay, augment=config.augment,
    )  # fmt: skip
    steps = config.epochs * (data.images // config.batch)
    progress.say(
        f"training the found cell and {len(architectures) - 1} random cells for {config.epochs} epochs each"
    )

    def stored(place: int, name: str) -> list[float]:
        """One value an epoch, of the architecture at a place."""
        records = folder.records.all()
        return [e.value for e in records if (e.stage, e.place, e.objective) == ("training", place, name)]

    def note(epoch: Epoch, values: dict[str, float], text: str, place: int) -> None:
        values = {name: values[name] for name in ("train_loss", "test_accuracy")}
        folder.records.add(epoch.evaluations("training", text, values, place))

    with progress.task("training", len(architectures) * steps, "steps") as advance:
        for place, architecture in enumerate(architectures):
            text = space.to_string(architecture)
            if len(stored(place, "test_accuracy")) == config.epochs:
                advance(steps, preparing=True)
            else:
                network = trainable.of_architecture(
                    space.name, text, data.image, data.classes, config.channels, config.cells_per_stage
                )
                init_key, run_key = jax.random.split(jax.random.fold_in(key, place))
                order_key, step_key = jax.random.split(run_key)
                with open_checkpoints(folder.path / "checkpoints" / str(place)) as checkpoints:
                    train_network(
                        network, recipe, data, (init_key, step_key, order_key),
                        evaluation_batch=min(training.EVALUATION_BATCH, data.tests), advance=advance,
                        end_epoch=partial(note, text=text, place=place), checkpoints=checkpoints,
                    )  # fmt: skip
            accuracy, loss = stored(place, "test_accuracy"), stored(place, "train_loss")
            row = {"test_accuracy_by_epoch": accuracy, "train_loss_by_epoch": loss}
            rows.append({"architecture": text, "test_accuracy": accuracy[-1], **row})
    return {"epochs": config.epochs, "found": rows[0], "random": rows[1:]}


def run(config: TrainConfig, out: str | Path, progress: Progress) -> dict[str, Any]:
    """Train as `config` says in the folder `out`, or go on where an earlier call was interrupted.

    Returns what result.json holds. After `jax.distributed.initialize` all its processes call this alike, and the
    first alone uses `out`. Raises `InputError` for a configuration that cannot be run, before anything is written, and
    `RunError` when the machine gives up or the loss is not finite.
    """
    # Read and check everything before anything is written.
    text, space = architecture_and_space(config)
    if config.stream:
        data = stream.of_folder(config.data, config.stream)
    else:
        data = stream.of_dataset(datasets.load(config.data))
    batch = config.recipe.batch
    if batch > data.images:
        raise InputError(
            f"recipe.batch {batch} does not fit: '{data.name}' has {data.images} training images"
        )
    if batch % jax.process_count():
        raise InputError(
            f"recipe.batch {batch} does not fit: {jax.process_count()} processes take equal shares of it"
        )
    auxiliary = bool(config.recipe.auxiliary) and space == "darts"
    network = trainable.of_architecture(
        space, text, data.image, data.classes, config.channels, config.cells_per_stage, auxiliary
    )
    parameters = sizes.parameters(trainable.shapes(network)[0])

    # All processes train; the first has the folder.
    with together() as everyone, contextlib.ExitStack() as stack:
        if everyone is not None and len(set(everyone(digest(config)))) > 1:
            raise InputError("the processes were given different configurations: give all the same command")
        folder = stack.enter_context(open_run(out, config)) if jax.process_index() == 0 else None
        progress = Progress(quiet=True) if folder is None else progress
        try:
            _train(config, data, network, folder, progress, f"{space} network of {parameters:,} parameters")
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise RunError("out of memory: lower recipe.batch, and give another --out") from error
            if everyone is not None:
                raise RunError(
                    f"the other processes cannot be reached ({' '.join(str(error).split())[:200]}): run the same "
                    "command again in all of them"
                ) from error
            raise
        result: dict[str, Any] = {}
        if folder is not None:
            records = folder.records.all()
            curves = {name: [e.value for e in records if e.objective == name] for name in CURVES}
            result = {
                "kind": "training",
                "format": FORMAT,
                "jnas": jnas.__version__,
                "space": space,
                "architecture": text,
                "seed": config.seed,
                "data": data.name,
                "image": list(data.image),
                "classes": data.classes,
                "mean": np.asarray(data.mean).tolist(),
                "std": np.asarray(data.std).tolist(),
                "parameters": parameters,
                "epochs": config.recipe.epochs,
                "test_accuracy": curves["test_accuracy"][-1],
                "curves": curves,
                "seconds": sum(e.seconds for e in records),
            }
            folder.write_result(result)
        return result if everyone is None else dict(everyone(result)[0])


def architecture_and_space(config: TrainConfig) -> tuple[str, str]:
    """The architecture's text and its space, from the configuration or the finished search that it names."""
    if not config.arch:
        raise InputError("no architecture: add --arch with its text, or with the folder of a finished search")
    path = Path(config.arch)
    if "(" in config.arch or "|" in config.arch or not (path / "result.json").exists():
        return config.arch, config.space
    try:
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        return str(result["architecture"]), str(result["space"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read '{path / 'result.json'}' ({error}): give a finished search") from None


def _train(
    config: TrainConfig,
    data: stream.Stream,
    network: trainable.Trainable,
    folder: RunFolder | None,
    progress: Progress,
    title: str,
) -> None:
    """Train to the end. folder: None in all processes but the first; title: of the network, for the first line."""
    recipe, batch = config.recipe, config.recipe.batch
    steps = data.images // batch
    init_key, run_key, order_key = jax.random.split(jax.random.key(config.seed), 3)
    data_key = jax.random.key(int(jax.random.bits(order_key, dtype=jnp.uint32)) >> 1)
    devices = data_sharding(batch).mesh.size
    progress.say(
        f"training {title} on {data.images:,} images of {data.name}: {recipe.epochs} epochs of {steps} steps of "
        f"{batch} images{f' on {devices} devices' if devices > 1 else ''}"
    )
    with contextlib.ExitStack() as stack:
        checkpoints, scalars = None, None
        if folder is not None:
            checkpoints = stack.enter_context(open_checkpoints(folder.path / "checkpoints"))
            scalars = stack.enter_context(_tensorboard(folder.path / "tensorboard"))
        advance = stack.enter_context(progress.task("training", recipe.epochs * steps, "steps"))

        def note(epoch: Epoch, values: dict[str, float]) -> None:
            if folder is None or scalars is None:
                return
            curves = {name: values[name] for name in CURVES}
            folder.records.add(epoch.evaluations("training", "network", curves))
            rate = steps * batch / epoch.seconds
            log.info(
                "epoch %d: loss %.4f, right %.2f %%, of test images %.2f %%; %.0f images/s, waited for them %.1f %%",
                epoch.number + 1, *curves.values(), rate, 100 * epoch.waited / epoch.seconds,
            )  # fmt: skip
            scalars((epoch.number + 1) * steps, {**values, "images_per_second": rate})

        train_network(
            network, recipe, data, (init_key, run_key, data_key), evaluation_batch=batch, advance=advance,
            end_epoch=note, checkpoints=checkpoints, checkpoint_seconds=config.checkpoint_seconds,
            diverged="the loss is not finite at step {step}: lower recipe.learning_rate",
        )  # fmt: skip


@contextlib.contextmanager
def _tensorboard(path: Path) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function that appends `(step, values)` to an event file in `path`; it does nothing without tensorboardX."""
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar
    except ImportError:
        yield lambda step, values: None
        return
    path.mkdir(exist_ok=True)
    # Without the thread of a `SummaryWriter`, which a full disk ends so that closing it waits for ever.
    writer = EventsWriter(str(path / "events"))

    def write(step: int, values: dict[str, float]) -> None:
        try:
            for name, value in values.items():
                writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            writer.flush()
        except OSError as error:
            log.warning("cannot write '%s' (%s)", path, error.strerror)

    try:
        yield write
    finally:
        with contextlib.suppress(OSError):
            writer.close()
