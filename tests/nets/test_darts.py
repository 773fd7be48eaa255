import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas.errors import InputError
from jnas.nets import darts, separable
from jnas.nets.families import FAMILIES
from jnas.nets.modules import Build, initial_parameters
from jnas.proxies import ntk
from jnas.spaces import darts as space


def random_gates(seed):
    """Every operation weighs something on some edges, and nothing on others."""
    generator = np.random.default_rng(seed)
    gates = generator.uniform(size=(2, 14, 8)) * (generator.random((2, 14, 8)) < 0.6)
    gates[..., 0] = 0
    return jnp.asarray(gates, jnp.float32)


@pytest.fixture(scope="module")
def network():
    """A reduction cell, whose edges have either stride, of two channels, its parameters and three images of 4x4."""
    built = darts.Network(1, 2, Build(), reductions=(True,))
    images = jax.random.normal(jax.random.key(0), (3, 4, 4, 3))
    return built, initial_parameters(built, jax.random.key(1), images, random_gates(0)), images


def test_the_kernel_with_frozen_statistics_on_planes_is_that_of_the_plain_form(network):
    """In train mode the authors' numbers say it (test_tenas_parity.py)."""
    built, params, images = network
    gates = random_gates(1)

    def kernel(implementation):
        return jax.jit(
            ntk.kernel_function(
                params, images, lambda build: built.clone(build=build), normalisation="frozen",
                logits="sum", parameters="all", implementation=implementation,
            )
        )(gates)  # fmt: skip

    own, reference = kernel("jnas"), kernel("jacobian_contraction")
    np.testing.assert_allclose(own, reference, rtol=2e-4, atol=2e-4 * float(jnp.abs(reference).max()))


@pytest.mark.parametrize("image", [(5, 4)])
def test_planes_equal_the_plain_form_on_odd_images(image):
    built = darts.Network(1, 3, Build(), stem=False)
    images = jax.random.normal(jax.random.key(0), (4, *image, 1))
    params = initial_parameters(built, jax.random.key(1), images, random_gates(0))

    def form(planes):
        own = built.clone(build=Build(planes=planes))
        return jax.jit(lambda params, images, gates: own.apply({"params": params}, images, gates))

    forms = {planes: form(planes) for planes in (False, True)}
    for seed in range(3):
        plain, planes = (forms[planes](params, images, random_gates(seed)) for planes in (False, True))
        np.testing.assert_allclose(planes, plain, rtol=1e-4, atol=1e-5)


def test_gates_of_each_image_are_its_own(network):
    built, params, images = network
    gates = jnp.stack([random_gates(seed) for seed in range(len(images))])
    own = built.clone(build=Build(statistics="none"))
    apply = jax.jit(own.apply)
    together = apply({"params": params}, images, gates)
    for number, image in enumerate(images):
        alone = apply({"params": params}, image[None], gates[number])
        np.testing.assert_allclose(together[number], alone[0], rtol=1e-4, atol=1e-4)


def test_integers_are_operations(network):
    built, params, images = network
    architecture = space.SPACE.sample(jax.random.key(3), 1)[0]
    gates = space.gates(architecture)
    np.testing.assert_array_equal(
        built.apply({"params": params}, images, gates.argmax(-1)),
        built.apply({"params": params}, images, gates),
    )


def test_what_a_missing_edge_does_not_change(network):
    built, params, images = network
    gates = space.gates(space.SPACE.sample(jax.random.key(4), 1)[0])
    without = gates.at[..., 0].set(0)
    np.testing.assert_array_equal(
        built.apply({"params": params}, images, gates), built.apply({"params": params}, images, without)
    )


def test_copies_have_the_deviation_of_one():
    built = darts.Network(16, 3, Build(), reductions=(False,))
    images = jnp.zeros((1, 8, 8, 3))
    params = initial_parameters(built, jax.random.key(1), images, random_gates(0))
    edges = params["cell_0"]["from_0"]
    assert float(edges["sep_conv_3x3_0_pointwise"].std()) == pytest.approx(np.sqrt(2 / 16), rel=0.05)
    assert float(edges["sep_conv_5x5_0_depthwise"].std()) == pytest.approx(np.sqrt(2 / 25), rel=0.05)


def test_targets_that_are_not_there_cost_nothing_and_change_nothing():
    keys = jax.random.split(jax.random.key(0), 12)
    shapes = [(3, side, side, 2) for side, _ in separable.KINDS]
    first = tuple(jax.random.normal(keys[i], shape) for i, shape in enumerate(shapes))
    second = tuple(jax.random.normal(keys[4 + i], shapes[i]) for i in range(2))
    ones, zeros = jnp.ones((3, 4, 2)), jnp.zeros((3, 4, 2))
    weights = separable.Weights(
        first, jax.random.normal(keys[6], (3, 4, 2, 2)), ones, zeros,
        second, jax.random.normal(keys[7], (3, 2, 2, 2)), ones[:, :2], zeros[:, :2],
    )  # fmt: skip
    x = jax.random.normal(keys[8], (2, 3, 5, 5))
    gates = jnp.ones((3, 4)).at[2].set(0)

    @jax.jit
    def gradient(count):
        def total(x, weights):
            return jnp.sum(jnp.sin(separable.convolutions(x, weights, gates, count)[0]))

        return jax.grad(total, (0, 1))(x, weights)

    jax.tree.map(np.testing.assert_array_equal, gradient(2), gradient(3))


def test_images_that_are_too_small():
    with pytest.raises(InputError, match="do not fit a network of 2 reduction cells"):
        FAMILIES["darts"].check_images((3, 3, 3), 3)
