"""`kill -9` at random moments of a search, resumed: is the result the uninterrupted one?

    python benchmarks/kill_and_resume.py [--work pruning|posterior] [--kills 10] [--seed 0]
    python benchmarks/kill_and_resume.py --work train [--data D] [--epochs 12] [--kills 3]

Runs a tiny but whole search (every stage of the strategy, checkpoints) twice without interruption, the
second time to learn how long it takes once everything is compiled. Then, for each kill, starts it in a new
folder, kills its process at a random moment, runs the same command again to the end, and compares result.json
but for the times in it. The moments are stratified: one at random in each of as many equal parts of the
uninterrupted duration as there are kills. A run that ended before its kill counts as such, not as a kill.
Exit status 1 where a result differs.

train: a training of a small DARTS network, killed so many times in a row in one folder; all of its last state
(weights, their average, momenta, running statistics) is compared as well, bit for bit.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from jnas.errors import InputError
from jnas.store.records import read_records

ROOT = Path(__file__).parents[1]
# Every part of a run has its turn; epochs are so many that kills fall between checkpoints and records too.
CONFIGS = {
    "pruning": {
        "data": "digits",
        "ntk": {"batch": 8, "repeats": 2, "channels": 1},
        "regions": {"inputs": 300, "repeats": 2},
        "training": {"epochs": 40, "batch": 64, "channels": 2, "random_cells": 1},
    },
    "posterior": {
        "data": "digits",
        "strategy": "posterior",
        "space": "shake_shake",
        "posterior": {
            "width": 1,
            "depth": 1,
            "epochs": 40,
            "candidates": 30,
            "blind_candidates": 20,
            "tuning_epochs": 3,
        },
    },
    "train": {
        "arch": (
            "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_3x3', 2), ('sep_conv_3x3', 1)], "
            "normal_concat=[2, 3], reduce=[('max_pool_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 2), "
            "('skip_connect', 2)], reduce_concat=[2, 3])"
        ),
        "data": "digits",
        "channels": 8,
        "cells_per_stage": 1,
        "checkpoint_seconds": 1,
        "recipe": {
            "epochs": 12,
            "batch": 64,
            "auxiliary": 0,
            "drop_path": 0.2,
            "cutout": 4,
            "label_smoothing": 0.1,
            "average": 0.99,
        },
    },
}
STAGES = ("test", "tuning", "blind", "candidates", "supernet", "training", "compare", "search")
TIMES = ("seconds", "search_seconds")


def command(config: Path, folder: Path) -> list[str]:
    name = "train" if config.stem == "train" else "search"
    return [sys.executable, "-m", "jnas", name, str(config), "--out", str(folder)]


def start(arguments: list[str], cache: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(arguments: list[str], cache: Path) -> float:
    """Run to the end; the seconds it took."""
    began = time.monotonic()
    process = start(arguments, cache)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with status {process.returncode}:\n{errors}")
    return time.monotonic() - began


def kill(arguments: list[str], cache: Path, after: float) -> bool:
    """Start, `kill -9` after so many seconds; False where it ended before."""
    process = start(arguments, cache)
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode == -signal.SIGKILL


def result(folder: Path) -> dict:
    """result.json without its times."""
    content = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in content.items() if key not in TIMES}


def records(folder: Path) -> tuple[int, str]:
    """How many evaluations are stored, and the stage that the last of them belongs to."""
    try:
        stored = read_records(folder / "records.sqlite")
    except InputError:
        return 0, "none"
    stages = {record.stage for record in stored}
    last = next((stage for stage in STAGES if stage in stages), "none")
    return len(stored), last


def last_state(folder: Path) -> dict[str, bytes]:
    """Every array of the last stored state of a training, by its name."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager((folder / "checkpoints").absolute()) as checkpoints:
        state = checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore())
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def train_through_kills(config: Path, base: Path, cache: Path, kills: int, draw: random.Random) -> int:
    """One training, killed so many times in a row, beside one that was not."""
    console = Console()
    arguments, folder = command(config, base / "killed"), base / "killed"
    finish(command(config, base / "first"), cache)
    duration = finish(command(config, base / "again"), cache)
    for number in range(kills):
        after = duration / (kills + 1) * draw.uniform(0.8, 1.2)
        killed = kill(arguments, cache, after)
        stored = sorted(int(path.name) for path in (folder / "checkpoints").glob("[0-9]*"))
        console.print(
            f"kill {number + 1}{'' if killed else ' (had ended)'}: after {after:.1f} s, "
            f"{records(folder)[0]} values recorded, states stored of steps {stored}"
        )
    seconds = finish(arguments, cache)
    states = [last_state(base / name) for name in ("first", "again", "killed")]
    results = [result(base / name) for name in ("first", "again", "killed")]
    equal = states[0] == states[1] == states[2] and results[0] == results[1] == results[2]
    console.print(
        f"uninterrupted {duration:.1f} s; resumed in {seconds:.1f} s; {len(states[0])} arrays of the last state, "
        f"{sum(map(len, states[0].values())):,} bytes, and the results: {'equal' if equal else 'DIFFERENT'}; test "
        f"accuracy {results[2]['test_accuracy']:.2f} %"
    )
    return int(not equal)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", choices=CONFIGS, default="pruning")
    parser.add_argument("--data", default="digits", help="name or absolute path")
    parser.add_argument("--epochs", type=int, default=12, help="of a training")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    draw, console = random.Random(options.seed), Console()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        config, cache = base / f"{options.work}.yaml", base / "cache"
        settings = CONFIGS[options.work] | {"data": options.data}
        if options.work == "train":
            settings["recipe"] |= {"epochs": options.epochs}
        config.write_text(yaml.safe_dump(settings))
        if options.work == "train":
            return train_through_kills(config, base, cache, options.kills, draw)
        first = finish(command(config, base / "first"), cache)
        duration = finish(command(config, base / "again"), cache)
        expected = result(base / "first")
        total, _ = records(base / "first")
        console.print(
            f"uninterrupted: {first:.1f} s, again {duration:.1f} s, {total} records, "
            f"results {'equal' if result(base / 'again') == expected else 'DIFFERENT'}"
        )
        table = Table("kill", "after", "records kept", "last stage", "resumed in", "result")
        different = result(base / "again") != expected
        for number in range(options.kills):
            folder, after = base / str(number), (number + draw.random()) / options.kills * duration
            killed = kill(command(config, folder), cache, after)
            kept, stage = records(folder)
            seconds = finish(command(config, folder), cache)
            equal = result(folder) == expected
            different = different or not equal
            table.add_row(
                str(number + 1) if killed else f"{number + 1} (had ended)", f"{after:.1f} s", f"{kept} of {total}",
                stage, f"{seconds:.1f} s", "equal" if equal else "DIFFERENT",
            )  # fmt: skip
        console.print(table)
    return int(different)


if __name__ == "__main__":
    sys.exit(main())
