"""The network whose operations are data against the network that its genotype is trained as."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from genotypes import DARTS_V2, EVERY_OPERATION

from jnas import spaces
from jnas.nets import darts_chosen, darts_macro
from jnas.nets.darts_operations import SEPARABLE
from jnas.nets.modules import Build, initial_parameters
from jnas.proxies import PROXIES, batch, naswot
from jnas.proxies.base import NETWORK
from jnas.proxies.probe import Probe, channel_gates
from jnas.spaces import darts

SPACE = spaces.get("darts")
CHANNELS, CLASSES, COUNT = 4, 3, 4
IMAGES = jax.random.normal(jax.random.key(0), (2, COUNT, 8, 8, 1))
LABELS = np.array([[0, 2, 1, 1], [2, 2, 0, 1]], np.int32)
CELLS = [darts.from_string(DARTS_V2), darts.from_string(EVERY_OPERATION)]


def choices_of(cell):
    return jnp.asarray(np.argmax(np.asarray(SPACE.gates(cell)), axis=-1).astype(np.int32))


def network(build: Build, stages: int = 2) -> darts_chosen.Network:
    return darts_chosen.Network(CHANNELS, CLASSES, build, 1, stages)


@pytest.fixture(scope="module")
def params():
    return initial_parameters(network(Build()), jax.random.key(1), IMAGES[0], choices_of(CELLS[0]))


def alone(cell, tree):
    """What of parameters, or of gates of channels, the network of one genotype has, by its names."""
    genotype = darts.genotype(cell)
    own = {name: value for name, value in tree.items() if not name.startswith("cell_")}
    for index in range(sum(name.startswith("cell_") for name in tree)):
        # Two stages of one normal cell have a reduction cell between them.
        group, reduction = tree[f"cell_{index}"], index == 1
        edges = genotype.reduce if reduction else genotype.normal
        taken = {name: group[name] for name in ("older", "younger")}
        for number, (name, source) in enumerate(edges):
            halving = reduction and source < 2
            if name not in SEPARABLE and not (name == "skip_connect" and halving):
                continue
            places = darts_chosen.FROM_INPUTS if halving else darts_chosen.FROM_NODES
            places = places if reduction else list(range(len(darts.EDGES)))
            row = places.index(darts.EDGES.index((source, 2 + number // 2)))
            stacked = group[f"{'halving' if halving else 'plain'}_{name}"]
            taken[f"edge_{number}_{name}"] = jax.tree.map(lambda leaf, row=row: leaf[row], stacked)
        own[f"cell_{index}"] = taken
    return own


def trained(cell, build=None, stages=2):
    return darts_macro.Network(darts.genotype(cell), CHANNELS, CLASSES, build or Build(), 1, stages)


def loss_of(logits, labels=LABELS[0]):
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


@pytest.fixture(scope="module")
def shown(params):
    @jax.jit
    def show(choices):
        probe = Probe(jax.random.key(2), network, params, choices, IMAGES, jnp.asarray(LABELS), CLASSES)
        gates = channel_gates(params, COUNT)
        by_weight, by_channel = jax.grad(probe.loss, (0, 2))(params, 0, gates)
        plain, sown = probe.forward(params, IMAGES[0], statistics="none")
        return {
            "logits": probe.logits,
            "by_weight": by_weight,
            "by_channel": by_channel,
            "kernel": naswot.agreement(probe),
            "plain": plain * jnp.exp(sum(jax.tree.leaves(sown["scales"]))),
        }

    return [jax.device_get(show(choices_of(cell))) for cell in CELLS]


@pytest.fixture(scope="module")
def expected(params):
    """What the networks of the genotypes say: one program for each."""

    def evaluate(built, bare, own):
        def loss(own):
            read, relu = [], nn.relu
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(nn, "relu", lambda x: (read.append(x > 0), relu(x))[1])
                logits, _ = built.apply({"params": own}, IMAGES[0])
            return loss_of(logits), (logits, read)

        gradient, (logits, read) = jax.grad(loss, has_aux=True)(own)
        plain, _ = bare.apply({"params": own}, IMAGES[0])
        return {"logits": logits, "by_weight": gradient, "read": read, "plain": plain}

    def of(cell):
        program = jax.jit(partial(evaluate, trained(cell), trained(cell, Build(statistics="none"))))
        return jax.device_get(program(alone(cell, params)))

    return [of(cell) for cell in CELLS]


@pytest.mark.parametrize("index", range(len(CELLS)))
def test_logits_and_gradients_are_those_of_the_genotype(index, shown, expected):
    cell, found, own = CELLS[index], shown[index], expected[index]
    close(found["logits"], own["logits"])
    jax.tree.map(close, alone(cell, found["by_weight"]), own["by_weight"])
    everything, of_genotype = (
        sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree["by_weight"])) for tree in (found, own)
    )
    np.testing.assert_allclose(everything, of_genotype, rtol=1e-3)
    largest = np.abs(own["plain"]).max()
    np.testing.assert_allclose(found["plain"], own["plain"], rtol=1e-3, atol=1e-3 * largest)


@pytest.mark.parametrize("index", range(len(CELLS)))
def test_gates_of_channels_see_what_their_weights_see(index, params, shown):
    """A gate multiplies what a channel's weights make: summed over images, both have the derivative w dL/dw."""
    gates = traverse_util.flatten_dict(shown[index]["by_channel"])
    gradients = traverse_util.flatten_dict(shown[index]["by_weight"])
    weights = traverse_util.flatten_dict(params)
    assert set(gates) == {path for path, value in weights.items() if value.ndim > 2}
    for path, gate in gates.items():
        products = weights[path] * gradients[path]
        close(gate.sum(-2), products.sum((-4, -3, -2)))


