"""Cells that searches of the DARTS space found, beside random ones of it.

    python benchmarks/darts_cells.py RUN [RUN ...] --data D [--random 200]

RUN: folders of finished searches. All cells are scored alike, on one draw of weights and images; for each found
cell the table shows the value and, in brackets, the percentage of random cells that have a lower one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import jnas
from jnas import spaces
from jnas.run.compilation_cache import enable_compilation_cache

COLUMNS = ("ntk", "regions", "params", "flops")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    enable_compilation_cache()
    import jax

    space = spaces.get("darts")
    found = [json.loads((run / "result.json").read_text())["architecture"] for run in options.runs]
    drawn = np.asarray(space.sample(jax.random.key(options.seed), options.random))
    cells = np.concatenate([np.stack([space.from_string(text) for text in found]), drawn])
    settings = {
        "ntk": {"batch": 14},
        "regions": {"inputs": 3000},
        "network": {"channels": 36, "cells_per_stage": 6},
    }
    scores = jnas.score(
        "darts", cells, ["ntk", "regions"], options.data, seed=options.seed, settings=settings
    )
    table = Table(title=f"found cells beside {options.random} random ones; % of those that have less")
    for heading in ("", "condition number", "linear regions", "parameters, M", "FLOPs, M"):
        table.add_column(heading, justify="right")
    values = {name: np.asarray(scores[name], float) for name in COLUMNS}
    scale = {"params": 1e6, "flops": 1e6}
    for place, run in enumerate(options.runs):
        row = []
        for name in COLUMNS:
            own, others = values[name][place], values[name][len(found) :]
            row.append(f"{own / scale.get(name, 1):,.4g} ({100 * np.mean(others < own):.0f} %)")
        table.add_row(run.name, *row)
    medians = [f"{np.median(values[name][len(found) :]) / scale.get(name, 1):,.4g}" for name in COLUMNS]
    table.add_row("median of random", *medians)
    Console(width=110).print(table)
    better = (values["ntk"][: len(found), None] < values["ntk"][None, len(found) :]).mean()
    print(f"a found cell has a lower condition number than {100 * better:.0f} % of random cells, on average")


if __name__ == "__main__":
    main()
