import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from jnas.studies import statistics

values = st.lists(st.integers(0, 6), min_size=4, max_size=30)


@given(values, st.integers(0, 2**31))
def test_correlations_are_scipys_on_finite_scores(scores, seed):
    accuracy = np.random.default_rng(seed).random(len(scores))
    scores = np.array(scores, float)
    for ours, theirs in (
        (statistics.kendall, scipy.stats.kendalltau),
        (statistics.spearman, scipy.stats.spearmanr),
    ):
        if len(set(scores)) > 1:
            np.testing.assert_allclose(ours(scores, accuracy), theirs(scores, accuracy).statistic, atol=1e-9)
        else:
            assert np.isnan(ours(scores, accuracy))


def test_a_failure_ranks_last():
    accuracy = np.arange(5.0)
    failed = np.array([-np.inf, -np.inf, 1, 2, 3])
    low = np.array([-9.0, -9.0, 1, 2, 3])
    for statistic in (
        statistics.kendall,
        statistics.spearman,
        statistics.precision_at_top,
        statistics.regret,
    ):
        assert statistic(failed, accuracy) == statistic(low, accuracy)


@given(values, st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_precision_by_brute_force(scores, share):
    """The mean over all orders of the ties, by drawing them."""
    scores = np.array(scores, float)
    accuracy = np.arange(len(scores), dtype=float)
    room = max(1, round(share * len(scores)))
    generator, hits = np.random.default_rng(0), []
    for _ in range(400):
        order = np.lexsort((generator.random(len(scores)), scores))
        hits.append(np.isin(order[-room:], np.argsort(accuracy)[-room:]).mean())
    found = statistics.precision_at_top(scores, accuracy, share)
    assert abs(found - np.mean(hits)) < 5 * np.std(hits) / np.sqrt(400) + 1e-9


def test_regret_of_the_best_score():
    accuracy = np.array([90.0, 94.0, 92.0])
    assert statistics.regret(np.array([1.0, 2.0, 0.0]), accuracy) == 0
    assert statistics.regret(np.array([1.0, 0.0, 0.0]), accuracy) == 4
    assert statistics.regret(np.array([1.0, 0.0, 1.0]), accuracy) == 3


def test_an_interval_holds_what_it_says():
    """Of 100 samples of 150 from a population of known tau at least 88 intervals hold it: two deviations below 95."""
    generator = np.random.default_rng(0)
    truth = 2 / np.pi * np.arcsin(0.6)
    inside = 0
    for _ in range(100):
        x, y = generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 150).T
        low, high = statistics.interval(statistics.kendall, x, y, 100)
        inside += low <= truth <= high
    assert inside >= 88


@pytest.mark.parametrize("seed", [0, 1])
def test_an_interval_is_reproducible(seed):
    x, y = np.random.default_rng(2).random((2, 30))
    first = statistics.interval(statistics.kendall, x, y, 50, seed)
    assert first == statistics.interval(statistics.kendall, x, y, 50, seed)
