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
import numpy as np
from kernel import matrix_product_rate
from rich.console import Console
from rich.table import Table
from search import noise

from jnas import data as datasets
from jnas import spaces
from jnas.config.score import ScoreConfig, from_mapping
from jnas.estimators.proxies import proxies
from jnas.parallel import Program, rows_at_once
from jnas.proxies import PROXIES
from jnas.proxies.base import SIZE
from jnas.proxies.subjects import SUBJECTS
from jnas.types import Candidates

CURVE = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def timed(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure(config: ScoreConfig, name: str, dataset, cells: np.ndarray) -> tuple[float, float]:
    """Seconds of the first batch, compilation included, and seconds an architecture after it."""
    estimator, size = proxies(spaces.get(config.space), [name], dataset, config), rows_at_once()

    def score(seed: int) -> None:
        estimator.evaluate(jax.random.key(seed), Candidates(architectures=cells[:size]))

    # Another key draws weights and images anew, so that nothing is known of the cells.
    return timed(score, 0), min(timed(score, seed) for seed in (1, 2)) / min(size, len(cells))


def curve(config: ScoreConfig, name: str, dataset, cells: np.ndarray) -> list[tuple[int, float]]:
    """(architectures in a call, architectures a second)."""
    subject, members, space = SUBJECTS[PROXIES[name].subject], (PROXIES[name],), spaces.get(config.space)
    functions = subject.functions(space.name, config, members, dataset.classes)
    program = Program(name, functions.measure)
    sample = subject.draw(jax.random.key(1), dataset, config, members)
    shared = program.place(functions.init(jax.random.key(0), *sample.arrays))
    choices = np.argmax(np.asarray(space.gates(cells)), axis=-1).astype(np.int32)
    points = []
    for rows in CURVE:
        if rows > len(choices):
            break
        # The first of them compiles.
        best = min(timed(program, shared, choices[:rows]) for _ in range(4))
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
    config = from_mapping({"network": network})
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
