"""The host loop of a training by a recipe: batches, progress, checkpoints, curves, going on after an interruption.

The folder of a training holds what the folder of a search holds, its weights in `checkpoints`, and in `tensorboard`
the curves as TensorBoard reads them. A state is stored every so many seconds, at any step: the same command goes on
from there and ends, bit for bit on the same device, as it would have ended.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jnas
from jnas import data as datasets
from jnas.data import stream, transforms
from jnas.errors import InputError
from jnas.estimators import recipe
from jnas.nets import darts_macro, trainable
from jnas.study.progress import Progress
from jnas.study.records import Evaluation, RunError
from jnas.study.run_folder import RunFolder, open_run
from jnas.study.train_config import RecipeConfig, TrainConfig, from_mapping

log = logging.getLogger("jnas")
# Batches that stand ready while a step runs.
AHEAD = 2
CURVES = ("train_loss", "train_accuracy", "test_accuracy")


def run(config: TrainConfig, out: str | Path, progress: Progress) -> dict[str, Any]:
    """Train as `config` says in the folder `out`, or go on where an earlier call was interrupted.

    Returns what result.json holds. Raises `InputError` for a configuration that cannot be run, before anything is
    written, and `RunError` when the machine gives up or the loss is not finite.
    """
    text, space = architecture_of(config)
    data = (
        stream.of_folder(config.data, config.stream)
        if config.stream
        else stream.of_dataset(datasets.load(config.data))
    )
    batch = config.recipe.batch
    if batch > data.images:
        raise InputError(
            f"recipe.batch {batch} does not fit: '{data.name}' has {data.images} training images"
        )
    network = network_of(config, text, space, data)
    with open_run(out, config, from_mapping) as folder:
        try:
            return _run(config, text, space, data, network, folder, progress)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise RunError("out of memory: lower recipe.batch, and give another --out") from error
            raise


def architecture_of(config: TrainConfig) -> tuple[str, str]:
    """The architecture's text and its space, from the configuration or the finished search that it names."""
    if not config.arch:
        raise InputError("no architecture: add --arch with its text, or with the folder of a finished search")
    path = Path(config.arch)
    if "(" in config.arch or "|" in config.arch or not (path / "result.json").exists():
        return config.arch, config.space
    try:
        found = json.loads((path / "result.json").read_text(encoding="utf-8"))
        return str(found["architecture"]), str(found["space"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read '{path / 'result.json'}' ({error}): give a finished search") from None


def network_of(config: TrainConfig, text: str, space: str, data: stream.Stream) -> trainable.Trainable:
    """The network to train on `data`. Raises `InputError` as `trainable.of_architecture` does."""
    auxiliary = bool(config.recipe.auxiliary) and space == "darts"
    return trainable.of_architecture(
        space, text, data.image, data.classes, config.channels, config.cells_per_stage, auxiliary
    )


def recipe_of(settings: RecipeConfig, data: stream.Stream) -> recipe.Recipe:
    """The recipe of a configuration; images that would not bear it are not shifted and mirrored."""
    names = recipe.Recipe.__dataclass_fields__
    values = {name: getattr(settings, name) for name in names}
    return recipe.Recipe(**values | {"augment": settings.augment and data.augmentable})


def sharding_of(batch: int) -> NamedSharding | None:
    """How a batch is shared by the devices of this process; None where it is not."""
    devices = jax.local_devices()
    while batch % len(devices):
        devices = devices[:-1]
    return (
        NamedSharding(Mesh(np.array(devices), ("images",)), PartitionSpec("images"))
        if len(devices) > 1
        else None
    )


def ahead(batches: Iterator[Any], place: Callable[[Any], Any]) -> Generator[Any, None, None]:
    """The batches, put on the devices by `place` in a thread while earlier ones are worked on."""
    ready: queue.Queue[Any] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in batches:
                if stopped.is_set():
                    return
                put((place(item), None))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()


def _run(
    config: TrainConfig,
    text: str,
    space: str,
    data: stream.Stream,
    network: trainable.Trainable,
    folder: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    settings = config.recipe
    each = data.images // settings.batch
    total = settings.epochs * each
    init_key, run_key, order_key = jax.random.split(jax.random.key(config.seed), 3)
    trainer = recipe.make(
        network,
        recipe_of(settings, data),
        run_key,
        steps=total,
        normalise=partial(transforms.standardise, mean=data.mean, std=data.std),
    )
    sharding = sharding_of(settings.batch)

    def place(item: tuple[np.ndarray, np.ndarray]) -> tuple[Array, Array]:
        return jax.device_put(item, sharding) if sharding is not None else jax.device_put(item)

    state = jax.jit(trainer.init)(init_key)
    if sharding is not None:
        state = jax.device_put(state, NamedSharding(sharding.mesh, PartitionSpec()))
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    size = darts_macro.parameters(state.params)
    progress.say(
        f"training {space} network of {size:,} parameters on {data.images:,} images of {data.name}: "
        f"{settings.epochs} epochs of {each} steps of {settings.batch} images"
    )
    with (
        ocp.CheckpointManager((folder.path / "checkpoints").absolute(), options=options) as checkpoints,
        progress.task("training", total, "steps") as advance,
    ):
        state = _restore(checkpoints, state, folder.path)
        done = int(state.step)
        advance(done)
        seed = int(jax.random.bits(order_key, dtype=jnp.uint32)) >> 1
        batches = ahead(data.train(seed, settings.batch, done), place)
        stored, began, waited = time.monotonic(), time.perf_counter(), 0.0
        try:
            for number in range(done, total):
                if number % each == 0:
                    state = trainer.begin_epoch(state)
                before = time.perf_counter()
                x, y = next(batches)
                waited += time.perf_counter() - before
                state = trainer.step(state, x, y)
                advance(1)
                last = number + 1 == total
                if (number + 1) % config.log_steps == 0 or last:
                    _require_finite(state, folder.path, checkpoints.latest_step())
                if (number + 1) % each == 0:
                    _note_epoch(config, data, trainer, state, number // each, folder, place, began, waited)
                    began, waited = time.perf_counter(), 0.0
                if last or time.monotonic() - stored > config.checkpoint_seconds:
                    _store(checkpoints, number + 1, state, folder.path)
                    stored = time.monotonic()
        finally:
            batches.close()
    result = _result(config, text, space, data, size, folder)
    folder.write_result(result)
    return result


def _restore(checkpoints: Any, state: recipe.State, path: Path) -> recipe.State:
    """The last stored state that can be read, or the one given where there is none."""
    import orbax.checkpoint as ocp

    steps = sorted(checkpoints.all_steps(), reverse=True)
    for place, step in enumerate(steps):
        try:
            restored: recipe.State = checkpoints.restore(step, args=ocp.args.StandardRestore(state))
        except Exception as error:
            log.warning("the state of step %d cannot be read (%s)", step, type(error).__name__)
            continue
        for unreadable in steps[:place]:
            # In the way of the one that will be stored in its place.
            checkpoints.delete(unreadable)
        return restored
    if steps:
        raise RunError(
            f"no state in '{path / 'checkpoints'}' can be read, or they are of another network: remove that folder "
            "to begin anew, or give another --out"
        )
    return state


def _store(checkpoints: Any, step: int, state: recipe.State, path: Path) -> None:
    import orbax.checkpoint as ocp

    _require_finite(state, path, checkpoints.latest_step())
    try:
        checkpoints.save(step, args=ocp.args.StandardSave(state), force=True)
    except Exception as error:
        raise RunError(
            f"cannot store the state in '{path / 'checkpoints'}' ({type(error).__name__}): make room there, then run "
            "the same command again"
        ) from error


def _require_finite(state: recipe.State, path: Path, kept: int | None) -> None:
    if not np.isfinite(float(state.loss)):
        good = f"the last good state, of step {kept}, is kept" if kept else "no state was stored before"
        raise RunError(
            f"the loss is not finite at step {int(state.step)}: lower recipe.learning_rate and give another --out "
            f"({good} in '{path}')"
        )


def _note_epoch(
    config: TrainConfig,
    data: stream.Stream,
    trainer: recipe.Trainer,
    state: recipe.State,
    epoch: int,
    folder: RunFolder,
    place: Callable[[Any], Any],
    began: float,
    waited: float,
) -> None:
    """The epoch's curves to the records, the log and TensorBoard."""
    batch = config.recipe.batch
    images = data.images // batch * batch
    loss, hits = float(state.loss) / images, 100 * float(state.hits) / images
    seconds = time.perf_counter() - began
    right = sum(int(trainer.right(state, *place(part))) for part in data.test(batch))
    values = dict(zip(CURVES, (loss, hits, 100 * right / data.tests), strict=True))
    folder.records.add(
        Evaluation("training", epoch, 0, 0, name, "network", value, seconds / len(values))
        for name, value in values.items()
    )
    rate = images / seconds
    log.info(
        "epoch %d: loss %.4f, right %.2f %%, of test images %.2f %%; %.0f images/s, waited for them %.1f %%",
        epoch + 1, loss, hits, values["test_accuracy"], rate, 100 * waited / seconds,
    )  # fmt: skip
    _tensorboard(folder.path / "tensorboard", int(state.step), {**values, "images_per_second": rate})


def _tensorboard(path: Path, step: int, values: dict[str, float]) -> None:
    """Append to event files, where TensorBoard is installed."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return
    writer = EventFileWriter(str(path))
    scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
    writer.close()


def _result(
    config: TrainConfig, text: str, space: str, data: stream.Stream, size: int, folder: RunFolder
) -> dict[str, Any]:
    records = folder.records.all()
    curves = {name: [e.value for e in records if e.proxy == name] for name in CURVES}
    return {
        "jnas": jnas.__version__,
        "space": space,
        "architecture": text,
        "seed": config.seed,
        "data": data.name,
        "image": list(data.image),
        "classes": data.classes,
        "mean": np.asarray(data.mean).tolist(),
        "std": np.asarray(data.std).tolist(),
        "parameters": size,
        "epochs": config.recipe.epochs,
        "test_accuracy": curves["test_accuracy"][-1],
        "curves": curves,
        "seconds": sum(e.seconds for e in records),
    }
