"""Every proxy of the network against its formula, worked out in float64 on a network in plain JAX.

Measured is the program that scores many architectures. The reference shares no code with it: activations are read
and moved where the normalisation receives them, second derivatives are taken forwards over backwards, blocks are
evaluated one by one, and the rest is numpy.
"""

from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import float64
from measure import network
from nasbench201_networks import Network
from nasbench201_reference import Pass, layers

from jnas import spaces
from jnas.nets.modules import PER_CHANNEL, Build, initial_parameters
from jnas.proxies import PROXIES
from jnas.proxies.base import NETWORK

SPACE = spaces.get("nasbench201")
NAMES = tuple(name for name, proxy in PROXIES.items() if proxy.subject == NETWORK)
# The last two have a node that nothing reads, and one that nothing feeds but convolutions read.
CELLS = [(2, 1, 3, 0, 4, 3), (3, 2, 0, 4, 0, 3), (0, 3, 2, 1, 3, 1)]
CHANNELS, CLASSES, COUNT = 2, 3, 6
KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (2, COUNT, 4, 4, 1))
LABELS = np.array([[0, 1, 2, 0, 1, 2], [2, 1, 0, 1, 1, 0]], np.int32)


@pytest.fixture(scope="module")
def measured():
    """One list for each cell: {proxy: (value, status)}."""
    choices = jnp.array(CELLS, jnp.int32)[:, None]
    found = network(
        KEY, choices, IMAGES, jnp.asarray(LABELS), NAMES, classes=CLASSES, channels=CHANNELS, stages=2
    )
    return [
        {
            name: PROXIES[name].finish(jax.tree.map(lambda leaf, row=row: leaf[row], found[name]), LABELS[0])
            for name in NAMES
        }
        for row in range(len(CELLS))
    ]


def as_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def supernet_parameters(key):
    network = Network(CHANNELS, CLASSES, Build(), 1, 2)
    return initial_parameters(network, key, IMAGES[0, :1], jnp.zeros((1, 6, 5)))


def unit_normal_parameters(key):
    """Weights N(0, 1) in the order of the network's parameters; scales one, offsets and biases zero."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(supernet_parameters(key))
    sizes = [0 if path[-1].key in PER_CHANNEL else leaf.size for path, leaf in leaves]
    stream = np.asarray(jax.random.normal(key, (sum(sizes),)))
    drawn = []
    for (_, leaf), size in zip(leaves, sizes, strict=True):
        drawn.append(stream[:size].reshape(leaf.shape) if size else np.asarray(leaf))
        stream = stream[size:]
    return jax.tree.unflatten(structure, drawn)


def weights_of(flat):
    """By layer its convolution's weights, or the classifier's."""
    return {name: layer["kernel"] for name, layer in flat.items() if "kernel" in layer}


def with_weights(flat, weights):
    return {
        name: {**layer, **({"kernel": weights[name]} if name in weights else {})}
        for name, layer in flat.items()
    }


class Reference:
    """All that the formulas need of one cell, in float64."""

    def __init__(self, cell):
        self.cell = cell
        self.weights_key, self.probe_key = jax.random.split(KEY)
        self.params = as_float64(layers(supernet_parameters(self.weights_key), cell))
        zen_weights, x_key, e_key = jax.random.split(self.probe_key, 3)
        shape = IMAGES[0].shape
        normal = as_float64(layers(unit_normal_parameters(zen_weights), cell))
        x, e = (np.asarray(jax.random.normal(key, shape), np.float64) for key in (x_key, e_key))
        noise = np.asarray(jax.random.normal(jax.random.fold_in(self.probe_key, 1), shape), np.float64)
        # After all blocks in the order of their names, which is how the signs are dealt out.
        self.boundaries = ("cells_0/0", "cells_1/0", "residual_1", "stem")
        shapes = ((6, 4, 4, 2), (6, 2, 2, 4), (6, 2, 2, 4), (6, 4, 4, 2))
        keys = jax.random.split(jax.random.fold_in(self.probe_key, 2), 4)
        signs = {
            name: np.asarray(jax.random.rademacher(key, shape, jnp.float32), np.float64)
            for name, key, shape in zip(self.boundaries, keys, shapes, strict=True)
        }
        with float64():
            images = np.asarray(IMAGES, np.float64)
            results = jax.jit(self._everything)(self.params, normal, images, x, e, noise, signs)
            self.__dict__.update(jax.tree.map(np.asarray, results))
        self.signs_between = signs

    def _everything(self, params, normal, images, x, e, noise, signs):
        def passed(flat, x, **settings):
            run = Pass(flat, self.cell, **settings)
            return run.logits(x), run

        def loss(flat, index):
            out, _ = passed(flat, images[index])
            return -jnp.mean(jax.nn.log_softmax(out)[jnp.arange(COUNT), LABELS[index]])

        def moved_loss(moved):
            out, run = passed(params, images[0], moved=moved)
            out = out + moved["logits"]
            value = -jnp.mean(jax.nn.log_softmax(out)[jnp.arange(COUNT), LABELS[0]])
            return value, {**run.received, "logits": out}

        _, plain = passed(params, images[0])
        weights = weights_of(params)

        # Only weights count: derivatives are taken along them alone.
        def gradient(weights, index=0):
            return jax.grad(lambda weights: loss(with_weights(params, weights), index))(weights)

        by_weight, product = jax.jvp(gradient, (weights,), (gradient(weights),))
        still = {name: jnp.zeros_like(value) for name, value in plain.received.items()}
        by_activation, activations = jax.grad(moved_loss, has_aux=True)(
            {**still, "logits": jnp.zeros((COUNT, CLASSES))}
        )
        flowing = jax.grad(
            lambda flat: jnp.sum(passed(flat, jnp.ones_like(images[0, :1]), normalise=False)[0])
        )(jax.tree.map(jnp.abs, params))
        _, zen_still = passed(normal, x)
        _, zen_moved = passed(normal, x + 0.01 * e)
        outputs, pulled, h = [], [], noise
        for name in plain.names():
            h, pullback = jax.vjp(lambda h, name=name: Pass(params, self.cell).block(name, h), h)
            outputs.append(h)
            pulled.append(pullback(signs[name])[0])
        return {
            "signs": plain.signs,
            "pooled": plain.pooled,
            "input_gradient": jax.grad(lambda x: jnp.sum(passed(params, x)[0]))(images[0]),
            "gradients": [by_weight, gradient(weights, 1)],
            "hessian_product": product,
            "activations": activations,
            "by_activation": by_activation,
            "flowing": weights_of(flowing),
            "zen_features": (zen_still.last, zen_moved.last),
            "zen_inputs": zen_still.received,
            "block_outputs": outputs,
            "block_pullbacks": pulled,
        }

    def relus(self):
        """The signs bool[N] of each ReLU of the authors' network, one for each operation that has it."""
        for signs in self.signs:
            yield from signs.reshape(COUNT, -1).T

    def correlations(self):
        return np.corrcoef(self.input_gradient.reshape(COUNT, -1))


