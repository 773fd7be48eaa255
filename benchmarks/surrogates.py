"""Surrogates by number of labels: Kendall's tau on a table's unlabelled cells, and how often they are sure rightly.

    python benchmarks/surrogates.py --table TABLE.csv.gz [--value test_acc] [--population CELLS.csv.gz]
                                    [--scores SCORES.csv.gz] [--labels 20,100,1024] [--draws 10]

TABLE has the columns `architecture` and the value to predict, accuracy or latency; CELLS lists the architectures of
the population; SCORES are training-free scores of another implementation, in columns of NAS-Bench-Suite-Zero's names:
the population then is what it holds, and scores stand beside the graph features, or as a prior (log rank sum of
synflow, naswot, jacob_cov, params and zen, chosen by hand before any tau was seen). Values after the sign are the
deviation over draws of the labelled cells. `90 %` is the share of unlabelled cells within the central interval of 90 %.
"""

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from jnas import spaces
from jnas.estimators.predictor import normal_scores
from jnas.estimators.surrogates import SURROGATES, predict
from jnas.proxies.combination import log_rank_sum, oriented
from jnas.spaces.graph_features import graph_features
from jnas.strategies.encodings import path_encoding
from jnas.studies.statistics import kendall

PRIOR = ("synflow", "nwot", "jacov", "params", "zen")
# Half of a normal distribution's central 90 %.
WIDTH = norm.ppf(0.95)


def column(path: Path, name: str) -> dict[str, float]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return {row["architecture"]: float(row[name]) for row in csv.DictReader(file)}


def listed(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [row["architecture"] for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--value", default="test_acc")
    parser.add_argument("--population", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--labels", default="20,100,1024")
    parser.add_argument("--draws", type=int, default=10)
    arguments = parser.parse_args()

    space, accuracies = spaces.get("nasbench201"), column(arguments.table, arguments.value)
    names = listed(arguments.population) if arguments.population else list(accuracies)
    scores: dict[str, np.ndarray] = {}
    if arguments.scores:
        with gzip.open(arguments.scores, "rt", encoding="utf-8") as file:
            rows = {row["architecture"]: row for row in csv.DictReader(file)}
        names = [name for name in names if name in rows]
        for score in [name for name in next(iter(rows.values())) if name not in ("index", "architecture")]:
            values = oriented(np.array([float(rows[name][score]) for name in names]), None, 1)
            scores[score] = np.where(np.isfinite(values), values, np.nanmin(values[np.isfinite(values)]))
    architectures = np.stack([space.from_string(name) for name in names])
    accuracy = np.array([accuracies[name] for name in names])

    graph = graph_features(space, architectures)[0]
    features: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "one-hot": (np.asarray(space.one_hot(architectures)).reshape(len(names), -1), None),
        "paths": (np.asarray(path_encoding(space, 3)(architectures)), None),
        "graph": (graph, None),
    }
    if scores:
        normal = np.stack([normal_scores(values) for values in scores.values()], axis=1)
        prior = log_rank_sum({name: scores[name] for name in PRIOR})
        features |= {
            "graph, scores": (np.concatenate([graph, normal], axis=1), None),
            "graph, prior": (graph, prior),
            "graph, scores, prior": (np.concatenate([graph, normal], axis=1), prior),
        }
        print(f"the prior alone: tau {kendall(prior, accuracy):.3f}; ranks of {', '.join(PRIOR)}")

    labels = [int(word) for word in arguments.labels.split(",")]
    table = Table("surrogate", "features", *[f"{count} labels: tau, 90 %" for count in labels])
    for name in SURROGATES:
        for kind, (values, prior) in features.items():
            cells = []
            for count in labels:
                taus, shares = [], []
                for draw in range(arguments.draws):
                    order = np.random.default_rng(draw).permutation(len(names))
                    labelled, rest = order[:count], order[count:]
                    mean, deviation = predict(name, values, labelled, accuracy[labelled], draw, prior)
                    taus.append(kendall(mean[rest], accuracy[rest]))
                    # The normal score that the labelled cells would give each cell.
                    place = np.searchsorted(np.sort(accuracy[labelled]), accuracy[rest]) / count
                    truth = norm.ppf(np.clip(place, 0.5 / count, 1 - 0.5 / count))
                    shares.append(np.mean(np.abs(truth - mean[rest]) <= WIDTH * deviation[rest]))
                cells.append(f"{np.mean(taus):.3f} ± {np.std(taus):.3f}, {np.mean(shares):.0%}")
            table.add_row(name, kind, *cells)
    print(
        f"{len(names)} cells, {arguments.draws} draws; the number of parameters alone is in benchmarks/correlation.py"
    )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
