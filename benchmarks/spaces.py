"""Every registered space: decisions, codes, distinct architectures, seconds to draw and canonicalise many, sizes.

    python benchmarks/spaces.py [--count 1000000] [--shared ../shared]

Distinct architectures are counted by `jnas.spaces.distinct`; a dash stands where no exact count is known. Draws and
canonical forms are under jit, in parts of 100,000, after compilation. Sizes are compared with every row of published
tables in the folder `data` of --shared, where they are there.
"""

import argparse
import csv
import gzip
import sys
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from published_sizes import nasbench101_code, of_darts

from jnas import spaces
from jnas.errors import InputError
from jnas.nets import networks
from jnas.nets.sizes import Macro
from jnas.spaces import distinct, genotype

PART = 100_000


def seconds(space: spaces.Space, count: int) -> tuple[float, float]:
    """Of drawing `count` architectures, and of their canonical forms."""
    part = min(PART, count)
    sample, canonical = jax.jit(space.sample, static_argnums=1), jax.jit(space.canonical)
    canonical(sample(jax.random.key(0), part)).block_until_ready()
    times = np.zeros(2)
    for number in range(count // part):
        start = time.perf_counter()
        rows = sample(jax.random.key(number), part).block_until_ready()
        middle = time.perf_counter()
        canonical(rows).block_until_ready()
        times += middle - start, time.perf_counter() - middle
    return float(times[0]), float(times[1])


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def sizes_of_tables(folder: Path) -> list[tuple[str, int, int, int]]:
    """(space, rows of its table, rows of equal parameters, rows of equal FLOPs or -1 where they are not compared)."""
    out = []
    for name, file, size, scale in (
        ("nasbench_macro", "nb_macro_cifar10.csv.gz", Macro(), 1.0),
        ("nasbench101", "nb101_cells.csv.gz", Macro(), 1e6),
        ("genotypes", "nb301_cells.csv.gz", Macro(32, 2), 1e6),
    ):
        if not (folder / file).exists():
            continue
        table, space = read(folder / file), spaces.get(name)
        if name == "nasbench101":
            rows = np.array([nasbench101_code(row["adjacency_and_operations"]) for row in table])
        else:
            rows = np.stack([space.from_string(row["architecture"]) for row in table])
        counted = networks.sizes_of(space, size, space.choices(rows))
        params, flops = counted.params, counted.flops
        if name == "genotypes":
            theirs = np.array([of_darts(genotype.parse(row["architecture"]), 32, 2, 32) for row in table])
            params, flops = params - theirs[:, 0], flops + theirs[:, 1]
        published = [np.round([float(row[key]) * scale for row in table]) for key in ("params", "flops")]
        same = -1 if name == "nasbench101" else int((flops == published[1]).sum())
        out.append((name, len(table), int((params == published[0]).sum()), same))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="architectures drawn")
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="folder of the published tables"
    )
    chosen = parser.parse_args()
    console = Console(width=110)
    table = Table(title=f"Spaces: {chosen.count:,} architectures on {jax.devices()[0].device_kind}")
    for column in ("space", "decisions", "codes", "distinct", "draw, s", "canonical, s"):
        table.add_column(column, justify="left" if column == "space" else "right")
    for name, space in spaces.SPACES.items():
        try:
            number = f"{distinct.count(space):,}"
        except InputError:
            number = "-"
        drawn, canonical = seconds(space, chosen.count)
        codes = f"{space.size:,}" if space.size < 1e9 else f"{space.size:.2e}"
        number = number if len(number) < 16 else f"{int(number.replace(',', '')):.2e}"
        table.add_row(name, str(len(space.decisions)), codes, number, f"{drawn:.1f}", f"{canonical:.1f}")
    console.print(table)
    for name, rows, params, flops in sizes_of_tables(chosen.shared / "data"):
        same = "" if flops < 0 else f", FLOPs of {flops}"
        console.print(f"{name}: of {rows} published rows the parameters of {params}{same} are equal")


if __name__ == "__main__":
    main()
