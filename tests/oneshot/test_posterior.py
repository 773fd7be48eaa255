"""The mathematics of the posterior, against closed forms and counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import float64
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from jnas.errors import InputError
from jnas.oneshot import posterior

DRAWS = 200_000
# Five standard deviations of a frequency of so many draws.
SLACK = 5 * 0.5 / np.sqrt(DRAWS)
probability = st.floats(0.01, 0.99)


def masks(p, temperature):
    """`DRAWS` relaxed masks of one group, float[DRAWS]."""
    return np.asarray(
        posterior.relaxed_masks(jax.random.key(0), posterior.logits_of([p]), DRAWS, temperature)[:, 0]
    )


@settings(max_examples=10, deadline=None)
@given(probability, st.floats(0.05, 2.0))
def test_more_than_half_is_dropped_with_the_probability_itself(p, temperature):
    assert abs(np.mean(masks(p, temperature) < 0.5) - p) < SLACK


@pytest.mark.parametrize("temperature", [0.1, 0.2, 2 / 3])
def test_what_a_relaxed_mask_drops_on_average(temperature):
    """Against numerical integration over the logistic variable: 0.101, 0.105, 0.145 for p = 0.1."""
    u = (np.arange(10**6) + 0.5) / 10**6
    integral = np.mean(expit((np.log(0.1 / 0.9) + np.log(u) - np.log1p(-u)) / temperature))
    found = 1 - masks(0.1, temperature)
    assert abs(np.mean(found) - integral) < 5 * np.std(found) / np.sqrt(DRAWS)


def test_cold_masks_are_bernoulli():
    cold = masks(0.3, 1e-3)
    between = np.mean((cold > 1e-3) & (cold < 1 - 1e-3))
    assert between < 0.01 and abs(np.mean(cold < 0.5) - 0.3) < SLACK
    hard = posterior.hard_masks(jax.random.key(1), posterior.logits_of([0.3]), DRAWS)
    assert hard.dtype == bool and abs(1 - np.mean(hard) - 0.3) < SLACK


def test_masks_are_fresh_for_each_image_and_group():
    drawn = np.asarray(posterior.relaxed_masks(jax.random.key(0), jnp.zeros(3), 1000, 0.2))
    assert drawn.shape == (1000, 3)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.15
    assert len(np.unique(drawn)) > 2000


def value(logits, norms=(3.0,), counts=(4.0,), inclusion=0.5, **more):
    arguments = {"weight_penalty": 1.7, "entropy": 0.8} | more
    return posterior.regulariser(
        jnp.asarray(logits), jnp.asarray(norms), jnp.asarray(counts), inclusion, 50.0, **arguments
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(probability, min_size=1, max_size=4), probability, st.sampled_from(["kept", "constant"]))
def test_the_regulariser_is_its_formula(p, u, penalty):
    p = np.array(p)
    norms, counts = np.arange(1.0, len(p) + 1), np.arange(2.0, len(p) + 2)
    weights = norms * ((1 - p) if penalty == "kept" else 1)
    divergence = p * np.log(p / (1 - u)) + (1 - p) * np.log((1 - p) / u)
    expected = (1.7 * weights.sum() + 0.8 * (counts * divergence).sum()) / 50
    found = value(posterior.logits_of(p), norms, counts, u, penalty=penalty)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    # A divergence is never negative.
    assert (divergence >= -1e-12).all()


def test_half_an_inclusion_is_the_papers_entropy_but_for_a_constant():
    """p log p + (1 - p) log(1 - p), by two different p."""
    p = np.array([0.1, 0.4])
    entropy = p * np.log(p) + (1 - p) * np.log(1 - p)
    found = [float(value(posterior.logits_of([q]), norms=(0.0,))) for q in p]
    np.testing.assert_allclose(found[1] - found[0], 0.8 * 4 / 50 * (entropy[1] - entropy[0]), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 4.0), st.integers(1, 9), probability)
def test_its_optimum_is_the_analytic_one(norm, count, u):
    """logit p* = l ||W||^2 / (d C) + log((1 - u) / u); without a prior p* is never below 1/2."""
    best = 1.7 * norm / (0.8 * count) + np.log((1 - u) / u)
    with float64():
        gradient = jax.grad(lambda x: value(x, np.array([norm]), np.array([count]), u))(np.array([best]))
        assert abs(float(gradient[0])) < 1e-12
        for step in (-0.1, 0.1):
            shifted = value(np.array([best + step]), np.array([norm]), np.array([count]), u)
            assert shifted > value(np.array([best]), np.array([norm]), np.array([count]), u)
    assert u != 0.5 or expit(best) >= 0.5


def test_certain_probabilities_stay_finite():
    assert np.isfinite(value([60.0])) and np.isfinite(value([-60.0]))
    assert np.isfinite(jax.grad(lambda x: value(x))(jnp.array([80.0]))).all()


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_probability_that_is_none(p):
    with pytest.raises(InputError, match=r"probability .* does not fit: give one above 0 and below 1"):
        posterior.logits_of([0.5, p])


def test_an_inclusion_next_to_one_is_finite():
    assert np.isfinite(value([0.0], inclusion=1 - 1e-12)) and np.isfinite(value([0.0], inclusion=1e-12))


def test_masks_of_channels_and_of_groups():
    own = posterior.gating((2, 3), "channel")
    np.testing.assert_array_equal(own.group, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(own.expand, range(5))
    np.testing.assert_array_equal(own.counts, [2, 3])
    shared = posterior.gating((2, 3), "group")
    np.testing.assert_array_equal(shared.group, [0, 1])
    np.testing.assert_array_equal(shared.expand, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(shared.counts, [1, 1])


@settings(max_examples=25, deadline=None)
@given(probability, probability, st.floats(0, 3), st.lists(st.integers(0, 20), min_size=2, max_size=9))
def test_a_prior_that_theory_informs(drop, inclusion, strength, missed):
    p, u = posterior.informed(drop, inclusion, np.array(missed), strength)
    assert ((p > 0) & (p < 1) & (u > 0) & (u < 1)).all()
    order = np.argsort(missed, kind="stable")
    assert (np.diff(u[order]) >= 0).all() and (np.diff(p[order]) <= 0).all()
    # Theory moves odds, not their product, and says nothing at strength 0.
    logit = np.log(u / (1 - u))
    assert abs(logit.mean() - np.log(inclusion / (1 - inclusion))) < 1e-9
    if strength == 0:
        np.testing.assert_allclose(p, drop)
        np.testing.assert_allclose(u, inclusion)
