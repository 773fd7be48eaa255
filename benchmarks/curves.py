"""What the first epochs of trainings say about their ends, and what stopping the hopeless ones saves and costs.

    python benchmarks/curves.py CURVES.npz [--orders 50]

CURVES holds `train_acc` and `valid_acc`, per cent, [cells, epochs]. Rank: Kendall's tau with the last validation value;
error: mean absolute error of it in per cent. `regression` is ten-fold: ridge on summaries of both curves, fitted to
completed trainings. Stopping: cells in random orders, ten trained to their end first; at the epochs of the table a
training stops where the probability of beating the best so far is below 5 %. Saved: share of all epochs. Lost: the best
validation value of all less that of the completed ones, and the share of orders in which the best one was stopped.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm
from sklearn.linear_model import BayesianRidge

from jnas.estimators import curves
from jnas.estimators.curves import HOPELESS, forecast, summaries
from jnas.studies.statistics import kendall

EPOCHS = (12, 25, 50, 100, 150)
FIRST = 10


def features(train: np.ndarray, valid: np.ndarray, epoch: int) -> np.ndarray:
    return np.concatenate([summaries(part[:, :epoch]) for part in (train, valid)], axis=1)


def regression(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the last value."""
    scale = x.std(0) + (x.std(0) == 0)
    model = BayesianRidge().fit((x - x.mean(0)) / scale, y)
    mean, deviation = model.predict((new - x.mean(0)) / scale, return_std=True)
    return mean, deviation


def ten_fold(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    fold = np.random.default_rng(0).permutation(len(y)) % 10
    out = np.empty(len(y))
    for part in range(10):
        out[fold == part] = regression(x[fold != part], y[fold != part], x[fold == part])[0]
    return out


def stopping(train: np.ndarray, valid: np.ndarray, orders: int, rule: str) -> tuple[float, float, float]:
    """Share of epochs saved, value lost, share of orders in which the best training was stopped."""
    cells, epochs = valid.shape
    ends, saved, lost, missed = valid[:, -1], [], [], []
    seen = {epoch: features(train, valid, epoch) for epoch in EPOCHS}
    for order in range(orders):
        line = np.random.default_rng(order).permutation(cells)
        complete, spent = list(line[:FIRST]), FIRST * epochs
        for cell in line[FIRST:]:
            best, stopped = ends[complete].max(), epochs
            for epoch in EPOCHS:
                if rule == "prior":
                    chance = forecast(valid[cell : cell + 1, :epoch], epochs, best).better[0]
                else:
                    x = seen[epoch]
                    mean, deviation = regression(x[complete], ends[complete], x[cell : cell + 1])
                    chance = norm.sf(best, mean[0], deviation[0])
                if chance < HOPELESS:
                    stopped = epoch
                    break
            spent += stopped
            complete += [cell] * (stopped == epochs)
        saved.append(1 - spent / (cells * epochs))
        lost.append(ends.max() - ends[complete].max())
        missed.append(ends.argmax() not in complete)
    return float(np.mean(saved)), float(np.mean(lost)), float(np.mean(missed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curves", type=Path)
    parser.add_argument("--orders", type=int, default=50)
    arguments = parser.parse_args()
    with np.load(arguments.curves, allow_pickle=False) as file:
        train, valid = (file[name].astype(np.float64) / 100 for name in ("train_acc", "valid_acc"))
    end = valid[:, -1]

    predictions = {
        "last value": lambda epoch: valid[:, epoch - 1],
        "best value so far": lambda epoch: valid[:, :epoch].max(1),
        "training accuracy": lambda epoch: train[:, epoch - 1],
        "sum of training accuracy": lambda epoch: train[:, :epoch].sum(1),
        "prior curves": lambda epoch: forecast(valid[:, :epoch], valid.shape[1]).mean,
        "regression": lambda epoch: ten_fold(features(train, valid, epoch), end),
    }
    table = Table("from the first", *[f"{epoch} epochs: tau, error" for epoch in EPOCHS])
    for name, predict in predictions.items():
        each = [predict(epoch) for epoch in EPOCHS]
        errors = [f", {100 * np.abs(value - end).mean():.1f}" if "sum" not in name else "" for value in each]
        table.add_row(
            name, *[f"{kendall(value, end):.3f}{error}" for value, error in zip(each, errors, strict=True)]
        )
    print(f"{len(valid)} trainings of {valid.shape[1]} epochs, {curves.CURVES:,} curves of the prior")
    Console(width=140).print(table)
    for rule in ("prior", "regression"):
        saved, lost, missed = stopping(train, valid, arguments.orders, rule)
        print(
            f"stopping by {rule}: {saved:.0%} saved, {100 * lost:.2f} lost, best one stopped in {missed:.0%}"
        )


if __name__ == "__main__":
    main()
