"""Speed of training one DARTS network: images a second, with and without the pipeline that brings them.

    python benchmarks/train.py [--channels 8] [--cells_per_stage 1] [--batch 64] [--data D] [--precision bfloat16]

The operations of a step are as XLA counts them, the machine's limit is a large matrix product in float32. With the
pipeline, batches are gathered, put on the device and augmented there; without it, one batch that lies on the device
serves every step.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from kernel import matrix_product_rate
from rich.console import Console
from rich.table import Table

from jnas import data as datasets
from jnas.data import stream, transforms
from jnas.estimators import training
from jnas.estimators.settings import Recipe
from jnas.nets import trainable
from jnas.run.compilation_cache import enable_compilation_cache

# The second-order cells of DARTS (Liu, Simonyan and Yang, 2019).
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])"
)


# A cell of NAS-Bench-201 with three convolutions, pooling and a skip connection.
RESIDUAL_CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
)


class Prepared(NamedTuple):
    """A training about to begin: its state, compiled step, batches on the device, and operations of a step."""

    state: Any
    step: Callable[..., Any]
    batches: Iterator[Any]
    flops: float


def prepare(
    space: str, text: str, data: stream.Stream, recipe: Recipe, channels: int, cells_per_stage: int
) -> Prepared:
    """The training of one network by a recipe."""
    network = trainable.of_architecture(space, text, data.image, data.classes, channels, cells_per_stage)
    trainer = training.trainer(
        network, recipe, steps=1000, normalise=partial(transforms.standardise, mean=data.mean, std=data.std)
    )
    state = jax.jit(trainer.init)(jax.random.key(1))
    batches = map(jax.device_put, data.train(jax.random.key(2), recipe.batch, 0, slice(None)))
    compiled = jax.jit(trainer.step).lower(state, jax.random.key(0), next(batches), None).compile()
    return Prepared(state, compiled, batches, compiled.cost_analysis()["flops"])


def seconds_a_step(training: Prepared, images: Iterator[Any], steps: int) -> float:
    """Median over so many steps."""
    times, state = [], training.state
    for number in range(steps):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(training.step(state, jax.random.key(number), next(images), None))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells_per_stage", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    enable_compilation_cache()
    data = stream.of_dataset(datasets.load(options.data))
    recipe = Recipe(batch=options.batch, precision=options.precision, auxiliary=0.0, augment=data.augmentable)
    prepared = prepare("darts", DARTS_V2, data, recipe, options.channels, options.cells_per_stage)
    limit = matrix_product_rate()
    table = Table(
        title=f"DARTS V2, {options.channels} channels, {3 * options.cells_per_stage + 2} cells, {data.name}, "
        f"{options.batch} images of {data.image[0]}x{data.image[1]}, {options.precision}"
    )
    for heading in ("images", "ms a step", "images/s", "GFLOP/s", "of a matrix product, %"):
        table.add_column(heading, justify="left" if heading == "images" else "right")
    for name, images in (
        ("one batch on the device", itertools.repeat(next(prepared.batches))),
        ("from the pipeline", prepared.batches),
    ):
        each = seconds_a_step(prepared, images, options.steps)
        table.add_row(
            name, f"{1e3 * each:.1f}", f"{options.batch / each:,.0f}", f"{prepared.flops / each / 1e9:.1f}",
            f"{100 * prepared.flops / each / limit:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
