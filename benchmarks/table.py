"""Trainings a second: many architectures in one compiled program against one architecture after another.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 python benchmarks/table.py [--cells 32] [--alone 4] [--seeds 3]

Random distinct cells of NAS-Bench-201 in three stages, on the digits, by the recipe of `jnas table build`. One at a
time: `jnas.estimators.training`, which compiles a step for each cell, once for all its seeds, and calls it from Python.
Its time is told with and without compilation. The flag gives each of two cores a device of its own.
"""

import argparse
import time
from functools import partial

import jax
import numpy as np
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from jnas import data as datasets
from jnas import spaces
from jnas.data import stream, transforms
from jnas.estimators import batch_training, training
from jnas.estimators.settings import NASBENCH201
from jnas.nets import trainable
from jnas.run.table import TableConfig, order


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, text in (
        ("cells", 32, "cells trained in the batch"),
        ("alone", 4, "cells trained one at a time"),
        ("seeds", 3, "trainings of each cell"),
        ("channels", 4, "channels of the first stage"),
        ("epochs", 5, "epochs of a training"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    return parser.parse_args()


def main() -> None:
    own, config = arguments(), TableConfig()
    space, dataset = spaces.get(config.space), datasets.load(config.data)
    recipe = {
        "epochs": own.epochs, "batch": config.batch, "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay, "channels": own.channels, "cells_per_stage": config.cells_per_stage,
    }  # fmt: skip
    cells = order(config)[: own.cells]
    choices = np.argmax(np.asarray(space.gates(cells)), axis=-1).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), own.seeds)

    def together(key: jax.Array) -> np.ndarray:
        return np.asarray(batch_training.accuracies(key, choices, dataset, **recipe))

    start = time.perf_counter()
    together(keys[0])
    first = time.perf_counter() - start
    start = time.perf_counter()
    for key in keys:
        together(key)
    batched = (time.perf_counter() - start) / (own.seeds * own.cells)

    data = stream.of_dataset(dataset)
    alone_recipe = replace(
        NASBENCH201, batch=config.batch, learning_rate=config.learning_rate,
        weight_decay=config.weight_decay, augment=False,
    )  # fmt: skip
    whole, warm = 0.0, []
    for cell in cells[: own.alone]:
        start = time.perf_counter()
        network = trainable.of_architecture(
            space.name, space.to_string(cell), data.image, data.classes, own.channels, config.cells_per_stage
        )
        steps = data.images // config.batch * own.epochs
        trainer = training.trainer(
            network, alone_recipe, steps=steps, normalise=partial(transforms.normalise, dataset)
        )
        step, init, right = jax.jit(trainer.step), jax.jit(trainer.init), jax.jit(trainer.right)
        for number, key in enumerate(keys):
            began, state = time.perf_counter(), init(key)
            batches = data.train(key, config.batch, 0, slice(None))
            for _ in range(steps):
                state, _ = step(state, key, next(batches), None)
            parts = data.test(min(256, data.tests), slice(None))
            sum(int(right(state, *part)) for part in parts)
            if number:
                warm.append(time.perf_counter() - began)
        whole += time.perf_counter() - start
    alone = whole / (own.seeds * own.alone)
    table = Table(
        title=f"{own.channels} channels, {own.epochs} epochs of {config.batch} images, {jax.devices()}"
    )
    for name in ("", "trainings/s", "seconds each", "times as fast as one at a time"):
        table.add_column(name, justify="right" if name else "left")
    rows = {
        "one at a time": alone,
        "one at a time, without compilation": float(np.mean(warm)) if warm else float("nan"),
        f"{own.cells} in one program": batched,
        "all 6,466 cells, with compilation once": batched
        + (first - batched * own.cells) / (6466 * own.seeds),
    }
    for name, seconds in rows.items():
        table.add_row(name, f"{1 / seconds:.2f}", f"{seconds:.3f}", f"{alone / seconds:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