def naswot(of):
    kernel = np.zeros((COUNT, COUNT))
    for unit in of.relus():
        for n in range(COUNT):
            for m in range(COUNT):
                kernel[n, m] += unit[n] == unit[m]
    return np.log(abs(np.linalg.det(kernel)))


def swap(of):
    return len({tuple(unit.tolist()) for unit in of.relus()})


def jacob_cov(of):
    eigenvalues = np.linalg.eigvalsh(of.correlations()) + 1e-5
    return -sum(np.log(value) + 1 / value for value in eigenvalues)


def epe_nas(of):
    total = 0.0
    for label in range(CLASSES):
        inside = np.flatnonzero(LABELS[0] == label)
        correlations = np.corrcoef(of.input_gradient.reshape(COUNT, -1)[inside])
        total += abs(np.log(np.abs(correlations) + 1e-5).sum())
    return total


def synflow(of):
    weights = weights_of(of.params)
    return np.log(sum(np.abs(weights[path] * of.flowing[path]).sum() for path in weights))


def snip(of):
    return sum(np.abs(leaf * of.gradients[0][path]).sum() for path, leaf in weights_of(of.params).items())


def grad_norm(of):
    return sum(np.linalg.norm(leaf) for leaf in of.gradients[0].values())


def grasp(of):
    return -sum((leaf * of.hessian_product[path]).sum() for path, leaf in weights_of(of.params).items())


def fisher(of):
    total = 0.0
    for path, activation in of.activations.items():
        if path == "last_norm":
            # It stands behind no convolution.
            continue
        products = activation * of.by_activation[path]
        if path != "logits":
            products = products.sum((1, 2))
        total += (products**2).mean(0).sum() / 2
    return total


def zico(of):
    total = 0.0
    for path in of.gradients[0]:
        rows = np.stack([gradients[path].ravel() for gradients in of.gradients])
        varies = rows.std(0) > 1e-12
        if varies.any():
            total += np.log((np.abs(rows).mean(0)[varies] / rows.std(0)[varies]).sum())
    return total


def zen(of):
    still, moved = of.zen_features
    total = np.log(np.abs(still - moved).sum((1, 2, 3)).mean())
    normalised = [value for name, value in of.zen_inputs.items() if not name.endswith("downsample")]
    for received in normalised:
        variance = received.var((0, 1, 2)).mean()
        # A convolution of zeros has nothing that normalisation could undo.
        total += np.log(np.sqrt(variance)) if variance > 0 else 0
    return total


def entropies(of):
    values = []
    for output in of.block_outputs:
        eigenvalues = np.linalg.eigvalsh(np.cov(output.reshape(-1, output.shape[-1]).T))
        shares = eigenvalues / eigenvalues.sum()
        values.append(-sum(p * np.log(p) for p in shares if p > 1e-12))
    return values


