import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st
from measure import kernels
from nasbench201_networks import Network

from jnas import spaces
from jnas.errors import InputError
from jnas.nets.modules import Build, initial_parameters
from jnas.proxies import ntk
from jnas.theory import empirical_ntk

SPACE = spaces.get("nasbench201")
SMALL = {"classes": 3, "channels": 1, "stages": 1}


@settings(deadline=None, max_examples=100)
@given(
    size=st.integers(1, 12), extra=st.integers(0, 8), seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e6)
)
def test_condition_number_equals_numpy(size, extra, seed, scale):
    rows = scale * np.random.default_rng(seed).standard_normal((size, size + extra))
    value, status = ntk.condition_number(rows @ rows.T)
    expected = np.linalg.cond(rows) ** 2
    if expected < 0.9 * ntk.LARGEST_CONDITION_NUMBER:
        assert status == "ok" and value == pytest.approx(expected, rel=1e-5)
    elif expected > 1.1 * ntk.LARGEST_CONDITION_NUMBER:
        assert (value, status) == (math.inf, "singular")


@pytest.mark.parametrize(
    ("kernel", "value", "status"),
    [
        (np.eye(4), 1.0, "ok"),
        (np.diag([4.0, 1.0, 2.0]), 4.0, "ok"),
        (np.diag([2.0**23, 1.0]), 2.0**23, "ok"),
        (np.diag([2.0**23 + 1, 1.0]), math.inf, "singular"),
        (np.diag([1.0, 0.0]), math.inf, "singular"),
        (np.diag([1.0, -1e-9]), math.inf, "singular"),
        (np.zeros((2, 2)), math.inf, "singular"),
        (np.ones((3, 3), np.float32), math.inf, "singular"),
    ],
)
def test_statuses(kernel, value, status):
    assert ntk.condition_number(kernel) == (value, status)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_kernel_that_is_not_finite(bad):
    kernel = np.eye(3)
    kernel[1, 2] = bad
    value, status = ntk.condition_number(kernel)
    assert math.isnan(value) and status == "not_finite"


def test_many_condition_numbers_fail_one_by_one():
    values, statuses = ntk.condition_numbers(
        jnp.stack([jnp.eye(2), jnp.zeros((2, 2)), jnp.full((2, 2), jnp.nan)])
    )
    assert values.dtype == np.float64 and statuses == ["ok", "singular", "not_finite"]
    np.testing.assert_array_equal(values, [1.0, math.inf, math.nan])


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 4, 4, 1))


@pytest.fixture(scope="module")
def gates():
    """A mixture, a single cell, and two more mixtures."""
    mixed = jax.nn.softmax(jax.random.normal(jax.random.key(1), (3, 1, 6, 5)))
    single = SPACE.gates(np.array([[3, 1, 2, 3, 4, 2]], np.int32))
    return jnp.concatenate([mixed[:1], single, mixed[1:]])


@pytest.fixture(scope="module")
def train_kernels(gates, images):
    return kernels(jax.random.key(2), gates, images, **SMALL)


def reference(gates, images, normalisation):
    """The kernels by one plain Jacobian after the other, with the weights that the key gives."""
    network = Network(1, 3, Build(statistics=normalisation), 1, 1)

    def kernel(gates):
        params = initial_parameters(network, jax.random.key(2), images[:1], gates)
        counted, rest = empirical_ntk.split(params, "weights")

        def logits(counted):
            params = traverse_util.unflatten_dict({**counted, **rest})
            return network.apply({"params": params}, images, gates).sum(-1)

        rows = [array.reshape(len(images), -1) for array in jax.jacrev(logits)(counted).values()]
        return sum(row @ row.T for row in rows)

    return np.asarray(jax.jit(lambda gates: jax.lax.map(kernel, gates))(gates))


def test_kernels_of_many_architectures(gates, images, train_kernels):
    assert train_kernels.shape == (4, 4, 4) and train_kernels.dtype == np.float32
    np.testing.assert_allclose(train_kernels, np.swapaxes(train_kernels, 1, 2), rtol=1e-5)
    expected = reference(gates, images, "train")
    np.testing.assert_allclose(train_kernels, expected, rtol=1e-4, atol=2e-5 * expected.max())
    assert not np.allclose(train_kernels[0], train_kernels[2], rtol=0.01)


def test_equal_to_one_by_one_and_to_the_same_key(gates, images, train_kernels):
    for index in range(4):
        own = kernels(jax.random.key(2), gates[index : index + 1], images, **SMALL)
        assert np.array_equal(own[0], train_kernels[index])
    assert not np.allclose(kernels(jax.random.key(3), gates[:1], images, **SMALL)[0], train_kernels[0])


@pytest.mark.parametrize("normalisation", ["train", "frozen"])
def test_architectures_side_by_side(gates, images, train_kernels, normalisation):
    """As on an accelerator: several architectures at once, the last step not full."""
    three = gates[:3]
    several = kernels(jax.random.key(2), three, images, normalisation=normalisation, width=2, **SMALL)
    expected = train_kernels[:3] if normalisation == "train" else reference(three, images, "frozen")
    np.testing.assert_allclose(several, expected, rtol=1e-4, atol=2e-5 * np.max(expected))


def test_images_that_do_not_fit(gates):
    with pytest.raises(InputError, match="images of 6x6 do not fit a network of 3 stages"):
        kernels(jax.random.key(0), gates, jnp.zeros((4, 6, 6, 1)))
