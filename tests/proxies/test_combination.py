"""Sums of ranks: what they must not depend on, and where failures go."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jnas.proxies import combination

COMBINATIONS = [combination.rank_sum, combination.log_rank_sum]
# Few different values, so that ties are common.
numbers = st.integers(-6, 6).map(float)
populations = st.integers(1, 8).flatmap(
    lambda size: st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=1, max_size=4)
)


def named(rows) -> dict[str, np.ndarray]:
    return {f"proxy {index}": np.array(row) for index, row in enumerate(rows)}


def brute_force_ranks(scores) -> list[float]:
    """The share that is not better; among equals the mean of the places that they fill."""
    count = len(scores)
    return [
        (sum(other < score for other in scores) + (sum(other == score for other in scores) + 1) / 2) / count
        for score in scores
    ]


@given(populations)
def test_sums_of_ranks_equal_counting(rows):
    ranks = np.array([brute_force_ranks(row) for row in rows])
    for row, own in zip(rows, ranks, strict=True):
        np.testing.assert_allclose(combination.ranks(np.array(row)), own, rtol=1e-12)
    np.testing.assert_allclose(combination.rank_sum(named(rows)), ranks.sum(0), rtol=1e-12)
    np.testing.assert_allclose(combination.log_rank_sum(named(rows)), np.log(ranks).sum(0), atol=1e-12)


@given(populations, st.sampled_from([np.exp, np.arctan, lambda x: x**3, lambda x: 7 * x - 1e3, np.sinh]))
def test_a_monotone_map_of_the_scores_changes_nothing(rows, increasing):
    mapped = {name: increasing(values) for name, values in named(rows).items()}
    for combine in COMBINATIONS:
        np.testing.assert_array_equal(combine(mapped), combine(named(rows)))


@given(populations, st.randoms(use_true_random=False))
def test_order_of_architectures_and_of_proxies_changes_nothing(rows, random):
    order = list(range(len(rows[0])))
    random.shuffle(order)
    shuffled = {name: values[order] for name, values in reversed(named(rows).items())}
    for combine in COMBINATIONS:
        np.testing.assert_allclose(combine(shuffled), combine(named(rows))[order], atol=1e-12)


@given(populations)
def test_bounds_and_types(rows):
    count = len(rows)
    for combine, low, high in zip(
        COMBINATIONS, (0, count * np.log(1 / 16)), (count + 1e-12, 1e-12), strict=True
    ):
        values = combine(named(rows))
        assert values.dtype == np.float64 and values.shape == (len(rows[0]),)
        assert (low < values).all() and (values <= high).all()


@given(populations)
def test_better_in_every_proxy_is_better(rows):
    scores = named(rows)
    table = np.array(rows)
    for combine in COMBINATIONS:
        values = combine(scores)
        for one in range(table.shape[1]):
            for other in range(table.shape[1]):
                if (table[:, one] >= table[:, other]).all():
                    assert values[one] >= values[other] - 1e-12
                    if (table[:, one] > table[:, other]).any():
                        assert values[one] > values[other]


@pytest.mark.parametrize("sign", [-1, 1])
@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(allow_nan=True, allow_infinity=True)),
            st.sampled_from(["ok", "ok", "singular", "not_finite", "out_of_memory"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_failures_rank_last(sign, pairs):
    values, statuses = [list(column) for column in zip(*pairs, strict=True)]
    scores = combination.oriented(np.array(values), statuses, sign)
    assert scores.dtype == np.float64 and not np.isnan(scores).any()
    good = np.array([status == "ok" and np.isfinite(value) for value, status in pairs])
    np.testing.assert_array_equal(scores[good], sign * np.array(values)[good])
    assert (scores[~good] == -np.inf).all()
    ranks = combination.ranks(scores)
    if good.any() and not good.all():
        assert ranks[~good].max() < ranks[good].min()
    # A population where all fail still has ranks.
    assert (ranks > 0).all() and (ranks <= 1).all()


def test_without_statuses_numbers_alone_tell():
    scores = combination.oriented(np.array([1.0, np.nan, np.inf, -np.inf, 2.0]), None, -1)
    np.testing.assert_array_equal(scores, [-1.0, -np.inf, -np.inf, -np.inf, -2.0])


def test_logarithms_do_not_forgive_one_bad_rank():
    """Best in one proxy and worst in the other against second best twice: the sums of ranks are equal."""
    scores = {"a": np.array([3.0, 2.0, 1.0]), "b": np.array([1.0, 2.0, 3.0])}
    np.testing.assert_allclose(combination.rank_sum(scores), 4 / 3)
    values = combination.log_rank_sum(scores)
    assert values[1] > values[0] and values[1] > values[2]
    np.testing.assert_allclose(values, np.log([1 / 3, 4 / 9, 1 / 3]))
