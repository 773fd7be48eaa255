"""Accuracy against latency on a table, many searches at once: hypervolume by evaluations.

    python benchmarks/objectives.py --table nb201_cifar10.csv.gz --latency nb201_latency.csv.gz --out objectives.png

As `jnas study --search.cost` (`jnas.studies.objectives`), but an evaluation shows a column of the table, by which the
hypervolume is counted too; with further strategies, and numbers after some evaluations.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jnas import spaces
from jnas.config.entrants import entrants
from jnas.estimators.compact_table import from_csv, open_table
from jnas.estimators.tabular import on_space, tabular
from jnas.report import plots
from jnas.studies import objectives
from jnas.studies.search_figures import Curve, curves_figure
from jnas.studies.searching import searches

STEPS = (50, 100, 200, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", required=True, help="FILE.csv of architecture, test_acc and the accuracy")
    parser.add_argument("--accuracy", default="valid_acc_12ep", help="column that an evaluation shows")
    parser.add_argument("--latency", required=True, help="FILE.csv of architecture and the latency")
    parser.add_argument("--device", default="edgegpu_latency_ms", help="column of the latency")
    parser.add_argument(
        "--target", type=float, default=0, help="latency of scalarised; 0: the table's median"
    )
    parser.add_argument("--strategies", nargs="+", default=["nsga2 batch=1"])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--out", help="figure, .png")
    arguments = parser.parse_args()

    whole = open_table(arguments.table)
    space, names = spaces.get(whole.space), ("accuracy", "cost")
    table = from_csv(arguments.table, space.name, arguments.accuracy)
    latency = objectives.costs(space, f"{arguments.latency}:{arguments.device}", np.ones(space.size, bool))
    values = np.stack([on_space(table, table.mean()), -latency], axis=-1)
    estimator = objectives.with_cost(space, tabular(table), latency)
    corners = objectives.front(values)
    target = arguments.target or float(np.median(latency))
    print(f"{len(corners)} on the front, {corners.min(0)} to {corners.max(0)}; target {target:.3g}")

    # Each by name: what makes the strategy, and what it is told.
    budget = arguments.evaluations
    runs = objectives.entrants(space, estimator, latency, target)
    for entrant in entrants(arguments.strategies):
        runs[entrant.key] = (partial(entrant.settings.make, space, names), estimator)
    steps = np.unique(np.geomspace(5, budget, 40).astype(int).tolist() + [s for s in STEPS if s <= budget])
    shown = [step for step in STEPS if step <= budget]
    print("| strategy | " + " | ".join(f"@{step}" for step in shown) + " | distinct |")
    print("|---" * (len(shown) + 2) + "|")
    keys, curves = jax.random.split(jax.random.key(0), arguments.seeds), {}
    for name, (make, shows) in runs.items():
        numbers = searches(space, make, shows, keys, budget).numbers
        curves[name] = objectives.shares(values, numbers, steps)
        cells = [
            f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
            for values in curves[name][:, np.searchsorted(steps, shown)].T
        ]
        distinct = np.mean([len(np.unique(row)) for row in numbers])
        print(f"| {name} | {' | '.join(cells)} | {distinct:.0f} |", flush=True)
    if arguments.out:
        panels = {"evaluations": {name: Curve(steps, values) for name, values in curves.items()}}
        figure = curves_figure("objectives", "", panels, "hypervolume, % of the table's")
        Path(arguments.out).write_bytes(plots.as_png(figure.draw, figure.size))


if __name__ == "__main__":
    main()
