"""What training-free scores say about trained accuracy: Kendall's tau of every proxy and of combinations.

    jnas score --proxies naswot,synflow,... --archs all --data D --out scores.csv      (one file or several)
    python benchmarks/correlation.py scores.csv [more.csv ...] --table TABLE.csv.gz [--trained 20]
    python benchmarks/correlation.py scores.csv --table TABLE.csv.gz --other PROXIES.csv.gz

TABLE has the columns `architecture` and `test_acc`. Failed scores rank last. Intervals are 95 % percentile bootstraps
over cells. Whatever is chosen or fitted (which proxies a combination takes; the learned combination's trained cells)
is so on a fixed random half of the distinct cells, and reported on the other half; published combinations and single
proxies are reported on all cells as well. --other compares with the scores of another implementation instead, in
columns of NAS-Bench-Suite-Zero's names: Spearman on the cells where both are finite.
"""

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm, spearmanr

from jnas import spaces
from jnas.estimators.compact_table import read_accuracies
from jnas.estimators.predictor import predict
from jnas.proxies import PROXIES
from jnas.proxies.combination import log_rank_sum, oriented, rank_sum
from jnas.studies import statistics
from jnas.studies.statistics import kendall as tau

SPLIT_SEED = 0
LARGEST_COMBINATION = 8
DRAWS = 50
# NAS-Bench-Suite-Zero's names, where they are not ours.
OTHER_NAMES = {"naswot": "nwot", "jacob_cov": "jacov"}
# What the papers combine, where the files hold it.
PUBLISHED = {
    "TE-NAS (rank sum)": (rank_sum, ("ntk", "regions")),
    "AZ-NAS (log rank sum)": (
        log_rank_sum,
        ("az_expressivity", "az_progressivity", "az_trainability", "flops"),
    ),
}


