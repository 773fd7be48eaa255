"""A TE-NAS search of NAS-Bench-201 on one device and on two: the same cell, and the time of each.

    python benchmarks/devices.py [--data digits] [--batch 8] [--inputs 500]

The devices are those that XLA makes of a host's cores (`--xla_force_host_platform_device_count`). Each search has a
process of its own, and compiles everything. Exit status 1 where the cells or any values differ.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jnas.store.records import read_records

ROOT = Path(__file__).parents[1]
DEVICES = (1, 2)


def search(options: argparse.Namespace, devices: int, base: Path) -> tuple[dict, set[tuple]]:
    """result.json and the values of a search on so many devices."""
    out = base / str(devices)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(base / f"cache{devices}"),
    }
    arguments = [
        "--data", options.data, "--estimator.ntk.batch", str(options.batch), "--estimator.regions.inputs",
        str(options.inputs), "--out", str(out),
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "jnas", "search", *arguments], env=environment, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    values = {record[:-1] for record in read_records(out / "records.sqlite")}
    return json.loads((out / "result.json").read_text()), values


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="name or absolute path")
    parser.add_argument("--batch", type=int, default=8, help="images in the kernel")
    parser.add_argument("--inputs", type=int, default=500, help="inputs whose regions are counted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        runs = {devices: search(options, devices, Path(base)) for devices in DEVICES}
    table = Table("devices", "seconds of search", "cell", "values as on one device")
    first, values = runs[DEVICES[0]]
    equal = True
    for devices, (result, others) in runs.items():
        same = len(values & others)
        equal &= others == values and result["architecture"] == first["architecture"]
        table.add_row(
            str(devices),
            f"{result['search_seconds']:.1f}",
            result["architecture"],
            f"{same} of {len(values)}",
        )
    Console(width=170).print(table)
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
