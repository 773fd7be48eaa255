"""Accuracy against latency on a table, many searches at once: hypervolume by evaluations.

    python benchmarks/objectives.py --table nb201_cifar10.csv.gz --latency nb201_latency.csv.gz --out objectives.png

An evaluation shows an accuracy and a latency. The hypervolume is that of all evaluations so far, as a share
of that of the table; its reference is the corner of the table's front, (lowest accuracy, highest latency), moved
outwards by a tenth of its sides. LEMONADE knows latencies before evaluation. `scalarised` is aging evolution of
accuracy (latency / target)^w (Tan et al., "MnasNet", CVPR 2019, https://arxiv.org/abs/1807.11626).
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from strategies import column, settings_of

from jnas import spaces
from jnas.estimators.compact_table import open_table
from jnas.estimators.scores import looked_up
from jnas.estimators.tabular import on_space
from jnas.estimators.wraps import weighted_product
from jnas.report import plots
from jnas.run.loop import simulate
from jnas.spaces import Space
from jnas.strategies import pareto
from jnas.strategies.lemonade import lemonade
from jnas.studies.base import style
from jnas.types import Estimator, Strategy

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
    parser.add_argument("--strategies", nargs="+", default=["nsga2 batch=1", "nsga2"])
    parser.add_argument("--children", type=int, default=100, help="mutants of lemonade")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--out", help="figure, .png")
    arguments = parser.parse_args()

    table = open_table(arguments.table)
    space, names = spaces.get(table.space), ("accuracy", "latency")
    columns = np.stack(
        [
            on_space(table, column(arguments.table, arguments.accuracy)),
            -of_architectures(space, arguments.latency, arguments.device),
        ],
        axis=-1,
    )
    estimator = looked_up(space, names, columns)
    corners = columns[np.asarray(pareto.front(columns))]
    reference = corners.min(0) - 0.1 * np.ptp(corners, axis=0)
    whole = pareto.hypervolume(corners, reference)
    target = arguments.target or float(-np.median(columns[:, 1]))
    print(f"{len(corners)} on the front, {corners.min(0)} to {corners.max(0)}; target {target:.3g}")

    # Each by name: the strategy, and what it is told.
    budget = arguments.evaluations
    scalar = weighted_product(estimator, target)
    latency = jnp.asarray(columns[:, 1:])
    settings = settings_of(f"lemonade children={arguments.children}")
    runs: dict[str, tuple[Strategy, Estimator]] = {
        "random search": (settings_of("random batch=1").make(space, names, budget), estimator),
        "scalarised": (settings_of("aging").make(space, scalar.objectives, budget), scalar),
        **{text: (settings_of(text).make(space, names, budget), estimator) for text in arguments.strategies},
        "lemonade": (
            lemonade(space, settings, names, budget, lambda rows: -latency[space.index(rows)]),
            estimator,
        ),
    }
    steps = np.unique(np.geomspace(5, budget, 40).astype(int).tolist() + [s for s in STEPS if s <= budget])
    shown = [step for step in STEPS if step <= budget]
    print("| strategy | " + " | ".join(f"@{step}" for step in shown) + " | distinct |")
    print("|---" * (len(shown) + 2) + "|")
    keys, curves = jax.random.split(jax.random.key(0), arguments.seeds), {}
    for name, (strategy, shows) in runs.items():
        batch = len(jax.eval_shape(strategy.ask, keys[0], strategy.init(keys[0]))[0].architectures)
        asked, _ = simulate(keys, strategy=strategy, estimator=shows, rounds=-(-budget // batch))
        numbers = np.asarray(space.index(asked))[:, :budget]
        told = columns[numbers]
        shares = np.stack([pareto.hypervolume(told[:, :step], reference) for step in steps], axis=1) / whole
        curves[name] = 100 * shares
        cells = [
            f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
            for values in curves[name][:, np.searchsorted(steps, shown)].T
        ]
        distinct = np.mean([len(np.unique(row)) for row in numbers])
        print(f"| {name} | {' | '.join(cells)} | {distinct:.0f} |", flush=True)
    if arguments.out:
        Path(arguments.out).write_bytes(plots.as_png(lambda figure: draw(figure, steps, curves), (7.2, 4.4)))


def of_architectures(space: Space, path: str, name: str) -> np.ndarray:
    """A column of a CSV by the architectures in it: float32[size]."""
    texts, values = column(path, "architecture", str), column(path, name)
    places = np.asarray(space.index(np.stack([space.from_string(text) for text in texts])))
    out = np.full(space.size, np.nan, np.float32)
    out[places] = values
    return out


def draw(figure: Any, steps: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """Means with 95 % intervals."""
    axes = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        mean, error = values.mean(0), 1.96 * values.std(0, ddof=1) / np.sqrt(len(values))
        look = style(number)
        axes.plot(steps, mean, linewidth=2, label=name, **look)
        axes.fill_between(steps, mean - error, mean + error, color=look["color"], alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("evaluations (logarithmic)")
    axes.set_ylabel("hypervolume, % of the table's")
    axes.legend(frameon=False, loc="lower right")


if __name__ == "__main__":
    main()
