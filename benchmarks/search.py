"""Time of a whole TE-NAS search of NAS-Bench-201 on 32x32 images, compilation included.

    python benchmarks/search.py [--protocol paper|released] [--data PATH]

Without --data the images are noise: the time does not depend on them. The persistent compilation cache stays
off, so the time is that of a first search.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from kernel import matrix_product_rate

from jnas.config.search import from_mapping
from jnas.run import search
from jnas.run.progress import Progress


def noise(path: Path, images: int = 1000) -> str:
    """A data set of random 32x32 images in the file `path`."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (images + 100, 32, 32, 3), np.uint8)
    y = np.arange(images + 100) % 10
    np.savez(path, x_train=x[:images], y_train=y[:images], x_test=x[images:], y_test=y[images:])
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--protocol", choices=("paper", "released"), action="append")
    parser.add_argument("--data")
    arguments = parser.parse_args()
    print(f"matrix product {matrix_product_rate() / 1e9:.0f} GFLOP/s, {os.cpu_count()} cores")
    print(f"{'protocol':<12}{'batch':>6}{'scorings':>10}{'seconds':>9}")
    for protocol in arguments.protocol or ("paper", "released"):
        with tempfile.TemporaryDirectory() as folder:
            data = arguments.data or noise(Path(folder) / "noise.npz")
            config = from_mapping({"protocol": protocol, "data": data})
            start = time.perf_counter()
            result = search.run(config, Path(folder) / "run", Progress(quiet=True))
            seconds = time.perf_counter() - start
        print(
            f"{protocol:<12}{config.estimator.ntk.batch:>6}{result['evaluations']:>10}{seconds:>9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
