"""Tests of differences against SciPy's, published corrections and counted ranks."""

import itertools

import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jnas.studies import significance

values = st.integers(3, 6).flatmap(
    lambda count: arrays(
        float, st.tuples(st.just(count), st.integers(3, 12)), elements=st.integers(0, 4).map(float)
    )
)


@given(values)
def test_friedman_is_scipys(found):
    if (found == found[0]).all():
        assert significance.friedman(found) == 1.0
    else:
        np.testing.assert_allclose(
            significance.friedman(found), scipy.stats.friedmanchisquare(*found).pvalue, rtol=1e-9
        )


@given(values)
def test_ranks_of_a_search_are_counted(found):
    better = (found[None] > found[:, None]).sum(axis=1)
    equal = (found[None] == found[:, None]).sum(axis=1)
    np.testing.assert_allclose(significance.mean_ranks(found), (better + (equal + 1) / 2).mean(axis=1))


def test_the_signed_rank_test_by_enumeration():
    """All signs of ten differences without ties: the normal approximation is near the exact chance."""
    differences = np.array([1.1, -0.3, 2.5, 3.2, 0.7, -1.9, 4.1, 2.2, 0.5, 3.9])
    ranks = scipy.stats.rankdata(abs(differences))
    observed = abs(ranks[differences > 0].sum() - ranks.sum() / 2)
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))]
    exact = np.mean(abs(np.array(sums) - ranks.sum() / 2) >= observed - 1e-9)
    assert abs(significance.signed_rank(differences, np.zeros(10)) - exact) < 0.01
    assert significance.signed_rank(differences, differences) == 1.0


def test_holm_is_the_worked_example():
    """0.01, 0.04, 0.03, 0.005: the smallest times four, then times three, two and one, never falling."""
    np.testing.assert_allclose(
        significance.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02]
    )
    assert significance.holm(np.array([])).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis(chances):
    found = significance.holm(np.array(chances))
    assert (found >= np.array(chances) - 1e-12).all() and (found <= 1).all()
    assert (found <= np.minimum(1, len(chances) * np.array(chances)) + 1e-12).all()
    assert (np.diff(found[np.argsort(chances)]) >= 0).all()
