"""Scores of a kernel's spectrum against loops, dense algebra and neural-tangents' gradient flow."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from jnas.proxies import PROXIES
from jnas.theory import neural_tangents_compat  # noqa: F401  (makes the next import work)

import neural_tangents as nt  # isort: skip

NAMES = ("ntk_trace", "ntk_mean_eigenvalue", "ntk_alignment", "ntk_training_speed")
LABELS = np.array([0, 2, 1, 1, 0, 2, 2, 0])


def kernel(seed: int, size: int = 8, rank: int = 12, scale: float = 1.0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((size, rank))
    return scale * rows @ rows.T


def centred(labels: np.ndarray) -> np.ndarray:
    hot = np.array([[float(label == o) for o in range(max(labels) + 1)] for label in labels])
    return hot - hot.mean(0)


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_size(seed, scale):
    theta = kernel(seed, scale=scale)
    eigenvalues = np.linalg.eigvalsh(theta)
    assert PROXIES["ntk_trace"].finish(theta, LABELS) == (pytest.approx(eigenvalues.sum()), "ok")
    assert PROXIES["ntk_mean_eigenvalue"].finish(theta, LABELS) == (pytest.approx(eigenvalues.mean()), "ok")


@given(st.integers(0, 2**31))
def test_alignment_is_a_cosine(seed):
    theta, y = kernel(seed), centred(LABELS)
    product = sum(
        theta[n, m] * y[n, o] * y[m, o] for n in range(8) for m in range(8) for o in range(y.shape[1])
    )
    lengths = math.sqrt((theta**2).sum()) * math.sqrt(((y @ y.T) ** 2).sum())
    value, status = PROXIES["ntk_alignment"].finish(theta, LABELS)
    assert value == pytest.approx(product / lengths, rel=1e-9) and status == "ok" and 0 <= value <= 1


@given(st.integers(0, 2**31), st.sampled_from([3, 12]))
def test_training_speed_is_that_of_the_differential_equation(seed, rank):
    """d r / d t = - Theta r from r = Y, up to the time at which a mean eigenvalue has decayed by e."""
    theta, y = kernel(seed, rank=rank), centred(LABELS)
    residual = scipy.linalg.expm(-theta * len(theta) / np.trace(theta)) @ y
    value, status = PROXIES["ntk_training_speed"].finish(theta, LABELS)
    assert value == pytest.approx(1 - (residual**2).sum() / (y**2).sum(), abs=1e-9)
    assert status == "ok" and 0 <= value <= 1


def test_training_speed_is_that_of_neural_tangents():
    theta, y = kernel(3), centred(LABELS)
    predict = nt.predict.gradient_descent_mse(jnp.asarray(theta, jnp.float32), jnp.asarray(y, jnp.float32))
    # Its loss is a mean over all entries of Y, which divides the rates.
    fitted = np.asarray(predict(y.size * len(theta) / np.trace(theta), fx_train_0=jnp.zeros(y.shape)))
    expected = 1 - ((fitted - y) ** 2).sum() / (y**2).sum()
    assert 0.1 < expected < 0.9
    assert PROXIES["ntk_training_speed"].finish(theta, LABELS)[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["ntk_alignment", "ntk_training_speed"])
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_scores_that_do_not_depend_on_scale_or_order(name, seed, scale):
    theta = kernel(seed)
    finish = PROXIES[name].finish
    value, _ = finish(theta, LABELS)
    assert finish(scale * theta, LABELS)[0] == pytest.approx(value, abs=1e-9)
    order = np.random.default_rng(seed).permutation(8)
    assert finish(theta[np.ix_(order, order)], LABELS[order])[0] == pytest.approx(value, abs=1e-9)
    # Which number a class has makes no difference.
    assert finish(theta, np.array([1, 2, 0])[LABELS])[0] == pytest.approx(value, abs=1e-9)


def test_the_best_kernel_is_that_of_the_labels():
    y = centred(LABELS)
    assert PROXIES["ntk_alignment"].finish(y @ y.T, LABELS)[0] == pytest.approx(1)
    against = np.eye(8) - y @ np.linalg.pinv(y)
    assert PROXIES["ntk_alignment"].finish(against, LABELS)[0] == pytest.approx(0, abs=1e-12)
    assert PROXIES["ntk_training_speed"].finish(against, LABELS)[0] == pytest.approx(0, abs=1e-12)
    # The identity fits all directions at the rate of the mean.
    speed, _ = PROXIES["ntk_training_speed"].finish(5 * np.eye(8), LABELS)
    assert speed == pytest.approx(1 - math.exp(-2))


@given(st.integers(0, 2**31))
def test_a_full_kernel_that_treats_logits_alike_scores_as_the_small_one(seed):
    """Theta x I on the N O logits, image by image and logit by logit."""
    theta = kernel(seed)
    full = np.kron(theta, np.eye(3))
    assert PROXIES["ntk_trace"].finish(full, LABELS)[0] == pytest.approx(3 * np.trace(theta))
    speed = PROXIES["ntk_training_speed"].finish
    assert speed(full, LABELS)[0] == pytest.approx(speed(theta, LABELS)[0], abs=1e-9)
    flat = centred(LABELS).ravel()
    expected = flat @ full @ flat / np.linalg.norm(full) / (flat @ flat)
    assert PROXIES["ntk_alignment"].finish(full, LABELS)[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
def test_a_kernel_that_is_not_finite(name, entry):
    theta = kernel(0)
    theta[1, 2] = entry
    value, status = PROXIES[name].finish(theta, LABELS)
    assert math.isnan(value) and status == "not_finite"


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_of_zero(name):
    assert PROXIES[name].finish(np.zeros((8, 8), np.float32), LABELS) == (-math.inf, "singular")


@pytest.mark.parametrize("name", ["ntk_alignment", "ntk_training_speed"])
def test_images_of_one_class_alone(name):
    """Nothing is left of the labels without their mean: a failure, not a warning."""
    value, status = PROXIES[name].finish(kernel(0), np.ones(8, int))
    assert not math.isfinite(value) and status != "ok"
