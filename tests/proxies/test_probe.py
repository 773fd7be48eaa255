"""What a probe shows of one architecture, against numpy and the network built for that architecture alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from double import float64
from flax import traverse_util
from hypothesis import given
from hypothesis import strategies as st
from nasbench201_networks import Network, specialise

from jnas import spaces
from jnas.nets.modules import PER_CHANNEL, Build, initial_parameters
from jnas.proxies import probe as probes
from jnas.proxies.probe import Probe
from jnas.proxies.views import of_supernet

SPACE = spaces.get("nasbench201")
CELL = (2, 1, 3, 0, 4, 3)
COUNT, CLASSES = 4, 3
IMAGES = jax.random.normal(jax.random.key(0), (2, COUNT, 4, 4, 1))
LABELS = np.array([[0, 2, 1, 1], [2, 2, 0, 1]], np.int32)


def network(build: Build) -> Network:
    return Network(2, CLASSES, build, stages=1)


@pytest.fixture(scope="module")
def params():
    return initial_parameters(network(Build()), jax.random.key(1), IMAGES[0], jnp.zeros((1, 6, 5)))


def probe_of(params, choices, images=IMAGES, build=network) -> Probe:
    view = of_supernet(build, choices, images[0, :1])
    return Probe(jax.random.key(2), view, params, images, jnp.asarray(LABELS), CLASSES)


@pytest.fixture(scope="module")
def shown(params):
    """All that a probe shows, from one program for all cells."""

    @jax.jit
    def show(choices):
        probe = probe_of(params, choices)
        out, scale = probe.view.unnormalised(params, IMAGES[0])
        return {
            "logits": probe.logits,
            "features": probe.features,
            "patterns": probe.patterns,
            "correlations": probe.jacobian_correlations,
            "by_weight": [probe.weight_gradients(0), probe.weight_gradients(1)],
            "losses": [probe.loss(params, 0, {}), probe.loss(params, 1, {})],
            "unnormalised": out * jnp.exp(scale),
        }

    return lambda cell: jax.device_get(show(jnp.array(cell, jnp.int32)[None]))


@pytest.fixture(scope="module")
def alone(params):
    """The same in float64 on the network of `CELL`, in the plain form."""

    def everything(params, images):
        def loss(params, index):
            out = own.apply({"params": params}, images[index])
            return -jnp.mean(jax.nn.log_softmax(out)[jnp.arange(COUNT), LABELS[index]])

        def total(x):
            out, sown = own.apply({"params": params}, x, mutable=["features", "patterns"])
            return jnp.sum(out), (out, sown)

        rows, (logits, sown) = jax.grad(total, has_aux=True)(images[0])
        unnormalised = own.clone(build=Build(statistics="none"))
        out, sizes = unnormalised.apply({"params": params}, images[0], mutable=["scales"])
        return {
            "logits": logits,
            "features": sown["features"]["pooled"][0],
            "patterns": sown["patterns"],
            "rows": rows,
            "losses": [loss(params, 0), loss(params, 1)],
            "by_weight": [jax.grad(loss)(params, 0), jax.grad(loss)(params, 1)],
            "unnormalised": out * jnp.exp(sum(jax.tree.leaves(sizes))),
        }

    own = Network(2, CLASSES, Build(), stages=1, architecture=CELL)
    with float64():
        exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (specialise(params, CELL), IMAGES))
        return jax.tree.map(np.asarray, jax.jit(everything)(*exact))


def test_what_is_shown_of_a_cell(shown, alone):
    found = shown(CELL)
    for name in ("logits", "features", "losses", "unnormalised"):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-4, atol=1e-4)
    expected = np.corrcoef(alone["rows"].reshape(COUNT, -1))
    np.testing.assert_allclose(found["correlations"], expected, atol=1e-4)


def test_gradients_of_each_batch(shown, alone, params):
    flat_params = traverse_util.flatten_dict(params)
    for found, expected in zip(shown(CELL)["by_weight"], alone["by_weight"], strict=True):
        expected = traverse_util.flatten_dict(expected)
        assert set(found) == {path for path in expected if path[-1] not in PER_CHANNEL}
        for path, gradient in found.items():
            gradient = gradient.reshape(flat_params[path].shape)
            if path[0] == "cells_0":
                operation = SPACE.operations.index(path[1])
                rows = np.array(CELL) == operation
                assert not gradient[:, ~rows].any()
                gradient = gradient[:, rows]
            np.testing.assert_allclose(gradient, expected[path], rtol=1e-3, atol=1e-4)


def test_signs_and_their_readers(shown, alone):
    """Readers of node 0 are the convolutions on the edges to 1 and 3 less those that skip; see `CELL`."""
    found = {signs.tobytes(): readers for signs, readers in shown(CELL)["patterns"]}
    expected = {
        path: leaf[0].reshape(COUNT, -1)
        for path, leaf in traverse_util.flatten_dict(alone["patterns"]).items()
    }
    readers = {"node_0": 1, "node_1": 1, "node_2": 1, "last": 1}
    assert {path[-1].removeprefix("cells_0_") for path in expected} == set(readers)
    for path, signs in expected.items():
        assert (
            signs.shape[1] == 4 * 4 * 2
            and found[signs.tobytes()] == readers[path[-1].removeprefix("cells_0_")]
        )
    assert sorted(readers for _, readers in shown((3, 3, 1, 2, 1, 1))["patterns"]) == [0, 0, 1, 3]


def test_a_cell_of_nothing_has_no_gradient_and_no_correlation(shown):
    found = shown((0, 0, 0, 0, 0, 0))
    assert not found["correlations"].any() and not found["features"].any()
    assert not any(gradient.any() for batch in found["by_weight"] for gradient in batch.values())


def test_each_quantity_is_computed_once(params):
    """Whatever proxies ask for, the network is evaluated once for each quantity of a program."""
    built = []

    def counted(build):
        built.append(build)
        return network(build)

    def ask(choices):
        probe = probe_of(params, choices, build=counted)
        first = (probe.logits, probe.patterns, probe.features)
        after_forward = len(built)
        again = (probe.loss_gradients, probe.weight_gradients(0), probe.jacobian_correlations)
        once = len(built)
        _ = (probe.loss_gradients, probe.jacobian_correlations, probe.logits, probe.weight_gradients(0))
        assert (after_forward, once, len(built)) == (1, 3, 3)
        probe.weight_gradients(1)
        assert len(built) == 4
        return first, again

    jax.eval_shape(ask, jnp.array(CELL, jnp.int32)[None])


@given(st.integers(0, 2**31), st.sampled_from([0.1, 10.0, 1000.0]))
def test_cross_entropy(seed, scale):
    generator = np.random.default_rng(seed)
    logits = (scale * generator.standard_normal((5, 3))).astype(np.float32)
    labels = generator.integers(0, 3, 5)
    expected = -scipy.special.log_softmax(logits.astype(np.float64), axis=1)[range(5), labels]
    found = probes.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * scale)


def test_weights_and_gates_of_channels():
    small = Network(2, CLASSES, Build(), stages=2)
    shapes = jax.eval_shape(small.init, jax.random.key(0), IMAGES[0], jnp.zeros((1, 6, 5)))["params"]
    view = of_supernet(lambda build: small, jnp.zeros((1, 6), jnp.int32), IMAGES[0, :1])
    weights = jax.eval_shape(view.weights, shapes)
    names = {"/".join(path) for path in weights}
    convolutions = {f"cells_{stage}/nor_conv_{k}x{k}" for stage in (0, 1) for k in (1, 3)}
    convolutions |= {"stem", "residual_1/conv_a", "residual_1/conv_b"}
    assert names == {f"{name}/kernel" for name in convolutions} | {
        "residual_1/downsample",
        "classifier_kernel",
    }
    # One cell a stage, and six edges: as many layers of four convolutions.
    assert weights["cells_1", "nor_conv_3x3", "kernel"].shape == (6, 9 * 4 * 4)
    gates = traverse_util.flatten_dict(view.gates(shapes, 5), sep="/")
    assert set(gates) == names - {"classifier_kernel"}
    for name, gate in gates.items():
        wide = name.startswith(("cells_1", "residual"))
        copies = (1, 6) if name.startswith("cells") else ()
        assert gate.shape == (*copies, 5, 4 if wide else 2) and (gate == 1).all()
