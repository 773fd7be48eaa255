"""`kill -9` at random moments of a run, resumed by the same command: is the result the uninterrupted one?

    python benchmarks/kill_and_resume.py [--work pruning,table,...|all] [--data D] [--kills 10] [--seed 0]

Runs each kind of work, tiny but whole, twice without interruption: the second time tells how long it takes once
everything is compiled. Then starts it again and again in one folder, and kills its process each time. The moments are
stratified and shuffled: one at random in each of as many equal parts of the uninterrupted duration as there are kills.
A run that ends before its moment is compared, and a new folder begun. The last run goes on to its end.

Compared, bit for bit, are all that is stored but times: result.json or the table, every record, every array of the last
stored states. Exit status 1 where anything differs.
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
from typing import Any

import jax
import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from jnas.errors import InputError
from jnas.store.checkpoints import last_state
from jnas.store.records import read_records

ROOT = Path(__file__).parents[1]
SMALL = {"network": {"channels": 2, "cells_per_stage": 1, "batch": 8}, "regions": {"inputs": 300}}
GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_3x3', 2), ('sep_conv_3x3', 1)], "
    "normal_concat=[2, 3], reduce=[('max_pool_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 2), "
    "('skip_connect', 2)], reduce_concat=[2, 3])"
)
# The command of each kind of work, and its settings. Every part of a run has its turn.
WORK: dict[str, tuple[str, dict[str, Any]]] = {
    "pruning": ("search", {
        "estimator": {"ntk": {"batch": 8, "repeats": 2, "channels": 1}, "regions": {"inputs": 300, "repeats": 2}},
        "compare": {"random_cells": 1},
        "training": {"epochs": 10, "batch": 64, "channels": 2},
    }),
    "evolution": ("search", {
        "strategy": {"name": "evolution", "children": 16, "parents": 8},
        "estimator": {"proxies": "naswot,params", **SMALL},
        "budget": 96,
        "final": {"candidates": 8, "repeats": 2, "estimator": {"proxies": "regions", **SMALL}},
    }),
    "random": ("search", {"strategy": "random", "estimator": "table:digits", "budget": 640}),
    # One strategy of each further family.
    "tpe": ("search", {
        "space": "darts", "strategy": "tpe", "estimator": {"proxies": "naswot,synflow", **SMALL}, "budget": 300,
    }),
    "local": ("search", {"strategy": "local", "estimator": {"proxies": "naswot", **SMALL}, "budget": 300}),
    "policy_gradient": ("search", {
        "strategy": "policy_gradient", "estimator": {"proxies": "naswot", **SMALL}, "budget": 300,
    }),
    "tree_search": ("search", {
        "strategy": "tree_search", "estimator": {"proxies": "naswot", **SMALL}, "budget": 300,
    }),
    "hyperband": ("search", {"strategy": "hyperband", "estimator": "table:digits", "budget": 640}),
    "warm_up": ("search", {
        "strategy": {
            "name": "warm_up", "of": {"name": "aging"}, "proxy": {"name": "proxies", "proxies": "params"},
        },
        "estimator": {"proxies": "naswot", **SMALL},
        "budget": 300,
    }),
    "posterior_nasbench201": ("search", {
        "space": "nasbench201",
        "oneshot": {"name": "posterior", "gates": "group", "drop_probability": 0.5, "weight_penalty": 0.02},
        "supernet": {"width": 2, "epochs": 10},
        "estimator": {"recalibrate": 64},
        "strategy": {"candidates": 30},
        "compare": {"blind_candidates": 20, "random_cells": 0},
        "tuning": {"epochs": 3},
    }),
    "posterior_shake_shake": ("search", {
        "space": "shake_shake",
        "oneshot": "posterior",
        "supernet": {"width": 1, "epochs": 5},
        "strategy": {"candidates": 30},
        "compare": {"blind_candidates": 20},
        "tuning": {"epochs": 2},
    }),
    "train": ("train", {
        "arch": GENOTYPE,
        "channels": 4,
        "cells_per_stage": 1,
        "checkpoint_seconds": 0.5,
        "recipe": {
            "epochs": 8, "batch": 64, "auxiliary": 0, "drop_path": 0.2, "cutout": 4, "label_smoothing": 0.1,
            "average": 0.99,
        },
    }),
    "table": ("table", {"channels": 2, "epochs": 2, "curve": "1,2", "seeds": 2}),
}  # fmt: skip
CELLS_OF_TABLE = 40
TIMES = ("seconds", "search_seconds")


def command(work: str, data: str, base: Path, name: str) -> list[str]:
    """The command line that does the work in the folder `base`/`name`."""
    verb, settings = WORK[work]
    if verb == "table":
        # Its settings are flags.
        flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        (base / name).mkdir(exist_ok=True)
        out = base / name / "table.npz"
        rest = ["build", "--data", data, *flags, "--cells", str(CELLS_OF_TABLE), "--out", str(out)]
    else:
        config = base / f"{work}.yaml"
        config.write_text(yaml.safe_dump(settings | {"data": data}))
        rest = [str(config), "--out", str(base / name)]
    return [sys.executable, "-m", "jnas", verb, *rest]


def start(arguments: list[str], cache: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    # Small programs are kept too: a run begins to work at once.
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
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
        _, errors = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return process.returncode == -signal.SIGKILL
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with status {process.returncode}:\n{errors}")
    return False


def records(folder: Path) -> list[tuple]:
    """Every record in order, without its time."""
    path = folder / ("table.npz.journal" if (folder / "table.npz.journal").exists() else "records.sqlite")
    try:
        # As text: nan equals itself there.
        return [tuple(map(repr, record[:-1])) for record in read_records(path)]
    except InputError:
        return []


def outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, without times: its result or table, records, states by checkpoint folder."""
    content: dict[str, Any] = {"records": records(folder)}
    if (folder / "result.json").exists():
        # Not read as numbers: nan differs from itself.
        result = json.loads((folder / "result.json").read_text(), parse_constant=str)
        content["result"] = {key: value for key, value in result.items() if key not in TIMES}
    if (folder / "table.npz").exists():
        with np.load(folder / "table.npz") as table:
            content["table"] = {name: table[name].tobytes() for name in table.files if name not in TIMES}
    steps = (mark.parent for mark in (folder / "checkpoints").rglob("_CHECKPOINT_METADATA"))
    for path in sorted({step.parent for step in steps}):
        leaves = jax.tree_util.tree_leaves_with_path(last_state(path))
        content[str(path.relative_to(folder))] = {
            jax.tree_util.keystr(key): np.asarray(leaf).tobytes() for key, leaf in leaves
        }
    return content


