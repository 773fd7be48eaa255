"""The host loop of a training by a recipe: batches, progress, checkpoints, curves, going on after an interruption.

The folder of a training holds what the folder of a search holds, its weights in `checkpoints`, and in `tensorboard`
the curves as TensorBoard reads them. A state is stored every so many seconds, at any step: the same command goes on
from there and ends, bit for bit on the same devices, as it would have ended.

All devices share each batch. Of several processes (`jnas.run.processes`) each reads its own rows of it; the first
has the folder, and tells the others where to go on.
"""

import contextlib
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
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jnas
from jnas import data as datasets
from jnas.config.read import digest
from jnas.config.train import RecipeConfig, TrainConfig
from jnas.data import stream, transforms
from jnas.errors import InputError, RunError
from jnas.estimators import recipe
from jnas.nets import darts_macro, trainable
from jnas.run.processes import together
from jnas.run.progress import Progress
from jnas.store import checkpoints as stored_states
from jnas.store.folder import FORMAT, RunFolder, open_run
from jnas.store.records import Evaluation

log = logging.getLogger("jnas")
# Batches that stand ready while a step runs.
AHEAD = 2
CURVES = ("train_loss", "train_accuracy", "test_accuracy")


def run(config: TrainConfig, out: str | Path, progress: Progress) -> dict[str, Any]:
    """Train as `config` says in the folder `out`, or go on where an earlier call was interrupted.

    Returns what result.json holds. After `jax.distributed.initialize` all its processes call this alike, and the
    first alone uses `out`. Raises `InputError` for a configuration that cannot be run, before anything is written, and
    `RunError` when the machine gives up or the loss is not finite.
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
    if batch % jax.process_count():
        raise InputError(
            f"recipe.batch {batch} does not fit: {jax.process_count()} processes take equal shares of it"
        )
    network = network_of(config, text, space, data)
    with together() as everyone, contextlib.ExitStack() as stack:
        if everyone is not None and len(set(everyone(digest(config)))) > 1:
            raise InputError("the processes were given different configurations: give all the same command")
        first = jax.process_index() == 0
        folder = stack.enter_context(open_run(out, config)) if first else None
        try:
            _run(config, space, data, network, folder, progress if first else Progress(quiet=True))
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise RunError("out of memory: lower recipe.batch, and give another --out") from error
            if everyone is not None:
                raise RunError(
                    f"the other processes cannot be reached ({' '.join(str(error).split())[:200]}): run the same "
                    "command again in all of them"
                ) from error
            raise
        result = {}
        if folder is not None:
            result = _result(config, text, space, data, network, folder)
            folder.write_result(result)
        return result if everyone is None else dict(everyone(result)[0])


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


def sharding_of(batch: int) -> NamedSharding:
    """How a batch is shared by as many devices of each process as it can be: B images along the axis `images`."""
    processes = jax.process_count()
    each = jax.local_device_count()
    while batch % (each * processes):
        each -= 1
    by_process: dict[int, list[Any]] = {number: [] for number in range(processes)}
    for device in sorted(jax.devices(), key=lambda device: device.id):
        by_process[device.process_index].append(device)
    devices = [device for own in by_process.values() for device in own[:each]]
    return NamedSharding(Mesh(np.array(devices), ("images",)), PartitionSpec("images"))


def share_of(batch: int) -> slice:
    """The rows of a batch that lie on devices of this process."""
    own = batch // jax.process_count()
    return slice(jax.process_index() * own, (jax.process_index() + 1) * own)


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
    space: str,
    data: stream.Stream,
    network: trainable.Trainable,
    folder: RunFolder | None,
    progress: Progress,
) -> None:
    """Train to the end. folder: None in all processes but the first."""
    settings, rows = config.recipe, share_of(config.recipe.batch)
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
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())

    def place(item: tuple[np.ndarray, np.ndarray]) -> tuple[Array, Array]:
        x, y = (jax.make_array_from_process_local_data(sharding, part) for part in item)
        return x, y

    progress.say(
        f"training {space} network of {_size(network):,} parameters on {data.images:,} images of {data.name}: "
        f"{settings.epochs} epochs of {each} steps of {settings.batch} images"
        + (f" on {sharding.mesh.size} devices" if sharding.mesh.size > 1 else "")
    )
    with _checkpoints(folder) as checkpoints, progress.task("training", total, "steps") as advance:
        state = jax.device_get(jax.jit(trainer.init)(init_key))
        if folder is not None:
            _, state = stored_states.restore(checkpoints, state, folder.path / "checkpoints")
        if jax.process_count() > 1:
            state = multihost_utils.broadcast_one_to_all(state)
        state = jax.device_put(state, everywhere)
        done = int(state.step)
        advance(done)
        seed = int(jax.random.bits(order_key, dtype=jnp.uint32)) >> 1
        batches = ahead(data.train(seed, settings.batch, done, rows), place)
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
                    _require_finite(state, checkpoints)
                if (number + 1) % each == 0:
                    seconds = time.perf_counter() - began
                    parts = data.test(settings.batch, rows)
                    right = sum(int(trainer.right(state, *place(part))) for part in parts)
                    if folder is not None:
                        _note_epoch(config, data, state, number // each, folder, right, seconds, waited)
                    began, waited = time.perf_counter(), 0.0
                if folder is not None and (last or time.monotonic() - stored > config.checkpoint_seconds):
                    _require_finite(state, checkpoints)
                    path = folder.path / "checkpoints"
                    stored_states.store(checkpoints, number + 1, jax.device_get(state), path)
                    stored = time.monotonic()
        finally:
            batches.close()


def _size(network: trainable.Trainable) -> int:
    return darts_macro.parameters(trainable.shapes(network)[0])


@contextlib.contextmanager
def _checkpoints(folder: RunFolder | None) -> Iterator[Any]:
    """The stored states in the folder; None where there is no folder."""
    import orbax.checkpoint as ocp

    if folder is None:
        yield None
        return
    # The first process stores what all have: nobody else need see its disk.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="jnas"
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, enable_async_checkpointing=False,
        **({"multiprocessing_options": alone, "create": False} if jax.process_count() > 1 else {}),
    )  # fmt: skip
    path = (folder.path / "checkpoints").absolute()
    path.mkdir(exist_ok=True)
    with ocp.CheckpointManager(path, options=options) as checkpoints:
        yield checkpoints


def _require_finite(state: recipe.State, checkpoints: Any) -> None:
    if not np.isfinite(float(state.loss)):
        kept = None if checkpoints is None else checkpoints.latest_step()
        good = f"the last good state, of step {kept}, is kept" if kept else "no state was stored before"
        raise RunError(
            f"the loss is not finite at step {int(state.step)}: lower recipe.learning_rate and give another --out "
            f"({good})"
        )


def _note_epoch(
    config: TrainConfig,
    data: stream.Stream,
    state: recipe.State,
    epoch: int,
    folder: RunFolder,
    right: int,
    seconds: float,
    waited: float,
) -> None:
    """The epoch's curves to the records, the log and TensorBoard. right: of the test images."""
    batch = config.recipe.batch
    images = data.images // batch * batch
    loss, hits = float(state.loss) / images, 100 * float(state.hits) / images
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
    config: TrainConfig,
    text: str,
    space: str,
    data: stream.Stream,
    network: trainable.Trainable,
    folder: RunFolder,
) -> dict[str, Any]:
    records = folder.records.all()
    curves = {name: [e.value for e in records if e.proxy == name] for name in CURVES}
    return {
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
        "parameters": _size(network),
        "epochs": config.recipe.epochs,
        "test_accuracy": curves["test_accuracy"][-1],
        "curves": curves,
        "seconds": sum(e.seconds for e in records),
    }
