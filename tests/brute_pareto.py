"""Ranks and crowding distances one value at a time, by their definitions."""

import numpy as np


def beats(a, b):
    return (
        np.isfinite(a).all()
        and all(x >= y for x, y in zip(a, b, strict=True))
        and any(x > y for x, y in zip(a, b, strict=True))
    )


def brute_ranks(values):
    rank, level = np.full(len(values), len(values)), 0
    left = [row for row in range(len(values)) if np.isfinite(values[row]).all()]
    while left:
        now = [row for row in left if not any(beats(values[other], values[row]) for other in left)]
        rank[now], level = level, level + 1
        left = [row for row in left if row not in now]
    return rank


def brute_crowding(values, rank):
    distance = np.zeros(len(values))
    for level in range(len(values)):
        (rows,) = np.nonzero(rank == level)
        for column in values.T:
            order = rows[np.argsort(column[rows], kind="stable")]
            if len(order):
                distance[order[[0, -1]]] = np.inf
            width = float(np.ptp(column[order])) if len(order) else 0.0
            for low, row, high in zip(order, order[1:], order[2:], strict=False):
                if width:
                    distance[row] += (column[high] - column[low]) / width
    return distance
