"""Draws of which no two are equal."""

import jax
import numpy as np

from jnas.strategies.listed import distinct

KEY = jax.random.key(0)


def test_drawing_goes_on_until_enough_are_different():
    rows = iter([[[1, 0], [1, 0], [1, 0]], [[1, 0], [0, 1], [0, 1]], [[1, 1], [0, 0], [0, 0]]])
    drawn = distinct(lambda key, n: np.array(next(rows), np.int32), KEY, 3)
    np.testing.assert_array_equal(drawn, [[1, 0], [0, 1], [1, 1]])


def test_drawing_ends_where_there_seem_to_be_no_more():
    same = distinct(lambda key, n: np.ones((n, 2), np.int32), KEY, 3)
    np.testing.assert_array_equal(same, [[1, 1]])
    assert distinct(lambda key, n: np.ones((n, 2), np.int32), KEY, 0).shape == (0, 2)