def read_scores(paths: list[Path]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Architectures that all files hold, and their oriented scores by proxy; the first file wins."""
    tables = [
        {row["architecture"]: row for row in csv.DictReader(path.open(encoding="utf-8"))} for path in paths
    ]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    scores: dict[str, np.ndarray] = {}
    for table in tables:
        columns = next(iter(table.values()))
        for proxy in (name for name in PROXIES if name in columns and name not in scores):
            values = np.array([float(table[name][proxy]) for name in names])
            # Sizes stand in every table, those that were not asked for without a status.
            statuses = [table[name].get(f"{proxy}_status", "ok") for name in names]
            scores[proxy] = oriented(values, statuses, PROXIES[proxy].sign)
    return names, scores


def halves(names: list[str]) -> np.ndarray:
    """Whether each cell is in the half that choices are made on: all cells of a class are on one side."""
    space = spaces.get("nasbench201")
    cells = np.asarray(space.canonical(np.stack([space.from_string(name) for name in names])))
    _, group = np.unique(cells, axis=0, return_inverse=True)
    order = np.random.default_rng(SPLIT_SEED).permutation(group.max() + 1)
    return np.isin(group.reshape(-1), order[: len(order) // 2])


def interval(scores: np.ndarray, accuracy: np.ndarray, resamples: int) -> str:
    low, high = statistics.interval(tau, scores, accuracy, resamples)
    return f"{tau(scores, accuracy):.3f} [{low:.3f}, {high:.3f}]"


def choose(scores: dict[str, np.ndarray], accuracy: np.ndarray) -> list[tuple[str, float]]:
    """Proxies in the order in which each adds most to the tau of the log rank sum, with the tau reached."""
    chosen: list[tuple[str, float]] = []
    while len(chosen) < min(LARGEST_COMBINATION, len(scores)):
        taken = [name for name, _ in chosen]
        reached = {
            name: tau(log_rank_sum({key: scores[key] for key in (*taken, name)}), accuracy)
            for name in scores
            if name not in taken
        }
        best = max(reached, key=reached.__getitem__)
        if chosen and reached[best] <= chosen[-1][1]:
            break
        chosen.append((best, reached[best]))
    return chosen


def compare(names: list[str], scores: dict[str, np.ndarray], accuracy: np.ndarray, path: Path) -> Table:
    """Spearman of each proxy with the column of another implementation."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        other = {row["architecture"]: row for row in csv.DictReader(stream)}
    columns = next(iter(other.values()))
    table = Table(title=f"another implementation's scores, {len(names):,} cells")
    for heading in ("proxy", "Spearman", "cells", "tau with test accuracy"):
        table.add_column(heading, justify="left" if heading == "proxy" else "right")
    for name, values in scores.items():
        column = OTHER_NAMES.get(name, name)
        if column not in columns:
            continue
        theirs = np.array(
            [float(other[cell][column] or "nan") if cell in other else np.nan for cell in names]
        )
        both = np.isfinite(values) & np.isfinite(theirs)
        # Theirs is not oriented: the sign of ours is that of the proxy.
        rho = PROXIES[name].sign * float(spearmanr(values[both], theirs[both]).statistic)
        table.add_row(name, f"{rho:.4f}", str(both.sum()), f"{tau(values, accuracy):.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, nargs="+")
    parser.add_argument("--table", required=True)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--trained", type=int, default=20)
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()
    names, scores = read_scores(arguments.scores)
    known = read_accuracies(arguments.table)
    keep = [index for index, name in enumerate(names) if name in known]
    names = [names[index] for index in keep]
    scores = {name: values[keep] for name, values in scores.items()}
    accuracy = np.array([known[name] for name in names])
    console = Console(width=150)
    if arguments.other:
        console.print(compare(names, scores, accuracy, arguments.other))
        return
    fitting = halves(names)

    def row(table: Table, label: str, values: np.ndarray, *more: str) -> None:
        table.add_row(
            label,
            interval(values, accuracy, arguments.resamples),
            f"{tau(values[~fitting], accuracy[~fitting]):.3f}",
            *more,
        )

    single = Table(title=f"Kendall tau with test accuracy, {len(names):,} cells")
    for heading in ("proxy", "all cells [95 %]", "held-out half", "failed"):
        single.add_column(heading, justify="left" if heading == "proxy" else "right")
    for name in sorted(scores, key=lambda name: -tau(scores[name], accuracy)):
        row(single, name, scores[name], f"{np.isinf(scores[name]).sum():,}")
    console.print(single)

    fitted = {name: values[fitting] for name, values in scores.items()}
    chosen = [name for name, _ in choose(fitted, accuracy[fitting])]
    combined = Table(title="combinations")
    for heading in ("combination", "all cells [95 %]", "held-out half"):
        combined.add_column(heading, justify="left" if heading == "combination" else "right", overflow="fold")
    for label, (combine, members) in PUBLISHED.items():
        if all(name in scores for name in members):
            row(combined, label, combine({name: scores[name] for name in members}))
    for count in range(2, len(chosen) + 1):
        part = {name: scores[name] for name in chosen[:count]}
        row(combined, f"log rank sum of {', '.join(part)}", log_rank_sum(part))
    console.print(combined)

    part = {name: scores[name] for name in chosen}
    generator, reached, inside = np.random.default_rng(1), [], []
    for _ in range(DRAWS):
        trained = generator.choice(np.flatnonzero(fitting), arguments.trained, replace=False)
        prediction = predict(part, trained, accuracy[trained])
        reached.append(tau(prediction.mean[~fitting], accuracy[~fitting]))
        # Standing among the trained cells is what is predicted: compare with that of the held-out cells.
        standing = np.searchsorted(np.sort(accuracy[trained]), accuracy[~fitting]) / arguments.trained
        expected = np.clip(standing, 0.5 / arguments.trained, 1 - 0.5 / arguments.trained)
        error = np.abs(norm.ppf(expected) - prediction.mean[~fitting])
        inside.append(np.mean(error <= 1.96 * prediction.deviation[~fitting]))
    console.print(
        f"learned combination of {', '.join(chosen)} from {arguments.trained} trained cells, "
        f"{DRAWS} draws, held-out half: "
        f"tau {np.mean(reached):.3f}, standard deviation {np.std(reached):.3f}, least {min(reached):.3f}; "
        f"95 % intervals hold {100 * np.mean(inside):.0f} %"
    )


if __name__ == "__main__":
    main()
