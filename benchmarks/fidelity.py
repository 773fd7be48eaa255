"""Strategies of short trainings beside others at equal epochs, over many seeds at once.

    python benchmarks/fidelity.py --table nb201_cifar10.csv.gz --columns 12=valid_acc_12ep 200=valid_acc \
        --worth test_acc --strategies random "hyperband eta=17 rungs=2" --seeds 500 --evaluations 50
    python benchmarks/fidelity.py --table nb201_curves.npz --strategies random "hyperband rungs=4"
    python benchmarks/fidelity.py --table digits --strategies random "hyperband eta=5 rungs=2"

A table is one of jnas's, a CSV whose columns are accuracies after some epochs, or an .npz of `architecture` and
`valid_acc` [A, epochs]. `random@12` searches by the accuracy after 12 epochs alone, and pays for them. The worth of an
incumbent, printed as mean ± standard deviation over seeds, is a column of the CSV, or the mean over trainings after the
last epoch.
"""

import argparse
from functools import partial

import jax
import numpy as np

from jnas import spaces
from jnas.config.entrants import entrants
from jnas.estimators.compact_table import Table, from_csv, open_table
from jnas.estimators.tabular import on_space, tabular, used
from jnas.run.search import within
from jnas.studies.searching import at_evaluations, incumbents, searches

STEPS = (2, 5, 10, 20, 50, 100, 200, 500)


def opened(path: str, columns: list[str], worth: str) -> tuple[Table, np.ndarray]:
    """(table with curves, worth float32[size])."""
    if columns:
        table = open_table(path)
        epochs, names = zip(*(pair.split("=") for pair in columns), strict=True)
        accuracy = np.stack(
            [from_csv(path, table.space, name).accuracy[:, 0, -1] for name in names], axis=-1
        )[:, None]
        table = Table(
            table.space, table.data, table.architectures, np.array(epochs, np.int32), accuracy, table.seconds
        )
        judged = from_csv(path, table.space, worth)
        return table, on_space(judged, judged.mean())
    if path.endswith("curves.npz"):
        file, space = np.load(path), spaces.get("nasbench201")
        rows = np.stack([space.from_string(text) for text in file["architecture"].tolist()])
        curves, unknown = file["valid_acc"][:, None], np.full(len(rows), np.nan, np.float32)
        table = Table(
            space.name, path, rows, np.arange(1, 1 + curves.shape[-1], dtype=np.int32), curves, unknown
        )
    else:
        table = open_table(path)
    return table, on_space(table, table.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", default="digits", help="digits, FILE.npz or FILE.csv")
    parser.add_argument("--columns", nargs="*", default=[], help="EPOCHS=COLUMN of a CSV, ascending")
    parser.add_argument("--worth", default="test_acc", help="column of a CSV by which an incumbent is judged")
    parser.add_argument("--strategies", nargs="+", default=["random", "hyperband"])
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument(
        "--evaluations", type=int, default=50, help="trainings in full that a search pays for"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    table, worth = opened(arguments.table, arguments.columns, arguments.worth)
    whole = spaces.get(table.space)
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.seeds)
    steps = [step for step in STEPS if step <= arguments.evaluations]
    print("| strategy | " + " | ".join(f"@{step}" for step in steps) + " | trainings | seconds |")
    print("|---" * (len(steps) + 3) + "|")
    for text in arguments.strategies:
        name, _, epoch = text.partition("@")
        last = int(epoch or table.epochs[-1])
        # So many shorter trainings cost as many epochs.
        factor = table.epochs[-1] // last
        count = arguments.evaluations * factor
        space = within(whole, tabular(table, epoch=last))
        ((_, _, settings),) = entrants([f"{name} batch=1"])

        estimator = tabular(table, epoch=last)
        make = partial(settings.make, space, estimator.objectives)
        paid = partial(used, table, epoch=last)
        found = searches(space, make, estimator, keys, count, used=paid)
        best = incumbents(found.told, worth[found.numbers], found.share)
        reached = at_evaluations(best, found.used, count)[:, np.array(steps) * factor - 1]
        cells = [f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in reached.T]
        trainings = (found.used <= count).sum(axis=1).mean()
        print(f"| {text} | {' | '.join(cells)} | {trainings:.0f} | {found.running:.1f} |", flush=True)


if __name__ == "__main__":
    main()