def differences(expected: dict[str, Any], folder: Path) -> str:
    """`equal`, or the parts that differ."""
    content = outcome(folder)
    names = [name for name in expected | content if expected.get(name) != content.get(name)]
    return f"DIFFERENT: {', '.join(names)}" if names else "equal"


def run(work: str, options: argparse.Namespace, draw: random.Random, console: Console) -> bool:
    """Whether every outcome of one kind of work is the uninterrupted one."""
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        cache, seconds, began = base / "cache", [], time.monotonic()
        for name in ("first", "again"):
            seconds.append(finish(command(work, options.data, base, name), cache))
        expected, duration = outcome(base / "first"), seconds[1]
        total = len(expected["records"])
        verdicts = [differences(expected, base / "again")]
        table = Table("folder", "kill", "after", "records", "of these stages", "outcome", title=(
            f"{work}: uninterrupted {seconds[0]:.1f} s, again {duration:.1f} s, {verdicts[0]}"
        ))  # fmt: skip

        def compare(name: str) -> None:
            verdicts.append(differences(expected, base / name))
            table.add_row(name, "", "to the end", f"{total}", "", verdicts[-1])

        # One kill in each part of the duration, in any order; a folder that is finished is compared.
        parts = draw.sample(range(options.kills), options.kills)
        moments = [(part + draw.random()) / options.kills * duration for part in parts]
        place = 0
        for number, after in enumerate(moments, 1):
            killed = kill(command(work, options.data, base, str(place)), cache, after)
            if not killed:
                compare(str(place))
                place += 1
                killed = kill(command(work, options.data, base, str(place)), cache, after)
            stored = records(base / str(place))
            stages = ", ".join(sorted({record[0].strip("'") for record in stored})) or "none"
            table.add_row(
                str(place), str(number) if killed else f"{number} (had ended)", f"{after:.1f} s",
                f"{len(stored)} of {total}", stages, "",
            )  # fmt: skip
        finish(command(work, options.data, base, str(place)), cache)
        compare(str(place))
        table.caption = f"{time.monotonic() - began:.0f} s in all"
        console.print(table)
    return all(verdict == "equal" for verdict in verdicts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default="pruning", help=f"of {', '.join(WORK)}; or all")
    parser.add_argument("--data", default="digits", help="name or absolute path")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    draw, console = random.Random(options.seed), Console(width=130)
    kinds = list(WORK) if options.work == "all" else options.work.split(",")
    if unknown := [name for name in kinds if name not in WORK]:
        parser.error(f"--work {unknown[0]}: choose of {', '.join(WORK)}, or all")
    # Every kind has its turn, also after a difference.
    equal = [run(work, options, draw, console) for work in kinds]
    return int(not all(equal))


if __name__ == "__main__":
    sys.exit(main())
