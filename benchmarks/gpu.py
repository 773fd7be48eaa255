"""What a graphics card makes of jnas, in one command of nine minutes: parity, then speed beside the card's limits.

    python benchmarks/gpu.py [--minutes 9] [--dry]

Every section prints as soon as it has ended, so that a run that is cut off keeps what it measured. A section that would
begin after the time is left out, with a line. A section that fails says why in a line, and the next one begins.

Limits are measured: float32 and bfloat16 products of 8,192 x 8,192, and copying. Operations are as XLA counts them,
which leaves hand-written kernels out; of the kernel they are those of `kernel.py`. Images are noise of 32x32. Nothing
is read from or written to the compilation cache. --dry: the same on tiny sizes, which a CPU runs too, to try the
script: its numbers mean nothing.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kernel
import numpy as np
import score
import train
from msgspec.structs import replace
from search import noise

import jnas
from jnas import data as datasets
from jnas import spaces
from jnas.config.score import from_mapping
from jnas.config.search import from_mapping as search_of
from jnas.data import stream
from jnas.errors import one_line
from jnas.estimators import batch_training
from jnas.estimators.settings import NASBENCH201, Recipe
from jnas.proxies import PROXIES
from jnas.run import search
from jnas.run.progress import Progress

# Of proxies of the network. Relative to the largest of a column: sums of float32 in another order, amplified by the
# eigenvalues of some.
TOLERANCE = 5e-2
SMALL = {"network": {"channels": 4, "cells_per_stage": 1, "batch": 8}, "regions": {"inputs": 100}}


class Sizes(NamedTuple):
    """Sizes of the work."""

    matrix: int = 8192
    cells: int = 6466
    scored: int = 256
    kernel_batch: int = 72
    network: dict[str, int] = {"channels": 16, "cells_per_stage": 5, "batch": 64}  # noqa: RUF012
    steps: int = 20
    candidates: int = 256
    trainings: int = 64


DRY = Sizes(256, 8, 4, 8, SMALL["network"], 3, 4, 4)


def best(run: Callable[[], Any], repeats: int = 5) -> float:
    """The least seconds of a call, after a first one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def limits(sizes: Sizes) -> Iterator[str]:
    size = sizes.matrix
    for dtype, precision in (("float32", "highest"), ("float32", "default"), ("bfloat16", "default")):
        a = jnp.ones((size, size), dtype)
        seconds = best(partial(jax.jit(partial(jnp.matmul, precision=precision)), a, a))
        yield f"product {dtype}, precision {precision}: {2 * size**3 / seconds / 1e12:.2f} TFLOP/s"
    x = jnp.ones((size, size))
    yield f"memory: {2 * x.nbytes / best(partial(jax.jit(lambda x: x + 1), x)) / 1e9:,.0f} GB/s"


def parity(sizes: Sizes, data: str) -> Iterator[str]:
    """Every proxy of small networks on this device and on the CPU of a process of its own."""
    names = [name for name, proxy in PROXIES.items() if proxy.subject != "size"]
    script = """
import json, sys, jnas
names, data, settings = (json.loads(word) for word in sys.argv[1:])
scores = jnas.score("nasbench201", "random:8", names, data, settings=settings)
print(json.dumps([[float(value) for value in scores[name]] for name in names]))
"""
    words = [json.dumps(each) for each in (names, data, SMALL)]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = json.loads(done.stdout.splitlines()[-1])
    own = jnas.score("nasbench201", "random:8", names, data, settings=SMALL)
    for name, reference in zip(names, np.asarray(expected), strict=True):
        values = np.asarray(own[name], float)
        largest = np.abs(values - reference).max() / max(np.abs(reference).max(), 1e-30)
        verdict = "" if largest <= TOLERANCE else "  DIFFERENT"
        yield f"{name:<20} largest difference from the CPU {largest:.0e}{verdict}"


def kernels(sizes: Sizes) -> Iterator[str]:
    limit = kernel.matrix_product_rate()
    for normalisation in ("frozen", "train"):
        times, first = kernel.measure(sizes.kernel_batch, 32, normalisation, "jnas", 5)
        operations, traffic = kernel.work(sizes.kernel_batch, 32, normalisation)
        yield (
            f"kernel of the NAS-Bench-201 supernet, {normalisation}, batch {sizes.kernel_batch}: {min(times):.4f} s "
            f"(median {statistics.median(times):.4f}), first {first:.1f} s, {operations / min(times) / 1e9:,.0f} "
            f"GFLOP/s, {100 * operations / min(times) / limit:.1f} % of a product, "
            f"{traffic / min(times) / 1e9:,.0f} GB/s"
        )


def proxies(sizes: Sizes, data: str) -> Iterator[str]:
    dataset, space = datasets.load(data), spaces.get("nasbench201")
    config = from_mapping({"data": data, "network": sizes.network})
    cells = np.asarray(space.sample(jax.random.key(0), sizes.scored))
    for name, proxy in PROXIES.items():
        if proxy.subject != "size":
            first, each = score.measure(config, name, dataset, cells)
            yield f"{name:<20} {1 / each:>9,.1f} cells/s, first batch and compilation {first:.1f} s"


