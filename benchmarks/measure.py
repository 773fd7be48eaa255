"""Proxies of networks of one's own: `jnas.measure` on Linen, NNX, Equinox, Haiku, plain JAX and a transformer.

    python benchmarks/measure.py --data cifar10_subset.npz --images 16

Prints a column a network: the score of each proxy that it has, or a dash; below, seconds, seconds of compilation and
the peak of memory. Each network is measured in a process of its own. Needs equinox and dm-haiku for theirs.
"""

import argparse
import json
import resource
import subprocess
import sys


def one(name: str, images: int, data: str, memory_gb: float) -> None:
    """Print the measurement of one network as JSON."""
    import jax
    from networks_of_others import NETWORKS

    import jnas
    from jnas import data as datasets
    from jnas.data.transforms import normalise

    dataset = datasets.load(data)
    x, y = normalise(dataset, dataset.x_train[:images]), dataset.y_train[:images]
    if x.shape[1:] != (32, 32, 3):
        x = jax.image.resize(x, (images, 32, 32, 3), "nearest")
    apply, params = NETWORKS[name](jax.random.key(0))
    measured = jnas.measure(apply, params, x, y, memory_gb=memory_gb)
    row = {
        "values": {proxy: measured[proxy] for proxy in measured.values},
        "reasons": dict(measured.reasons),
        "sizes": {part: getattr(measured, part) for part in ("params", "flops", "activations")},
        "seconds": measured.seconds,
        "compilation": measured.compile_seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(row))


def main() -> None:
    from networks_of_others import NETWORKS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--data", default="digits", help="a name or a path; smaller images are enlarged")
    parser.add_argument("--memory-gb", type=float, default=1.0)
    parser.add_argument("--network", choices=NETWORKS, help="one alone, as JSON")
    options = parser.parse_args()
    if options.network:
        one(options.network, options.images, options.data, options.memory_gb)
        return
    rows = {}
    for name in NETWORKS:
        process = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--network", name], capture_output=True, text=True
        )
        if process.returncode:
            sys.exit(f"{name}: {process.stderr[-1500:]}")
        rows[name] = json.loads(process.stdout.splitlines()[-1])
        print(f"{name}: done", file=sys.stderr)
    print(f"{'':20}" + "".join(f"{name:>20}" for name in rows))
    proxies = dict.fromkeys(proxy for row in rows.values() for proxy in (*row["values"], *row["reasons"]))
    for proxy in proxies:
        cells = [row["values"].get(proxy) for row in rows.values()]
        print(f"{proxy:20}" + "".join(f"{'-' if cell is None else f'{cell:.6g}':>20}" for cell in cells))
    for part in ("params", "flops", "activations"):
        print(f"{part:20}" + "".join(f"{row['sizes'][part]:>20,}" for row in rows.values()))
    for part, form in (("seconds", ".2f"), ("compilation", ".1f"), ("peak_mb", ",.0f")):
        print(f"{part:20}" + "".join(f"{row[part]:>20{form}}" for row in rows.values()))
    reasons = {reason: proxy for row in rows.values() for proxy, reason in row["reasons"].items()}
    for reason, proxy in reasons.items():
        print(f"- {proxy} and others: {reason}")


if __name__ == "__main__":
    main()
