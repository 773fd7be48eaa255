from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from nasbench201_networks import Network
from nasbench201_reference import Pass, layers

from jnas import spaces
from jnas.errors import InputError
from jnas.nets import macro
from jnas.nets.modules import INITIALISATIONS, PER_CHANNEL, RUNNING_KEEP, Build, initial_parameters

SPACE = spaces.get("nasbench201")
CELLS = {
    "all none": (0, 0, 0, 0, 0, 0),
    "all skip": (1, 1, 1, 1, 1, 1),
    "all pool": (4, 4, 4, 4, 4, 4),
    "all 3x3": (3, 3, 3, 3, 3, 3),
    "a node that nothing feeds": (0, 3, 2, 1, 3, 2),
    "every operation": (2, 1, 3, 0, 4, 3),
}


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
        if path[-1] not in PER_CHANNEL:
            fan_in = np.prod(leaf.shape[-4:-1])
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


def test_a_cell_by_all_forms_is_that_of_plain_jax(images, params):
    """By choices, by gates and as the network of the cell alone, of two stages."""
    cell = CELLS["every operation"]
    network = Network(2, 3, Build(), stages=2)
    expected = Pass(layers(params, cell), cell).logits(images)
    choices = jnp.array([cell], jnp.int32)
    for found in (
        network.apply({"params": params}, images, SPACE.gates(np.array(cell))),
        network.apply({"params": params}, images, choices=choices),
        macro.restricted(network, [cell]).apply(
            {"params": macro.restricted_params(network, params, [cell])}, images
        ),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


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
        return {name: leaf[0] for name, leaf in sown["patterns"].items() if name.startswith("cells_0")}

    network = jax.jit(
        lambda params, images, gates: Network(2, 3, Build(), stages=2).apply(
            {"params": params}, images, gates, mutable=["patterns"]
        )
    )
    assert not any(leaf.any() for leaf in signs(CELLS["all skip"]).values())
    everywhere = signs(CELLS["all 3x3"])
    assert len(everywhere) == 3 and all(leaf.any() for leaf in everywhere.values())
    # A node with no convolution behind it: edges leave node 1 towards nodes 2 and 3.
    first = signs((3, 3, 1, 3, 1, 3))
    assert (
        not first["cells_0_node_1"].any() and first["cells_0_node_0"].any() and first["cells_0_node_2"].any()
    )


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (2, 2), (9, 9)])
def test_images_that_cannot_be_halved(size):
    with pytest.raises(InputError, match=f"images of {size[0]}x{size[1]} do not fit a network of 3 stages"):
        macro.check_halved((10, *size, 3), 3)


def test_images_that_fit():
    macro.check_halved((10, 4, 8, 3), 3)
    macro.check_halved((10, 5, 7, 3), 1)
