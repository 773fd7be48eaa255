"""Differences between strategies over paired searches: ranks, and whether they can be told from chance.

    rank       1 for the best of the strategies in a search, equal ones share the mean of their places
    Friedman   whether mean ranks differ at all: chi-square with S - 1 degrees of freedom, corrected for ties
    Wilcoxon   signed-rank test of paired differences with 0, two-sided; zeros take part in ranking alone (Pratt)
    Holm       p_(i) becomes max_{j <= i} min(1, (m - j + 1) p_(j)) of m sorted p

Friedman, "The Use of Ranks to Avoid the Assumption of Normality", JASA 1937; Wilcoxon, "Individual Comparisons by
Ranking Methods", Biometrics 1945; Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
of Statistics 1979; as Demsar recommends, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006,
https://jmlr.org/papers/v7/demsar06a.html.

Letters: S strategies, R searches by each, the r-th of all with one key.
"""

import numpy as np
from scipy import stats


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Mean rank of each strategy over searches: float64[S, R], higher is better, -> float64[S]."""
    return stats.rankdata(-np.asarray(values), axis=0).mean(axis=1)


def friedman(values: np.ndarray) -> float:
    """The p of Friedman's test that all strategies of float64[S, R] are alike; 1 where all searches end in ties.

    Friedman's statistic is made for three strategies or more: of two it is the sign test's.
    """
    values = np.asarray(values)
    count, searches = values.shape
    ranks = stats.rankdata(-values, axis=0)
    # The variance of ranks within searches, which ties lower.
    spread = ((ranks - (count + 1) / 2) ** 2).sum()
    if count < 2 or spread == 0:
        return 1.0
    between = searches * ((ranks.mean(axis=1) - (count + 1) / 2) ** 2).sum()
    return float(stats.chi2.sf(between * searches * (count - 1) / spread, count - 1))


def signed_rank(first: np.ndarray, second: np.ndarray) -> float:
    """The p of Wilcoxon's test that paired values float64[R], twice, differ by chance; 1 where none differ."""
    difference = np.asarray(first) - np.asarray(second)
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference, zero_method="pratt", method="asymptotic").pvalue)


def holm(chances: np.ndarray) -> np.ndarray:
    """Holm's correction of m tests: p float64[m] -> float64[m], in their order."""
    chances = np.asarray(chances, np.float64)
    order = np.argsort(chances, kind="stable")
    stepped = np.maximum.accumulate(np.minimum(1, chances[order] * np.arange(len(chances), 0, -1)))
    out = np.empty(len(chances))
    out[order] = stepped
    return out
