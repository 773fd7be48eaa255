"""Time of one kernel of the whole NAS-Bench-201 supernet, beside what the machine can do.

    python benchmarks/kernel.py [--batch 72] [--size 32] [--neural-tangents]

Prints a table: for each kernel the best and the median time, the floating-point operations and the bytes of the
work, the rate reached, and its share of the rate of a large float32 matrix product measured between the runs.

Operations counted, two for each multiply-add, on the positions of each convolution with C inputs and O outputs:
forwards once an image 9 C O and C O (the two branches); backwards for each cotangent and each image it reaches
9 C O for the input's gradient, 9 C O for the kernels' and, in train mode, 2 O C for the coupling by the batch
statistics. A cotangent reaches one image with frozen statistics and all N in train mode. Bytes: the cotangents
of each node's plane written once and read once.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from jnas import spaces
from jnas.estimators.settings import NtkConfig
from jnas.parallel import Program
from jnas.proxies import ntk, subjects
from jnas.strategies import pruning

CHANNELS, STAGES, CLASSES = 3, 3, 10


def matrix_product_rate(size: int = 2048) -> float:
    """Operations a second of a float32 matrix product."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def work(batch: int, size: int, normalisation: str) -> tuple[float, float]:
    """Operations and bytes of one kernel, as counted in this file's first lines."""
    edges, nodes = 6, 4
    convolutions = [(3, CHANNELS, size * size, 1, 1)]
    planes = 0
    for stage in range(STAGES):
        channels, positions = CHANNELS * 2**stage, (size // 2**stage) ** 2
        if stage:
            convolutions += [
                (channels // 2, channels, positions, 1, 1),
                (channels, channels, positions, 1, 1),
            ]
        convolutions.append((channels, channels, positions, edges, 2))
        planes += nodes * channels * positions
    reached = batch * batch if normalisation == "train" else batch
    forward = backward = 0
    for inputs, outputs, positions, count, branches in convolutions:
        forward += count * positions * inputs * outputs * (9 + (branches - 1))
        backward += (
            count * positions * inputs * outputs * (18 + (2 * branches if normalisation == "train" else 0))
        )
    return 2.0 * (batch * forward + reached * backward), 2.0 * 4 * reached * planes


def measure(
    batch: int, size: int, normalisation: str, implementation: str, repeats: int
) -> tuple[list[float], float]:
    """Seconds of each run after the first, and of the first, compilation included."""
    space = spaces.get("nasbench201")
    supernet = pruning.ask(pruning.init(space))[:1]
    images = jax.random.normal(jax.random.key(1), (batch, size, size, 3))

    settings = NtkConfig(channels=CHANNELS, normalisation=normalisation, implementation=implementation)
    functions = subjects.kernel("nasbench201", settings, CLASSES)
    program = Program("kernel", functions.measure)

    def run(seed: int) -> None:
        ntk.condition_numbers(program(functions.init(jax.random.key(seed), images), supernet))

    times = []
    for seed in range(repeats + 1):
        start = time.perf_counter()
        run(seed)
        times.append(time.perf_counter() - start)
    return times[1:], times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=72)
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument(
        "--neural-tangents", action="store_true", help="also by neural-tangents, plain networks"
    )
    arguments = parser.parse_args()
    implementations = ["jnas", *(["jacobian_contraction"] if arguments.neural_tangents else [])]
    size = arguments.size
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; batch {arguments.batch}, {size}x{size}")
    columns = ("first s", "best s", "median s", "GFLOP", "GB", "GFLOP/s", "matmul", "share")
    print(f"{'kernel':<30}" + "".join(f"{name:>10}" for name in columns))
    for normalisation in ("frozen", "train"):
        for implementation in implementations:
            times, first = measure(
                arguments.batch,
                arguments.size,
                normalisation,
                implementation,
                10 if normalisation == "frozen" else 4,
            )
            operations, traffic = work(arguments.batch, arguments.size, normalisation)
            limit = matrix_product_rate()
            rate = operations / min(times)
            giga = [value / 1e9 for value in (operations, traffic, rate, limit)]
            row = [first, min(times), statistics.median(times), *giga, rate / limit]
            name = f"{normalisation} {implementation}"
            print(f"{name:<30}" + "".join(f"{value:>10.3f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
