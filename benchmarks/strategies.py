"""Search strategies on a table: accuracy of the incumbent after some evaluations, over many seeds at once.

    python benchmarks/strategies.py --table nb201_cifar10.csv.gz --signal valid_acc_12ep --worth test_acc \
        --strategies random "aging population=10 tournament=3" --seeds 500 --evaluations 500

A strategy is a name with its settings behind it. An evaluation shows the signal; the worth of the architecture that
showed the best is printed as mean ± standard deviation over seeds. Signal and worth are columns of a CSV; of jnas's own
tables the signal is an epoch, 0 for the last, and the worth the mean over trainings. Seconds are those after
compilation.
"""

import argparse
from functools import partial

import jax
import numpy as np

from jnas import spaces
from jnas.config.entrants import entrants
from jnas.errors import InputError
from jnas.estimators.compact_table import Table, from_csv, open_table
from jnas.estimators.tabular import on_space, tabular
from jnas.run.search import within
from jnas.studies.searching import incumbents, searches
from jnas.types import Estimator

STEPS = (20, 50, 100, 150, 200, 500)


def opened(path: str, signal: str, worth: str) -> tuple[Table, Estimator, np.ndarray]:
    """(table, estimator that shows the signal, worth float32[size])."""
    table = open_table(path)
    if not path.endswith((".csv", ".csv.gz")):
        return table, tabular(table, epoch=int(signal or 0)), on_space(table, table.mean())
    shown, judged = (from_csv(path, table.space, column) for column in (signal or "test_acc", worth))
    return shown, tabular(shown), on_space(judged, judged.mean())


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
    for text, _, settings in entrants(arguments.strategies):
        make = partial(settings.make, space, estimator.objectives)
        if not make(arguments.evaluations).jittable:
            raise InputError(f"strategy {text} does not run many searches at once: choose another")
        found = searches(space, make, estimator, keys, arguments.evaluations)
        reached = incumbents(found.told, worth[found.numbers], found.share)
        cells = [
            f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in reached[:, np.array(steps) - 1].T
        ]
        distinct = np.mean([len(np.unique(row)) for row in found.numbers])
        print(f"| {text} | {' | '.join(cells)} | {distinct:.0f} | {found.running:.1f} |", flush=True)


if __name__ == "__main__":
    main()