def all_cells(sizes: Sizes, data: str) -> Iterator[str]:
    start = time.perf_counter()
    archs = "all" if sizes.cells == Sizes().cells else f"random:{sizes.cells}"
    scores = jnas.score("nasbench201", archs, ["ntk", "regions"], data)
    seconds = time.perf_counter() - start
    yield f"{len(scores.architectures):,} cells by kernel and regions: {seconds:.1f} s, compilation included"


def darts_search(sizes: Sizes, data: str) -> Iterator[str]:
    own: dict[str, Any] = {"space": "darts", "protocol": "released", "data": data}
    if sizes == DRY:
        own |= {"strategy": {"name": "pruning", "operations_per_round": 7}, "estimator": {
            "name": "proxies", "ntk": {"batch": 2, "repeats": 1}, "regions": {"inputs": 20, "repeats": 1}}}  # fmt: skip
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = search.run(search_of(own), Path(folder) / "run", Progress(quiet=True))
    yield f"DARTS search: {result['evaluations']} evaluations in {time.perf_counter() - start:.1f} s"


def steps(sizes: Sizes, data: str) -> Iterator[str]:
    source = stream.of_dataset(datasets.load(data))
    networks = {
        "nasbench201": (train.RESIDUAL_CELL, replace(NASBENCH201, augment=False)),
        "darts": (train.DARTS_V2, Recipe(augment=False, cutout=0, drop_path=0.0, auxiliary=0.0)),
    }
    for space, (text, recipe) in networks.items():
        for precision in ("float32", "bfloat16"):
            shape = (
                sizes.network["channels"],
                2 if space == "darts" and sizes != DRY else sizes.network["cells_per_stage"],
            )
            own = replace(recipe, precision=precision, batch=sizes.network["batch"])
            prepared = train.prepare(space, text, source, own, *shape)
            batch = itertools.repeat(next(prepared.batches))
            seconds, flops = train.seconds_a_step(prepared, batch, sizes.steps), prepared.flops
            yield (
                f"training step, {space}, {shape[0]} channels, batch {own.batch}, {precision}: {1e3 * seconds:.2f} ms, "
                f"{own.batch / seconds:,.0f} images/s, {flops / seconds / 1e9:,.0f} GFLOP/s"
            )


def candidates(sizes: Sizes, data: str) -> Iterator[str]:
    """Accuracy with the weights of a supernet, of many cells side by side."""
    own = {
        "space": "nasbench201", "strategy": {"name": "draw", "candidates": sizes.candidates}, "data": data,
        "estimator": "inherited", "oneshot": "posterior", "supernet": {"epochs": 1, "channels": 16},
    }  # fmt: skip
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = search.run(search_of(own), Path(folder) / "run", Progress(quiet=True))
    yield (
        f"posterior: an epoch of the supernet and {result['evaluations']} candidates in "
        f"{time.perf_counter() - start:.1f} s, compilation included"
    )


def tables(sizes: Sizes) -> Iterator[str]:
    space, dataset = spaces.get("nasbench201"), datasets.load("digits")
    cells = np.asarray(space.sample(jax.random.key(0), sizes.trainings))
    choices = np.argmax(np.asarray(space.gates(cells)), axis=-1).astype(np.int32)
    recipe = {
        "epochs": 2,
        "batch": 64,
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "channels": 4,
        "cells_per_stage": 1,
    }
    seconds = best(lambda: batch_training.accuracies(jax.random.key(0), choices, dataset, **recipe), 2)
    yield f"table of digits: {sizes.trainings / seconds:.2f} trainings/s of 2 epochs, in one program"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--dry", action="store_true", help="tiny sizes")
    options = parser.parse_args()
    sizes = DRY if options.dry else Sizes()
    end = time.monotonic() + 60 * options.minutes
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0) / 1e9
    print(
        f"{len(jax.devices())} x {device.device_kind}, {memory:.0f} GB for JAX; JAX {jax.__version__}; "
        f"{time.strftime('%Y-%m-%d')}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = noise(Path(folder) / "noise.npz")
        # The longest last, but for the proxies, each of which compiles: they take the time that is left.
        sections: dict[str, Callable[[], Iterator[str]]] = {
            "limits": partial(limits, sizes),
            "parity": partial(parity, sizes, data),
            "kernel": partial(kernels, sizes),
            "training": partial(steps, sizes, data),
            "all cells": partial(all_cells, sizes, data),
            "tables": partial(tables, sizes),
            "DARTS search": partial(darts_search, sizes, data),
            "candidates": partial(candidates, sizes, data),
            "proxies at full depth": partial(proxies, sizes, data),
        }
        for name, section in sections.items():
            print(f"\n{name}", flush=True)
            try:
                for line in section():
                    print(f"  {line}", flush=True)
                    if time.monotonic() > end:
                        print("  the time is over", flush=True)
                        break
            except Exception as error:
                print(f"  failed: {one_line(error)}", flush=True)
            if time.monotonic() > end:
                print("the sections after this one were left out: give --minutes", flush=True)
                break


if __name__ == "__main__":
    main()
