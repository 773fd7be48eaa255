from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jnas import spaces
from jnas.errors import InputError
from jnas.nets import cost
from jnas.nets.modules import INITIALISATIONS, RUNNING_KEEP, Build, initial_parameters
from jnas.nets.nasbench201 import Network, check_images, specialise

SPACE = spaces.get("nasbench201")
CELLS = {
    "all none": (0, 0, 0, 0, 0, 0),
    "all skip": (1, 1, 1, 1, 1, 1),
    "all pool": (4, 4, 4, 4, 4, 4),
    "all 3x3": (3, 3, 3, 3, 3, 3),
    "a node that nothing feeds": (0, 3, 2, 1, 3, 2),
    "every operation": (2, 1, 3, 0, 4, 3),
}


def sizes(tree):
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 8, 8, 1))


@pytest.fixture(scope="module")
def params(images):
    """Of the masked build of two stages, with scales and offsets that are not all alike."""
    network = Network(2, 3, Build(), stages=2)
    initial = jax.jit(network.init)(jax.random.key(1), images, jnp.zeros((1, 6, 5)))["params"]
    leaves, structure = jax.tree.flatten(initial)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noisy)


@pytest.fixture(scope="module")
def masked(images, params):
    """Logits and gradient of the masked build: one program for all gates."""

    @jax.jit
    def evaluate(gates):
        def loss(params):
            logits = Network(2, 3, Build(), stages=2).apply({"params": params}, images, gates)
            return jnp.sum(jnp.sin(logits)), logits

        return jax.grad(loss, has_aux=True)(params)[::-1]

    return evaluate


@pytest.mark.parametrize("cell", CELLS)
def test_the_specialised_build_equals_the_masked_build(cell, images, params, masked):
    architecture = CELLS[cell]
    logits, gradient = masked(SPACE.gates(np.array(architecture, np.int32)))
    own = specialise(params, architecture)
    network = Network(2, 3, Build(), stages=2, architecture=architecture)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    assert sizes(own) == sizes(shapes)

    @jax.jit
    def evaluate(params):
        def loss(params):
            logits = network.apply({"params": params}, images)
            return jnp.sum(jnp.sin(logits)), logits

        return jax.grad(loss, has_aux=True)(params)[::-1]

    own_logits, own_gradient = evaluate(own)
    np.testing.assert_allclose(own_logits, logits, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
        own_gradient,
        specialise(gradient, architecture),
    )


@pytest.mark.parametrize("initialisation", INITIALISATIONS)
def test_initial_parameters(initialisation, images):
    """All weights from one stream: shapes, types and distributions are those of `init`."""
    network = Network(16, 10, Build(initialisation=initialisation), stages=2)
    gates = jnp.zeros((1, 6, 5))
    found = initial_parameters(network, jax.random.key(0), images, gates)
    expected = jax.eval_shape(network.init, jax.random.key(0), images, gates)["params"]
    assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, expected)
    variance = {"kaiming_normal": 2.0, "pytorch_default": 1 / 3}[initialisation]
    for path, leaf in traverse_util.flatten_dict(found).items():
        if path[-1] in ("kernel", "downsample", "classifier_kernel"):
            fan_in = leaf[..., 0].size
            scaled = np.asarray(leaf) * np.sqrt(fan_in / variance)
            # Four standard deviations of the mean and of the variance of so many normal numbers.
            assert abs(scaled.mean()) < 4 / np.sqrt(leaf.size)
            assert abs(scaled.var() - 1) < 4 * np.sqrt(2 / leaf.size)
            if initialisation == "pytorch_default":
                assert np.abs(leaf).max() <= 1 / np.sqrt(fan_in)
        else:
            assert (leaf == (1.0 if path[-1] == "scale" else 0.0)).all()
    again = initial_parameters(network, jax.random.key(0), images, gates)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    other = initial_parameters(network, jax.random.key(1), images, gates)
    assert not np.array_equal(found["stem"]["kernel"], other["stem"]["kernel"])


