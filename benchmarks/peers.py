"""jnas beside a plain PyTorch loop that takes one architecture after another, on the same cores in one run.

    python benchmarks/peers.py [--rows 1-4,11] [--cells 4] [--repeats 5] [--threads 2]

Needs PyTorch (extra `peers`); its side is `peers_networks.py` and `peers_scores.py`, eager and in NCHW. float32, random
images of 32x32, weights copied from jnas. Both sides compute the same numbers: the last column has the largest
difference of the first results, relative to the largest entry of each, and the largest tolerance; DIFFERENT where one
is beyond its own. Both sides are then measured in turn, and the median counts. Seconds are those of one unit: a kernel,
a cell, a step. `compile s` is jnas's first call less its median. `200` is the ratio of the times of 200 units,
compilation included. A ratio above one says that jnas is faster.

PyTorch's networks are built outside the measured time. jnas's scores (rows 5 to 11) go the way of `jnas score` and
include the drawing of weights and images. The rows:

    1, 2, 3   kernel of the NAS-Bench-201 supernet, C=3 N=1: batch 72, batch 32, batch 72 with frozen statistics, where
              PyTorch takes each image alone in evaluation mode (the authors' way would be that of row 1)
    4         kernel of the DARTS scoring network, C=1, a normal and a reduction cell, batch 14
    5 .. 10   synflow (PyTorch in float64, as float32 overflows there), snip, grad_norm, fisher, jacob_cov, grasp of
              NAS-Bench-201 networks, C=16 N=5, 64 images
    11        the six together, in PyTorch one after another; the largest memory of each side in a process of its own
    12        loss and gradient of those networks: compiled for each cell, as `jnas train` does; one program for all, as
              `jnas table build` does
    13, 14    a step of SGD: NAS-Bench-201 network, C=16 N=5, batch 64; DARTS V2, C=16, 8 cells, batch 32
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from search import noise

from jnas.parallel import make_devices_of_cores

try:
    import torch
    from peers_rows import MANY, Row, peaks, rows_of, some_cells
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    sys.exit("peers.py compares with PyTorch, which is not installed: pip install -e '.[peers]'")


def difference(expected: Any, value: Any) -> float:
    """Largest difference relative to the largest entry."""
    expected, value = np.asarray(expected, np.float64), np.asarray(value, np.float64)
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = run()
    return time.perf_counter() - start, out


def measure(row: Row, repeats: int) -> str:
    """Both sides in turn; a line of the table."""
    first, expected = timed(row.jnas)
    _, values = timed(row.pytorch)
    differences = [difference(*pair) for pair in zip(expected, values, strict=True)]
    agree = all(one <= most for one, most in zip(differences, row.tolerances, strict=True))
    seconds: dict[str, list[float]] = {"pytorch": [], "jnas": []}
    for _ in range(repeats):
        for side, run in (("pytorch", row.pytorch), ("jnas", row.jnas)):
            # The other side's threads wait actively for some milliseconds.
            time.sleep(0.2)
            seconds[side].append(timed(run)[0])
    peer, own = (statistics.median(seconds[side]) / row.units for side in ("pytorch", "jnas"))
    compilation = first - own * row.units
    many = "-"
    if row.programs is not None:
        many = f"{MANY * peer / (MANY * own + row.programs * compilation):.2f}"
    verdict = f"{max(differences):.0e} " + (f"< {max(row.tolerances):.0e}" if agree else "DIFFERENT")
    return (
        f"{row.work:<46}{peer:>10.4f}{own:>10.4f}{peer / own:>8.2f}{compilation:>10.1f}{many:>8}  {verdict}"
    )


def numbers(text: str) -> list[int]:
    """`1-4,11` as numbers."""
    ends = [part.split("-") for part in text.split(",")]
    return [number for part in ends for number in range(int(part[0]), int(part[-1]) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=numbers, default=list(range(1, 15)))
    parser.add_argument("--cells", type=int, default=4, help="of rows 5 to 12")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="cores of both sides")
    options = parser.parse_args()
    # Before JAX counts the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    torch.set_num_threads(options.threads)
    # As the commands do: rows 5 to 12 take a cell a core.
    make_devices_of_cores()
    print(
        f"{jax.devices()[0].device_kind}, {options.threads} cores; JAX {jax.__version__}, "
        f"PyTorch {torch.__version__}; median of {options.repeats}"
    )
    print(
        f"{'work':<49}{'PyTorch s':>10}{'jnas s':>10}{'ratio':>8}{'compile s':>10}{MANY:>8}  largest difference",
        flush=True,
    )
    cells = some_cells(options.cells)
    with tempfile.TemporaryDirectory() as folder:
        data = noise(Path(folder) / "noise.npz")
        for number in options.rows:
            for row in rows_of(number, cells, data):
                print(f"{number:>2} {measure(row, options.repeats)}", flush=True)
            if number == 11:
                print(peaks(cells, data, Path(folder), options.threads), flush=True)


if __name__ == "__main__":
    main()