def az_expressivity(of):
    return sum(entropies(of))


def az_progressivity(of):
    return min(after - before for before, after in pairwise(entropies(of)))


def az_trainability(of):
    order = ("stem", "cells_0/0", "residual_1", "cells_1/0")
    scores = []
    for index, name in enumerate(order[1:], 1):
        inside, outside = of.block_pullbacks[index], of.signs_between[name]
        total, positions = 0.0, 0
        for n in range(COUNT):
            for h in range(outside.shape[1]):
                for w in range(outside.shape[2]):
                    step = inside.shape[1] // outside.shape[1]
                    square = inside[n, step * h : step * (h + 1), step * w : step * (w + 1)]
                    total = total + np.outer(square.ravel(), outside[n, h, w])
                    positions += 1
        largest = np.linalg.svd(total / positions)[1].max()
        scores.append(2 - largest - 1 / (largest + 1e-6))
    return np.mean(scores)


def nngp(of):
    kernel = of.pooled @ of.pooled.T / of.pooled.shape[1]
    ridged = kernel + 1e-3 * np.linalg.eigvalsh(kernel).mean() * np.eye(COUNT)
    targets = np.eye(CLASSES)[LABELS[0]]
    targets = targets - targets.mean(0)
    errors = []
    for left_out in range(COUNT):
        others = [n for n in range(COUNT) if n != left_out]
        solved = np.linalg.solve(ridged[np.ix_(others, others)], targets[others])
        errors.append(((targets[left_out] - ridged[left_out, others] @ solved) ** 2).sum())
    return -np.mean(errors)


FORMULAS = {
    function.__name__: function
    for function in (
        naswot, swap, jacob_cov, epe_nas, synflow, snip, grad_norm, grasp, fisher, zico, zen, az_expressivity,
        az_progressivity, az_trainability, nngp,
    )
}  # fmt: skip


def test_every_proxy_of_the_network_has_a_formula_here():
    assert set(FORMULAS) == set(NAMES)


@pytest.fixture(scope="module", params=range(len(CELLS)), ids=["-".join(map(str, cell)) for cell in CELLS])
def reference(request):
    return request.param, Reference(CELLS[request.param])


@pytest.mark.parametrize("name", FORMULAS)
def test_a_proxy_equals_its_formula(name, reference, measured):
    row, of = reference
    value, status = measured[row][name]
    expected = FORMULAS[name](of)
    assert value == pytest.approx(expected, rel=1e-3, abs=1e-4) and status == "ok"


def test_units_that_nothing_reads_are_no_pattern():
    """One unit always on, one on for the first image alone, and a node of four units that no ReLU reads."""
    signs = jnp.array([[True, True], [True, False], [True, False]])
    unread = jnp.zeros((3, 4), bool)
    for patterns, expected in [
        ([(signs, jnp.array(1)), (unread, jnp.array(0))], 2),
        ([(signs, jnp.array(2)), (unread, jnp.array(1))], 3),
        ([(unread, jnp.array(0)), (signs[:, :1], jnp.array(1)), (signs[:, :1], jnp.array(3))], 1),
    ]:
        assert PROXIES["swap"].measure(SimpleNamespace(patterns=patterns)) == expected


@pytest.mark.parametrize("count", [1, 31, 32])
def test_patterns_of_up_to_32_images(count):
    """Units that differ in one image each, wherever it stands, and one that is never on."""
    signs = jnp.concatenate([jnp.eye(count, dtype=bool)] * 2 + [jnp.zeros((count, 1), bool)], axis=1)
    probe = SimpleNamespace(patterns=[(signs, jnp.array(1))])
    assert PROXIES["swap"].measure(probe) == count + 1


@pytest.mark.parametrize("name", ["naswot", "jacob_cov", "epe_nas", "nngp"])
def test_matrices_that_have_no_score(name):
    finish = PROXIES[name].finish
    alike = np.ones((COUNT, COUNT), np.float32)
    value, status = finish(np.zeros_like(alike), LABELS[0])
    assert (value, status) == (-np.inf, "singular")
    if name == "naswot":
        # Counts are always finite.
        assert finish(5 * alike, LABELS[0]) == (-np.inf, "singular")
    else:
        value, status = finish(np.full_like(alike, np.nan), LABELS[0])
        assert not np.isfinite(value) and status != "ok"


def test_images_that_differ_more_score_higher():
    """Ends of two scales: all images alike, and all independent of each other."""
    for name in ("jacob_cov", "epe_nas"):
        alike, _ = PROXIES[name].finish(np.ones((COUNT, COUNT)), LABELS[0])
        independent, _ = PROXIES[name].finish(np.eye(COUNT), LABELS[0])
        assert independent > alike
    independent, _ = PROXIES["jacob_cov"].finish(np.eye(COUNT), LABELS[0])
    assert independent == pytest.approx(-COUNT, rel=1e-4)