@pytest.mark.parametrize("index", range(len(CELLS)))
def test_signs_are_those_that_the_relus_of_the_genotype_read(index, shown, expected):
    kernel = sum(
        (signs[:, None] == signs[None]).reshape(COUNT, COUNT, -1).sum(-1)
        for signs in (signs.reshape(COUNT, -1) for signs in expected[index]["read"])
    )
    # Rounding may turn the sign of what is zero but for it.
    np.testing.assert_allclose(shown[index]["kernel"], kernel, atol=4)


def test_images_of_imagenets_size_go_through_its_stem():
    cell, images = CELLS[0], jax.random.normal(jax.random.key(4), (2, 64, 64, 3))
    built = network(Build(loops=True), stages=1)
    params = initial_parameters(built, jax.random.key(5), images, choices_of(cell))
    found, sown = jax.jit(partial(built.apply, mutable=["patterns", "readers"]))(
        {"params": params}, images, choices_of(cell)
    )
    logits, _ = jax.jit(trained(cell, stages=1).apply)({"params": alone(cell, params)}, images)
    close(found, logits)
    assert {"stem_1_input", "stem_2_input"} <= set(sown["patterns"])


def test_blocks_are_cut_apart_where_their_outputs_are_given(params):
    """The derivative of the cells' outputs by what passes between them, against cells evaluated alone."""
    cell = CELLS[1]
    choices, built = choices_of(cell), network(Build(loops=True))

    def outputs(boundaries):
        _, sown = built.apply(
            {"params": params, "boundaries": boundaries}, IMAGES[0], choices, mutable=["features"]
        )
        return {name: value[0] for name, value in sown["features"].items() if name.startswith("after_")}

    shapes = jax.eval_shape(outputs, {})
    zeros = {name: jnp.zeros(shape.shape) for name, shape in shapes.items()}
    signs = {
        name: jax.random.rademacher(jax.random.key(index), shape.shape, jnp.float32)
        for index, (name, shape) in enumerate(shapes.items())
    }

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def cut_apart(cuts):
        given = outputs(cuts)
        return sum(jnp.vdot(signs[name], value) for name, value in given.items()), given

    # Zeros are added to what passes.
    found, features = cut_apart(zeros)
    stem = features["after_stem"]
    cell_0, cell_1 = features["after_cell_0"], features["after_cell_1"]

    def module(index):
        wide, reduction = 3 * CHANNELS, index == 1
        inputs = [(wide, wide), (wide, 4 * CHANNELS), (4 * CHANNELS, 8 * CHANNELS)][index]
        own = darts_chosen.Cell(
            CHANNELS * (2 if index else 1), inputs, reduction, index == 2, Build(loops=True)
        )
        return lambda older, younger: own.apply(
            {"params": params[f"cell_{index}"]}, older, younger, choices[int(reduction)]
        )

    def by_the_cell_before(index, function, x):
        own = signs[f"after_cell_{index}"]
        return jax.jit(jax.grad(lambda x: jnp.vdot(own, function(x))))(x)

    close(found["after_stem"], by_the_cell_before(0, lambda x: module(0)(x, x), stem))
    close(found["after_cell_0"], by_the_cell_before(1, lambda x: module(1)(stem, x), cell_0))
    close(found["after_cell_1"], by_the_cell_before(2, lambda x: module(2)(cell_0, x), cell_1))


def test_every_proxy_of_the_network_scores_cells_and_finds_nothing_in_nothing():
    names = tuple(name for name, proxy in PROXIES.items() if proxy.subject == NETWORK)
    choices = jnp.stack([choices_of(CELLS[0]), jnp.zeros((2, len(darts.EDGES)), jnp.int32)])
    # With few images the sample-wise patterns of any cell are all that there can be.
    images, labels = (
        jax.random.normal(jax.random.key(1), (2, 12, 8, 8, 1)),
        np.arange(24).reshape(2, 12) % CLASSES,
    )
    arguments = (jax.random.key(0), choices, images, jnp.asarray(labels))
    measured = jax.device_get(
        batch.network_measurements(
            *arguments,
            space="darts",
            proxies=tuple(map(PROXIES.get, names)),
            classes=CLASSES,
            channels=2,
            cells_per_stage=1,
            stages=1,
        )
    )
    for name in names:
        (good, good_status), (nothing, nothing_status) = (
            PROXIES[name].finish(jax.tree.map(lambda leaf, row=row: leaf[row], measured[name]), labels[0])
            for row in (0, 1)
        )
        assert good_status == "ok" and np.isfinite(good), name
        if name == "grasp":
            assert nothing == 0 and good != 0
        else:
            sign = PROXIES[name].sign
            assert nothing_status != "ok" or sign * nothing < sign * good, name
