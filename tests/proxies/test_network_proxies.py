"""Every proxy of the network against its formula, worked out in float64 on the network built for one cell.

What is measured comes from the program that scores many architectures; the reference shares no code with the
proxies: activations are read and moved where the normalisation receives them, second derivatives are taken
forwards over backwards, blocks are evaluated one by one, and what follows is numpy.
"""

from itertools import pairwise
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jnas import spaces
from jnas.nets.modules import BatchNorm, Build, ConvolutionNorm, initial_parameters
from jnas.nets.nasbench201 import Cell, Network, ResidualBlock, specialise
from jnas.proxies import PROXIES, batch
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
    found = jax.device_get(
        batch.network_measurements(
            KEY,
            choices,
            IMAGES,
            jnp.asarray(LABELS),
            proxies=tuple(map(PROXIES.get, NAMES)),
            classes=CLASSES,
            channels=CHANNELS,
            cells_per_stage=1,
            stages=2,
        )
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
    leaves, structure = jax.tree.flatten(supernet_parameters(key))
    stream = np.asarray(jax.random.normal(key, (sum(leaf.size for leaf in leaves if leaf.ndim > 1),)))
    drawn = []
    for leaf in leaves:
        size = leaf.size if leaf.ndim > 1 else 0
        drawn.append(stream[:size].reshape(leaf.shape) if size else np.asarray(leaf))
        stream = stream[size:]
    return jax.tree.unflatten(structure, drawn)


def weights_of(params):
    """By path, what is a weight of a convolution or of the classifier."""
    flat = traverse_util.flatten_dict(params)
    return {path: leaf for path, leaf in flat.items() if "kernel" in path[-1] or path[-1] == "downsample"}


def watched(apply, moved=None, normalise=True):
    """`apply()` and what each normalisation received, to which `moved` is added first."""
    seen = {}

    def intercept(call, args, kwargs, context):
        if not isinstance(context.module, BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        (x,), path = args, context.module.path
        x = x + moved[path] if moved and path in moved else x
        seen[path] = x
        return call(x) if normalise else x

    with nn.intercept_methods(intercept):
        return apply(), seen


class Reference:
    """All that the formulas need of one cell, in float64."""

    def __init__(self, cell):
        self.cell = cell
        self.weights_key, self.probe_key = jax.random.split(KEY)
        self.params = as_float64(specialise(supernet_parameters(self.weights_key), cell))
        zen_weights, x_key, e_key = jax.random.split(self.probe_key, 3)
        shape = IMAGES[0].shape
        normal = as_float64(specialise(unit_normal_parameters(zen_weights), cell))
        x, e = (np.asarray(jax.random.normal(key, shape), np.float64) for key in (x_key, e_key))
        noise = np.asarray(jax.random.normal(jax.random.fold_in(self.probe_key, 1), shape), np.float64)
        # After all blocks in the order of their names, which is how the signs are dealt out.
        self.boundaries = ("after_cell_0_0", "after_cell_1_0", "after_residual_1", "after_stem")
        shapes = ((6, 4, 4, 2), (6, 2, 2, 4), (6, 2, 2, 4), (6, 4, 4, 2))
        keys = jax.random.split(jax.random.fold_in(self.probe_key, 2), 4)
        signs = {
            name: np.asarray(jax.random.rademacher(key, shape, jnp.float32), np.float64)
            for name, key, shape in zip(self.boundaries, keys, shapes, strict=True)
        }
        with jax.enable_x64(True):
            images = np.asarray(IMAGES, np.float64)
            results = jax.jit(self._everything)(self.params, normal, images, x, e, noise, signs)
            self.__dict__.update(jax.tree.map(np.asarray, results))
        self.signs_between = signs

    def _everything(self, params, normal, images, x, e, noise, signs):
        network = Network(CHANNELS, CLASSES, Build(), 1, 2, architecture=self.cell)

        def logits(params, images, **watching):
            return watched(lambda: network.apply({"params": params}, images), **watching)

        def features(params, images):
            (_, sown), seen = watched(
                lambda: network.apply({"params": params}, images, mutable=["features", "patterns"])
            )
            return sown, seen

        def loss(params, index):
            out, _ = logits(params, images[index])
            return -jnp.mean(jax.nn.log_softmax(out)[jnp.arange(COUNT), LABELS[index]])

        def moved_loss(moved):
            out, seen = logits(params, images[0], moved=moved)
            out = out + moved[()]
            value = -jnp.mean(jax.nn.log_softmax(out)[jnp.arange(COUNT), LABELS[0]])
            return value, {**seen, (): out}

        sown, seen = features(params, images[0])
        # Only weights count: derivatives are taken along them alone.
        rest = {path: leaf for path, leaf in traverse_util.flatten_dict(params).items() if leaf.ndim == 1}

        def gradient(weights):
            def of_weights(weights):
                return loss(traverse_util.unflatten_dict({**weights, **rest}), 0)

            return jax.grad(of_weights)(weights)

        weights = weights_of(params)
        by_weight, product = jax.jvp(gradient, (weights,), (gradient(weights),))
        still = {path: jnp.zeros_like(leaf) for path, leaf in seen.items()}
        by_activation, activations = jax.grad(moved_loss, has_aux=True)(
            {**still, (): jnp.zeros((COUNT, CLASSES))}
        )
        flowing = jax.grad(
            lambda params: jnp.sum(logits(params, jnp.ones_like(images[0, :1]), normalise=False)[0])
        )(jax.tree.map(jnp.abs, params))
        zen_sown, zen_seen = features(normal, x)
        zen_moved, _ = features(normal, x + 0.01 * e)

        blocks = {
            "after_stem": ConvolutionNorm(1, CHANNELS, 3, Build(), relu=False),
            "after_cell_0_0": Cell(CHANNELS, Build(), self.cell),
            "after_residual_1": ResidualBlock(CHANNELS, Build()),
            "after_cell_1_0": Cell(2 * CHANNELS, Build(), self.cell),
        }
        outputs, pulled, h = [], [], noise
        for name, block in blocks.items():

            def evaluate(h, block=block, name=name):
                return block.apply({"params": params[name.removeprefix("after_")]}, h)

            h, pullback = jax.vjp(evaluate, h)
            outputs.append(h)
            pulled.append(pullback(signs[name])[0])
        return {
            "patterns": traverse_util.flatten_dict(sown["patterns"]),
            "pooled": sown["features"]["pooled"][0],
            "input_gradient": jax.grad(lambda x: jnp.sum(logits(params, x)[0]))(images[0]),
            "gradients": [by_weight, weights_of(jax.grad(loss)(params, 1))],
            "hessian_product": product,
            "activations": activations,
            "by_activation": by_activation,
            "flowing": weights_of(flowing),
            "zen_features": (zen_sown["features"]["last"][0], zen_moved["features"]["last"][0]),
            "zen_inputs": zen_seen,
            "block_outputs": outputs,
            "block_pullbacks": pulled,
        }

    def relus(self):
        """The signs bool[N] of each ReLU of the authors' network, one for each operation that has it."""
        for path, (values,) in self.patterns.items():
            copies = 1
            if path[-1].startswith("node_"):
                source = int(path[-1].removeprefix("node_"))
                copies = sum(
                    self.cell[edge] in (2, 3)
                    for edge, (start, _) in enumerate(SPACE.edges)
                    if start == source
                )
            for unit in values.reshape(COUNT, -1).T:
                yield from [unit] * copies

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
        if path == ("last_norm",):
            # It stands behind no convolution.
            continue
        products = activation * of.by_activation[path]
        if path:
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
    for received in of.zen_inputs.values():
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
    order = ("after_stem", "after_cell_0_0", "after_residual_1", "after_cell_1_0")
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