@pytest.mark.parametrize("statistics", ["train", "frozen"])
def test_the_build_on_planes_equals_the_plain_build(statistics, images, params):
    gates = jax.nn.softmax(jax.random.normal(jax.random.key(3), (1, 6, 5))).at[0, 2, 3].set(0.0)

    def evaluate(planes):
        network = Network(2, 3, Build(statistics=statistics, planes=planes), stages=2)

        @jax.jit
        def outputs_and_gradients(params, images):
            logits, pullback = jax.vjp(
                lambda params, images: network.apply({"params": params}, images, gates), params, images
            )
            # On planes side by side, as kernels are found; otherwise one after the other, which compiles faster.
            several = jax.vmap if planes else lambda pullback: partial(jax.lax.map, pullback)
            return logits, several(pullback)(jax.random.normal(jax.random.key(4), (3, *logits.shape)))

        return outputs_and_gradients(params, images)

    for one, other in zip(jax.tree.leaves(evaluate(True)), jax.tree.leaves(evaluate(False)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5 * float(jnp.abs(other).max() + 1))


def test_frozen_statistics_under_a_map_over_images(images, params):
    """Image by image over the named axis, in both builds: the logits of the whole batch."""
    gates = jnp.full((1, 6, 5), 0.2)
    train = jax.jit(Network(2, 3, Build(), stages=2).apply)({"params": params}, images, gates)
    for planes in (False, True):
        build = Build(statistics="frozen", planes=planes, axis_name="images")
        network = Network(2, 3, build, stages=2)

        @jax.jit
        def logits(params, images, network=network):
            def of_image(image):
                return network.apply({"params": params}, image[None], gates)[0]

            return jax.vmap(of_image, axis_name="images")(images)

        np.testing.assert_allclose(logits(params, images), train, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "depth", "stages", "image", "classes"),
    [
        (16, 5, 3, (32, 32, 3), 10),
        (3, 1, 3, (8, 8, 1), 10),
        (4, 2, 2, (6, 4, 1), 7),
        (2, 3, 1, (5, 5, 3), 100),
    ],
)
def test_the_number_of_parameters_is_that_of_the_closed_form(channels, depth, stages, image, classes):
    macro = cost.Macro(channels, depth, stages, image, classes)
    for architecture in np.asarray(SPACE.sample(jax.random.key(depth), 3)).tolist():
        network = Network(channels, classes, Build(), depth, stages, architecture=tuple(architecture))
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image)))["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == cost.params(architecture, macro)


def test_running_statistics(images):
    network = Network(2, 3, Build(), stages=1, architecture=CELLS["all skip"])
    variables = jax.jit(network.init)(jax.random.key(0), images)
    start = variables["batch_stats"]
    assert all((leaf == 0).all() for path, leaf in leaves(start) if path == "mean")
    assert all((leaf == 1).all() for path, leaf in leaves(start) if path == "variance")

    trained, updated = jax.jit(partial(network.apply, mutable=["batch_stats"]))(variables, images)
    running = network.clone(build=Build(statistics="running"))
    evaluate = jax.jit(running.apply)
    # A share of the old stays: what is left after it is the batch's own.
    batch = jax.tree.map(
        lambda new, old: (new - RUNNING_KEEP * old) / (1 - RUNNING_KEEP), updated["batch_stats"], start
    )
    logits = evaluate({"params": variables["params"], "batch_stats": batch}, images)
    np.testing.assert_allclose(logits, trained, rtol=1e-3, atol=1e-3)
    # Stored averages take no notice of the other images.
    alone = evaluate({"params": variables["params"], "batch_stats": batch}, images.at[1:].set(9.0))
    np.testing.assert_array_equal(alone[0], logits[0])


def leaves(tree):
    return [(path[-1].key, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def test_patterns_of_relus_that_nothing_reads_are_zero(images, params):
    def signs(architecture):
        gates = SPACE.gates(np.array(architecture, np.int32))
        _, sown = network(params, images, gates)
        return {name: leaf[0] for name, leaf in sown["patterns"]["cell_0_0"].items()}

    network = jax.jit(
        lambda params, images, gates: Network(2, 3, Build(), stages=2).apply(
            {"params": params}, images, gates, mutable=["patterns"]
        )
    )
    assert not any(leaf.any() for leaf in signs(CELLS["all skip"]).values())
    everywhere = signs(CELLS["all 3x3"])
    assert set(everywhere) == {"node_0", "node_1", "node_2"} and all(
        leaf.any() for leaf in everywhere.values()
    )
    # A node with no convolution behind it: edges leave node 1 towards nodes 2 and 3.
    first = signs((3, 3, 1, 3, 1, 3))
    assert not first["node_1"].any() and first["node_0"].any() and first["node_2"].any()


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (2, 2), (9, 9)])
def test_images_that_cannot_be_halved(size):
    with pytest.raises(InputError, match=f"images of {size[0]}x{size[1]} do not fit a network of 3 stages"):
        check_images((10, *size, 3), 3)


def test_images_that_fit():
    check_images((10, 4, 8, 3), 3)
    check_images((10, 5, 7, 3), 1)
