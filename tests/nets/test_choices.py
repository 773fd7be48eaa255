"""Operations chosen by integers: the same functions as gates of zeros and ones, and as networks built for one cell."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jnas import spaces
from jnas.nets.modules import Build
from jnas.nets.nasbench201 import Network, specialise

SPACE = spaces.get("nasbench201")
CELLS = {
    "all none": (0, 0, 0, 0, 0, 0),
    "all skip": (1, 1, 1, 1, 1, 1),
    "all pool": (4, 4, 4, 4, 4, 4),
    "all 3x3": (3, 3, 3, 3, 3, 3),
    "a node that nothing feeds": (0, 3, 2, 1, 3, 2),
    "a node that nothing reads": (3, 2, 0, 4, 0, 3),
    "every operation": (2, 1, 3, 0, 4, 3),
}
BUILDS = {"loops": Build(loops=True), "planes": Build(planes=True)}
close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)


def network(build=Build(), architecture=None):  # noqa: B008  (frozen)
    # One stage: what stands between stages knows nothing of the cell.
    return Network(2, 3, build, stages=1, architecture=architecture)


def choices_of(cell):
    """int32[1, 6]"""
    return jnp.array(CELLS[cell], jnp.int32)[None]


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 4, 4, 1))


@pytest.fixture(scope="module")
def params(images):
    """Of the masked build, with scales and offsets that are not all alike."""
    initial = jax.eval_shape(network().init, jax.random.key(1), images, jnp.zeros((1, 6, 5)))["params"]
    leaves, structure = jax.tree.flatten(initial)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [0.6 + 0.5 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noisy)


def with_gradients(built, images):
    """(params, gates or choices or nothing) to the logits and to the gradient of a function of them."""

    def evaluate(params, *gates):
        def loss(params):
            logits = built.apply({"params": params}, images, *gates)
            return jnp.sum(jnp.sin(logits)), logits

        gradient, logits = jax.grad(loss, has_aux=True)(params)
        return logits, gradient

    return evaluate


@pytest.fixture(scope="module")
def masked(images, params):
    """Logits and gradients with gates of zeros and ones: one program for all cells."""
    evaluate = jax.jit(with_gradients(network(), images))
    return {cell: evaluate(params, SPACE.gates(np.array(CELLS[cell], np.int32))) for cell in CELLS}


@pytest.fixture(scope="module", params=BUILDS)
def by_choice(request, images, params):
    return jax.jit(partial(with_gradients(network(BUILDS[request.param]), images), params))


@pytest.mark.parametrize("cell", CELLS)
def test_a_choice_equals_a_gate_of_one(cell, by_choice, masked):
    jax.tree.map(close, by_choice(choices_of(cell)), masked[cell])


@pytest.mark.parametrize("cell", ["all none", "a node that nothing feeds", "every operation"])
def test_a_choice_equals_the_network_built_for_it(cell, images, params, by_choice):
    own = network(architecture=CELLS[cell])
    logits, gradient = jax.jit(with_gradients(own, images))(specialise(params, CELLS[cell]))
    found_logits, found = by_choice(choices_of(cell))
    close(found_logits, logits)
    jax.tree.map(close, specialise(found, CELLS[cell]), gradient)
    # What the cell does not have takes no part.
    kept = set(traverse_util.flatten_dict(gradient))
    unused = {path: leaf for path, leaf in traverse_util.flatten_dict(found).items() if path not in kept}
    assert unused and not any(leaf.any() for leaf in unused.values())


def test_a_map_over_choices_in_loops(images, params, masked):
    """The scores of architectures side by side (proxies/test_batch.py) have the gradients."""
    built = network(BUILDS["loops"])
    evaluate = jax.jit(jax.vmap(lambda choices: built.apply({"params": params}, images, choices)))
    logits = evaluate(jnp.stack([choices_of(cell) for cell in CELLS]))
    for index, cell in enumerate(CELLS):
        close(logits[index], masked[cell][0])


def test_a_map_over_choices_on_planes(images, params, masked):
    evaluate = partial(with_gradients(network(BUILDS["planes"]), images), params)
    logits, gradients = jax.jit(jax.vmap(evaluate))(jnp.stack([choices_of(cell) for cell in CELLS]))
    for index, cell in enumerate(CELLS):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], gradients)
        jax.tree.map(close, (logits[index], own), masked[cell])


def test_statistics_held_constant(images, params):
    """Image by image on planes, as kernels with frozen statistics are found.

    Expected is one backward pass through the whole batch, which weighs the images' rows.
    """
    weights = jnp.array([1.0, -2.0, 0.5, 3.0])
    whole = network(Build(statistics="frozen"))
    by_image = network(Build(statistics="frozen", planes=True, axis_name="images"))
    cells = ["every operation", "all 3x3", "a node that nothing feeds"]

    @jax.jit
    def expected(gates):
        return jax.grad(lambda params: weights @ whole.apply({"params": params}, images, gates).sum(1))(
            params
        )

    @jax.jit
    def found(choices):
        def of_image(image):
            return jax.grad(lambda params: jnp.sum(by_image.apply({"params": params}, image[None], choices)))(
                params
            )

        gradients = jax.vmap(of_image, axis_name="images")(images)
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), gradients)

    for cell in cells:
        jax.tree.map(close, found(choices_of(cell)), expected(SPACE.gates(np.array(CELLS[cell], np.int32))))


def test_without_normalisation(images, params):
    built = [network(Build(statistics="none", loops=loops)) for loops in (False, True)]
    masked, by_choice = [jax.jit(with_gradients(own, images)) for own in built]
    for cell in ("all none", "every operation"):
        expected = masked(params, SPACE.gates(np.array(CELLS[cell], np.int32)))
        jax.tree.map(close, by_choice(params, choices_of(cell)), expected)


def test_gates_of_channels_and_what_is_sown(images, params):
    """Signs, their readers, features, and derivatives by gates of channels and by what joins blocks."""
    gated = {
        path: 1 + 0.1 * jnp.arange(4.0 * leaf.shape[-1]).reshape(4, -1)
        for path, leaf in traverse_util.flatten_dict(params).items()
        if path[-1] == "kernel"
    }
    gated = traverse_util.unflatten_dict(gated)

    def evaluate(built, gates):
        def loss(channel_gates):
            logits, sown = built.apply(
                {"params": params, "channel_gates": channel_gates},
                images,
                gates,
                mutable=["patterns", "readers", "features"],
            )
            return jnp.sum(jnp.sin(logits)), sown

        return jax.grad(loss, has_aux=True)(gated)

    masked, by_choice = (jax.jit(partial(evaluate, network(Build(loops=loops)))) for loops in (False, True))
    for cell in ("every operation", "a node that nothing reads"):
        expected, expected_sown = masked(SPACE.gates(np.array(CELLS[cell], np.int32)))
        found, sown = by_choice(choices_of(cell))
        jax.tree.map(close, found, expected)
        jax.tree.map(close, sown["features"], expected_sown["features"])
        convolutions = np.isin(CELLS[cell], (2, 3))
        np.testing.assert_array_equal(sown["patterns"]["last"][0], expected_sown["patterns"]["last"][0])
        for node in range(3):
            # By choices the cells of a stage are one loop: signs carry the cell as their last axis.
            for name in ("patterns", "readers"):
                (own,) = sown[name][f"cells_0_node_{node}"]
                (other,) = expected_sown[name]["cell_0_0"][f"node_{node}"]
                np.testing.assert_array_equal(own[..., 0] if name == "patterns" else own, other)
            leaving = [edge for edge, (source, _) in enumerate(SPACE.edges) if source == node]
            assert sown["readers"][f"cells_0_node_{node}"][0] == convolutions[leaving].sum()
