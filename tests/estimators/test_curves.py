"""Forecasts of curves that the prior drew, and summaries by hand."""

import numpy as np
import pytest

from jnas.errors import InputError
from jnas.estimators import curves
from jnas.estimators.curves import forecast, summaries

EPOCHS = 40
# Curves of another seed than forecasts have, with the least noise.
PATHS, _ = curves._prior(EPOCHS, 7)
TRUTH = PATHS[:200]
SEEN = np.clip(TRUTH + curves.LEAST_NOISE * np.random.default_rng(0).normal(size=TRUTH.shape), 0, 1)


@pytest.mark.parametrize("length", [3, 10, 20])
def test_forecasts_of_the_prior_are_calibrated(length):
    found = forecast(SEEN[:, :length], EPOCHS)
    inside = np.abs(found.mean - TRUTH[:, -1]) <= 1.645 * found.deviation
    assert 0.75 < inside.mean() <= 1
    assert np.abs(found.mean - TRUTH[:, -1]).mean() < np.abs(SEEN[:, length - 1] - TRUTH[:, -1]).mean()


def test_chances_are_probabilities():
    for best in (0.2, 0.5, 0.8):
        chance = forecast(SEEN[:, :10], EPOCHS, best).better
        reached = TRUTH[:, -1] > best
        assert abs(chance.mean() - reached.mean()) < 0.06
    low, high = (forecast(SEEN[:, :10], EPOCHS, best).better for best in (0.3, 0.6))
    assert (low >= high).all()
    assert (forecast(SEEN[:, :10], EPOCHS, 1.0).better == 0).all()


def test_a_failed_training_has_no_chance():
    broken = SEEN[:2, :5].copy()
    broken[0, 3] = np.nan
    found = forecast(broken, EPOCHS, best=0.0)
    assert found.mean[0] == found.better[0] == 0 and found.better[1] > 0


def test_summaries_by_hand():
    row = [0.1, 0.3, 0.4, 0.4, 0.8]
    expected = [0.1, 0.8, 0.8, 0.4, np.std(row), 0.8, (0.0 + 0.4) / 2, 0.2 - (0.2 + 0.1) / 2]
    np.testing.assert_allclose(summaries(np.array([row]))[0], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda: forecast(SEEN, EPOCHS), "fewer than the 40"),
        (lambda: forecast(100 * SEEN[:, :5], EPOCHS), "divide per cents by 100"),
        (lambda: summaries(SEEN[:, :3]), "need 4"),
    ],
)
def test_what_cannot_be_read(run, says):
    with pytest.raises(InputError, match=says):
        run()
