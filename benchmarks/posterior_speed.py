"""How fast candidates of a trained supernet are evaluated, and the supernet trains: `posterior.py speed` prints it."""

import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from kernel import matrix_product_rate
from rich.console import Console
from rich.table import Table

from jnas.data import stream
from jnas.estimators.inherited import inherited
from jnas.estimators.training import EVALUATION_BATCH
from jnas.types import Candidates

COUNTS = (1, 2, 5, 10, 25, 50, 100)
STEPS = 20


def report(trained: Any, architectures: np.ndarray, console: Console) -> None:
    """Print candidates a second of `posterior.Trained`, for int32[B, D] of them, and training steps a second."""
    config, split, supernet = trained.config, trained.learned.setup.split, trained.learned.setup.supernet
    forms = {"all operations, masked": replace(supernet, choices=False)}
    if supernet.choices and jax.default_backend() == "cpu":
        forms["a cell's operations alone"] = supernet
    table = Table(
        title=f"{config.space}, {len(split.images)} images of {trained.dataset.name}, "
        f"{len(jax.local_devices())} devices"
    )
    for heading in ("evaluated", "in one program", "candidates a second", "times one masked", "memory, MB"):
        table.add_column(heading, justify="left" if heading == "evaluated" else "right")
    first, key = 0.0, jax.random.key(config.seed)
    for form, network in forms.items():
        for count in COUNTS:
            estimator = inherited(
                network, trained.variables, split.dataset, split.images, split.labels,
                recalibrate=config.estimator.recalibrate, batch=count,
            )  # fmt: skip
            part, calls, times = Candidates(architectures[:count]), max(1, 10 // count), []
            estimator.evaluate(key, part)
            for _ in range(5):
                start = time.perf_counter()
                for _ in range(calls):
                    estimator.evaluate(key, part)
                times.append((time.perf_counter() - start) / calls)
            rate = count / min(times)
            first = first or rate
            # One after another, cells need the memory of one.
            together = 1 if network.choices else count
            memory = working_memory(trained, architectures[:together])
            table.add_row(form, str(count), f"{rate:.1f}", f"{rate / first:.1f}", f"{memory / 1e6:.1f}")
    console.print(table)
    seconds, flops = step(trained)
    console.print(
        f"training: {1 / seconds:.1f} steps a second of {config.supernet.batch} images, {flops / 1e9:.2f} GFLOP each, "
        f"{flops / seconds / 1e9:.1f} GFLOP/s; matrix product {matrix_product_rate() / 1e9:.0f} GFLOP/s"
    )


def working_memory(trained: Any, architectures: np.ndarray) -> int:
    """Bytes that the program needs for candidates side by side, arguments aside."""
    supernet, images = trained.learned.setup.supernet, trained.learned.setup.split.images[:EVALUATION_BATCH]
    evaluate = jax.vmap(supernet.evaluate, in_axes=(None, None, 0, None))
    masks = supernet.masks_of(architectures).astype(jnp.float32)
    compiled = jax.jit(evaluate).lower(*trained.variables, masks, jnp.asarray(images, jnp.float32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def step(trained: Any) -> tuple[float, float]:
    """Seconds of a training step, and its floating-point operations as XLA counts them."""
    learned, key = trained.learned, jax.random.key(0)
    source = stream.of_dataset(learned.setup.split.dataset)
    batches = source.train(key, trained.config.supernet.batch, 0, slice(None))
    train = jax.jit(learned.method.step)
    flops = train.lower(learned.state, key, next(batches), None).compile().cost_analysis()["flops"]
    state, _ = jax.block_until_ready(train(learned.state, key, next(batches), None))
    start = time.perf_counter()
    for _ in range(STEPS):
        state, _ = train(state, key, next(batches), None)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / STEPS, flops
