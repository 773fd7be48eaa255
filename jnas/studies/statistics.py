"""Quality of a score that ranks architectures: rank correlations and the cost of choosing by it.

Scores are oriented, higher is better; -inf is a failure, which ranks last. Letters: A architectures.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, spearmanr

Statistic = Callable[[np.ndarray, np.ndarray], float]


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def differs(self, other: "Estimate") -> bool:
        """True where the intervals are apart."""
        return self.low > other.high or self.high < other.low


def _ranks(scores: np.ndarray) -> np.ndarray:
    # Correlations of infinities are not defined, those of ranks are.
    return np.unique(scores, return_inverse=True)[1].reshape(-1)


def kendall(scores: np.ndarray, accuracy: np.ndarray) -> float:
    """Kendall's tau-b of float[A] with float[A]; nan where all are equal."""
    return float(kendalltau(_ranks(scores), accuracy).statistic)


def spearman(scores: np.ndarray, accuracy: np.ndarray) -> float:
    """Spearman's rho; nan where all are equal."""
    ranks = _ranks(scores)
    if len(np.unique(ranks)) < 2 or len(np.unique(accuracy)) < 2:
        return float("nan")
    return float(spearmanr(ranks, accuracy).statistic)


def precision_at_top(scores: np.ndarray, accuracy: np.ndarray, share: float = 0.05) -> float:
    """Part of the best `share` by score that is among the best `share` by accuracy: in [0, 1].

    Ties at the edge count in proportion to the room that is left for them.
    """
    room = max(1, round(share * len(scores)))

    def membership(values: np.ndarray) -> np.ndarray:
        edge = np.sort(values)[-room]
        above, at = values > edge, values == edge
        return above + at * (room - above.sum()) / at.sum()

    return float(np.sum(membership(scores) * membership(accuracy)) / room)


def regret(scores: np.ndarray, accuracy: np.ndarray) -> float:
    """Accuracy of the best architecture minus that of the one with the best score, of equals their mean; >= 0."""
    return float(accuracy.max() - accuracy[scores == scores.max()].mean())


class Ranking(NamedTuple):
    """Statistics of a score. precision: among the best. regret: of taking the best score, in percentage points."""

    kendall: Estimate
    spearman: Estimate
    precision: Estimate
    regret: Estimate


def ranking(scores: np.ndarray, accuracy: np.ndarray, resamples: int, top: float = 0.05) -> Ranking:
    """Statistics of scores float[A]; of float[A, S] their means over S, resampled together.

    top: the share of the architectures that precision is counted among.
    """

    def mean(statistic: Statistic) -> Statistic:
        return lambda scores, accuracy: float(
            np.mean([statistic(column, accuracy) for column in np.atleast_2d(scores.T)])
        )

    functions = (kendall, spearman, partial(precision_at_top, share=top), regret)
    return Ranking(*(with_interval(mean(function), scores, accuracy, resamples) for function in functions))


def with_interval(statistic: Statistic, scores: np.ndarray, accuracy: np.ndarray, resamples: int) -> Estimate:
    """The statistic and its `interval`."""
    return Estimate(statistic(scores, accuracy), *interval(statistic, scores, accuracy, resamples))


def interval(
    statistic: Statistic, scores: np.ndarray, accuracy: np.ndarray, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap over architectures (Efron and Tibshirani, 1993)."""
    generator = np.random.default_rng(seed)
    draws = (generator.integers(0, len(accuracy), len(accuracy)) for _ in range(resamples))
    values = [statistic(scores[draw], accuracy[draw]) for draw in draws]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
