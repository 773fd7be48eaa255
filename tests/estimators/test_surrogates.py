"""Surrogates on functions that are known, and beside scikit-learn's Gaussian process."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from jnas.errors import InputError
from jnas.estimators import surrogates
from jnas.studies.statistics import kendall

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(300, 5))
LABELLED = np.arange(60)
VALUES = FEATURES @ np.array([1.0, -2.0, 0.5, 0.0, 0.0]) + 0.1 * GENERATOR.normal(size=300)


@pytest.mark.parametrize("name", surrogates.SURROGATES)
def test_an_additive_function_is_learned_and_deviations_are_right(name):
    mean, deviation = surrogates.predict(name, FEATURES, LABELLED, VALUES[LABELLED])
    assert mean.shape == deviation.shape == (300,) and (deviation > 0).all()
    assert kendall(mean[60:], VALUES[60:]) > (0.6 if "forest" in name or "boosting" in name else 0.85)
    again, _ = surrogates.predict(name, FEATURES, LABELLED, VALUES[LABELLED])
    np.testing.assert_array_equal(mean, again)
    if name in ("gaussian_process", "ridge"):
        place = norm.ppf((np.searchsorted(np.sort(VALUES[:60]), VALUES[60:]).clip(1, 59)) / 60)
        assert 0.75 < np.mean(np.abs(place - mean[60:]) < 1.645 * deviation[60:]) <= 1


def test_the_posterior_is_scikit_learns():
    targets = np.sin(FEATURES[LABELLED, 0])
    mean, deviation = surrogates.gaussian_process(FEATURES, LABELLED, targets, 0)
    # The noise and the length that the deviation far away and the likelihood chose are found again.
    best = np.inf
    for length in np.geomspace(0.1, 10, 60):
        for noise in np.geomspace(1e-3, 1, 30):
            model = GaussianProcessRegressor(RBF(length * np.sqrt(5)), alpha=noise**2, optimizer=None)
            other = model.fit(FEATURES[LABELLED], targets - targets.mean()).predict(FEATURES) + targets.mean()
            best = min(best, np.abs(other - mean).max())
    assert best < 0.02 and (deviation[:60] < deviation[60:].max()).all()


def test_a_prior_is_the_prediction_where_labels_add_nothing():
    mean, _ = surrogates.predict("ridge", FEATURES, LABELLED, VALUES[LABELLED], prior=VALUES)
    assert kendall(mean, VALUES) > 0.97


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "oracle"}, "oracle"),
        ({"labelled": LABELLED[:3], "values": VALUES[:3]}, "at least 4"),
        ({"values": np.full(60, np.nan)}, "not finite"),
        ({"features": np.ones((300, 2))}, "tells the labelled architectures apart"),
    ],
)
def test_what_cannot_be_learned_from(change, says):
    given = {"name": "ridge", "features": FEATURES, "labelled": LABELLED, "values": VALUES[LABELLED]}
    with pytest.raises(InputError, match=says):
        surrogates.predict(**given | change)


@pytest.mark.parametrize("name", surrogates.SURROGATES)
def test_equal_values(name):
    mean, deviation = surrogates.predict(name, FEATURES, LABELLED, np.ones(60))
    assert np.isfinite(mean).all() and np.isfinite(deviation).all() and np.ptp(mean) < 1e-6
