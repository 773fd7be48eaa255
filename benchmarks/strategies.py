"""Search strategies on a table: accuracy of the incumbent after some evaluations, over many seeds at once.

    python benchmarks/strategies.py --table nb201_cifar10.csv.gz --signal valid_acc_12ep --worth test_acc \
        --strategies random "aging population=10 tournament=3" --seeds 500 --evaluations 500

A strategy is a name with its settings behind it, as flags of `jnas search` without `--strategy`. An evaluation shows
the signal; the worth of the architecture that showed the best is printed as mean ± standard deviation over seeds.
Signal and worth are columns of a CSV; of jnas's own tables the signal is an epoch, 0 for the last, and the worth the
mean over trainings. Seconds are those after compilation.
"""

import argparse
import csv
import gzip
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from jnas import spaces
from jnas.config import read
from jnas.config.search import kind
from jnas.errors import InputError, unknown_name
from jnas.estimators.compact_table import Table, open_table
from jnas.estimators.tabular import on_space, tabular
from jnas.run.loop import simulate
from jnas.run.search import within
from jnas.studies.search import incumbents
from jnas.types import Estimator, StrategySettings

STEPS = (20, 50, 100, 150, 200, 500)


def column(path: str, name: str, dtype: type = np.float32) -> np.ndarray:
    """A column of a CSV or gzipped CSV: [A]."""
    opener = gzip.open if Path(path).suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        if name not in (rows.fieldnames or ()):
            raise unknown_name("column", name, rows.fieldnames or ())
        return np.array([row[name] for row in rows], dtype)


def opened(path: str, signal: str, worth: str) -> tuple[Table, Estimator, np.ndarray]:
    """(table, estimator that shows the signal, worth float32[size])."""
    table = open_table(path)
    if not path.endswith((".csv", ".csv.gz")):
        return table, tabular(table, epoch=int(signal or 0)), on_space(table, table.mean())
    shown = replace(table, accuracy=column(path, signal or "test_acc")[:, None, None])
    return shown, tabular(shown), on_space(table, column(path, worth))


def settings_of(text: str) -> StrategySettings:
    """The settings in a text such as `aging population=10` or `distinct:preselect:local of.factor=8`."""
    name, *given = text.split()
    pairs = (setting.partition("=") for setting in given)
    options = [("strategy", name), *((f"strategy.{key}", value) for key, _, value in pairs)]
    return read.from_options(kind(), options).strategy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", default="digits", help="digits, FILE.npz or FILE.csv")
    parser.add_argument("--signal", default="", help="column or epoch that an evaluation shows")
    parser.add_argument("--worth", default="test_acc", help="column by which an incumbent is judged")
    parser.add_argument("--strategies", nargs="+", default=["random", "aging", "local"])
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    table, estimator, worth = opened(arguments.table, arguments.signal, arguments.worth)
    whole = spaces.get(table.space)
    # A table of the whole space restricts nothing.
    space = whole if np.isfinite(worth).all() else within(whole, estimator)
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.seeds)
    steps = [step for step in STEPS if step <= arguments.evaluations]
    print("| strategy | " + " | ".join(f"@{step}" for step in steps) + " | distinct | seconds |")
    print("|---" * (len(steps) + 3) + "|")
    for text in arguments.strategies:
        settings = settings_of(text)
        strategy = settings.make(space, estimator.objectives, arguments.evaluations)
        if not strategy.jittable:
            raise InputError(f"strategy {text} does not run many searches at once: choose another")
        batch = len(jax.eval_shape(strategy.ask, keys[0], strategy.init(keys[0]))[0].architectures)
        rounds = -(-arguments.evaluations // batch)
        program = simulate.lower(keys, strategy=strategy, estimator=estimator, rounds=rounds).compile()
        start = time.perf_counter()
        asked, told = jax.device_get(program(keys))
        seconds = time.perf_counter() - start
        numbers = np.asarray(whole.index(asked[:, : arguments.evaluations]))
        reached = incumbents(told[:, : arguments.evaluations, 0], worth[numbers])
        cells = [
            f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in reached[:, np.array(steps) - 1].T
        ]
        distinct = np.mean([len(np.unique(row)) for row in numbers])
        print(f"| {text} | {' | '.join(cells)} | {distinct:.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
