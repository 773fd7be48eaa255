"""The exact tangent kernel of ResNet-18: jnas within a memory, beside the three implementations of neural-tangents.

    python benchmarks/function_kernel.py --data cifar10_subset.npz --images 64 --memory-gb 1

Each implementation runs in a process of its own, which is stopped after `--minutes`. The network normalises by stored
statistics, as neural-tangents takes images one by one; all parameters count. `sum` is the kernel of the summed logits,
`trace` the mean over the logits. Prints seconds, of which compilation, the peak of memory, and the largest difference
from jnas's entries beside their largest.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPLEMENTATIONS = ("jnas", "jacobian_contraction", "ntk_vector_products", "structured_derivatives")


def one(options: argparse.Namespace) -> None:
    """Compute one kernel, store it, and print seconds and the peak of memory."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import networks_of_others
    import numpy as np

    from jnas import data as datasets
    from jnas.data.transforms import normalise
    from jnas.programs.function import trace
    from jnas.theory.function_kernel import kernel

    dataset = datasets.load(options.data)
    x = normalise(dataset, dataset.x_train[: options.images])
    if x.shape[1:] != (32, 32, 3):
        x = jax.image.resize(x, (len(x), 32, 32, 3), "nearest")
    norm = nn.BatchNorm
    # Stored statistics: those of the initialisation.
    nn.BatchNorm = lambda use_running_average, name: norm(use_running_average=True, name=name)
    model = networks_of_others.ResNet18()
    variables = model.init(jax.random.key(0), x[:2])
    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}

    def apply(params, x):
        return model.apply({"params": params, **rest}, x)

    started = time.perf_counter()
    if options.implementation == "jnas":
        function = trace(apply, params, x)
        theta = kernel(
            function, params, x, logits=options.logits, parameters="all", memory_gb=options.memory_gb
        )
    else:
        import neural_tangents as nt

        def logits(params, x):
            out = apply(params, x)
            return jnp.sum(out, axis=-1, keepdims=True) if options.logits == "sum" else out

        which = getattr(nt.NtkImplementation, options.implementation.upper())
        theta = jax.jit(
            lambda p, x: nt.empirical_ntk_fn(logits, trace_axes=(-1,), implementation=which)(x, None, p)
        )
        theta = np.asarray(theta(params, x))
    seconds = time.perf_counter() - started
    np.save(options.out, theta)
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="a name or a path; smaller images are enlarged")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--memory-gb", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--logits", choices=("sum", "trace"))
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.out:
        one(options)
        return
    import numpy as np

    print(f"ResNet-18, {options.images} images, jnas within {options.memory_gb} GB of rows")
    with tempfile.TemporaryDirectory() as folder:
        for logits in ("sum", "trace") if options.logits is None else (options.logits,):
            expected = None
            for name in IMPLEMENTATIONS if options.implementation is None else (options.implementation,):
                path = Path(folder) / f"{logits}_{name}.npy"
                command = [
                    sys.executable,
                    __file__,
                    *sys.argv[1:],
                    "--logits",
                    logits,
                    "--implementation",
                    name,
                ]
                try:
                    done = subprocess.run(
                        [*command, "--out", str(path)], capture_output=True, text=True, timeout=60 * options.minutes,
                        env={**os.environ, "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")},
                    )  # fmt: skip
                except subprocess.TimeoutExpired:
                    print(f"{logits:6} {name:24} stopped after {options.minutes:g} min", flush=True)
                    continue
                if done.returncode:
                    why = (
                        "killed, out of memory"
                        if done.returncode < 0
                        else done.stderr.strip().splitlines()[-1]
                    )
                    print(f"{logits:6} {name:24} {why}", flush=True)
                    continue
                seconds, peak = map(float, done.stdout.split())
                theta = np.load(path)
                expected = theta if expected is None else expected
                # The trace of neural-tangents is a mean as well.
                error = np.abs(theta - expected).max() / np.abs(expected).max()
                print(f"{logits:6} {name:24} {seconds:7.1f} s  {peak:6.2f} GB  {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
