"""Acquisition functions against quadrature and closed forms."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from jnas.strategies.acquisition import expected_improvement, independent_thompson, upper_confidence_bound

NUMBERS = st.floats(-3, 3, width=32)
expected = jax.jit(expected_improvement)


@given(NUMBERS, st.floats(0.0625, 3, width=32), NUMBERS)
def test_expected_improvement_is_the_integral(mean, deviation, best):
    def gain(y):
        return max(y - best, 0) * norm.pdf(y, mean, deviation)

    area = quad(gain, best, max(best, mean) + 12 * deviation, points=[max(mean, best)], limit=200)[0]
    ours = float(expected(np.float32([mean]), np.float32([deviation]), np.float32(best))[0])
    # Far below the best two terms of the size of the deviation cancel in float32.
    assert ours == pytest.approx(area, rel=1e-3, abs=3e-6)


@given(NUMBERS, st.floats(0, 3, width=32), NUMBERS)
def test_it_is_not_negative_and_certain_values_improve_by_their_difference(mean, deviation, best):
    given = np.float32([mean, mean]), np.float32([deviation, 0]), np.float32(best)
    uncertain, certain = np.asarray(expected(*given))
    assert uncertain >= 0 and certain == pytest.approx(max(np.float32(mean) - np.float32(best), 0), abs=1e-30)
    assert uncertain >= certain - 1e-5


def test_bounds_and_draws():
    mean, deviation = np.float32([1, 2]), np.float32([0.5, 0])
    np.testing.assert_allclose(upper_confidence_bound(mean, deviation, 2.0), [2, 2])
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: independent_thompson(key, mean, deviation))(keys)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(drawn.std(0), deviation, atol=0.03)
