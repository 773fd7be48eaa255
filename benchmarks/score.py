"""Seconds an architecture for every proxy, compile seconds, and how the cost falls with the batch.

    python benchmarks/score.py [--data PATH] [--proxies a,b] [--cells 32] [--curve]

Random NAS-Bench-201 cells, the default sizes of `jnas score` unless --cells_per_stage, --channels or --batch say
otherwise; noise for images without --data. Each proxy is compiled alone; asked for together they share the passes
through the network that they have in common. --curve: architectures a second of ntk and naswot by the number of
architectures in one call (and, on an accelerator, side by side).
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from kernel import matrix_product_rate
from rich.console import Console
from rich.table import Table
from search import noise

from jnas import data as datasets
from jnas import spaces
from jnas.config import score as scoring_config
from jnas.proxies import PROXIES
from jnas.proxies.base import SIZE
from jnas.run import scoring

CURVE = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def timed(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def finished(run, *arguments) -> None:
    jax.block_until_ready(run(*arguments))


def measure(config: scoring_config.ScoreConfig, name: str, dataset, cells: np.ndarray) -> tuple[float, float]:
    """Seconds of the first batch, compilation included, and seconds an architecture after it."""
    size = scoring.chunk_size(jax.local_devices())
    score = scoring.chunk_scorer(config, [name], dataset)
    first = timed(score, cells[:size])
    each = min(timed(score, cells[start : start + size]) / size for start in range(0, len(cells), size))
    return first, each


def curve(
    config: scoring_config.ScoreConfig, name: str, dataset, cells: np.ndarray
) -> list[tuple[int, float]]:
    """(architectures in a call, architectures a second)."""
    lower, (repeat, *_) = scoring.PROGRAMS[PROXIES[name].subject](config, (name,), dataset, None)
    choices = np.argmax(np.asarray(spaces.get(config.space).gates(cells)), axis=-1).astype(np.int32)
    points = []
    for rows in CURVE:
        if rows > len(choices):
            break
        width = 1 if jax.default_backend() == "cpu" else rows
        part = jnp.asarray(choices[:rows])
        run = lower(repeat.key, part, *repeat.arrays, width=width).compile()
        # The first of them warms up.
        best = min(timed(finished, run, repeat.key, part, *repeat.arrays) for _ in range(4))
        points.append((rows, rows / best))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data")
    parser.add_argument("--proxies", default=",".join(PROXIES))
    parser.add_argument("--cells", type=int, default=32)
    parser.add_argument("--cells_per_stage", type=int, default=5)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--curve", action="store_true")
    arguments = parser.parse_args()
    network = {key: getattr(arguments, key) for key in ("cells_per_stage", "channels", "batch")}
    config = scoring_config.from_mapping({"network": network})
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        dataset = datasets.load(arguments.data or noise(Path(folder) / "noise.npz", 5000))
    space = spaces.get("nasbench201")
    cells = np.asarray(space.sample(jax.random.key(0), arguments.cells))
    console.print(
        f"{len(jax.local_devices())} x {jax.local_devices()[0].device_kind}, matrix product "
        f"{matrix_product_rate() / 1e9:.0f} GFLOP/s; network {network}; kernel {config.ntk.batch} images, "
        f"{config.ntk.normalisation}; regions {config.regions.inputs} crops"
    )
    if arguments.curve:
        table = Table(title="architectures a second")
        table.add_column("architectures in a call", justify="right")
        names = [name for name in ("ntk", "naswot") if name in arguments.proxies.split(",")]
        curves = {name: curve(config, name, dataset, cells) for name in names}
        for name in names:
            table.add_column(name, justify="right")
        for points in zip(*curves.values(), strict=True):
            table.add_row(str(points[0][0]), *(f"{rate:.2f}" for _, rate in points))
        console.print(table)
        return
    table = Table()
    for heading in ("proxy", "first batch and compilation, s", "s an architecture"):
        table.add_column(heading, justify="left" if heading == "proxy" else "right")
    for name in arguments.proxies.split(","):
        if PROXIES[name].subject == SIZE:
            continue
        first, each = measure(config, name, dataset, cells)
        table.add_row(name, f"{first:.1f}", f"{each:.4f}")
    console.print(table)


if __name__ == "__main__":
    main()
