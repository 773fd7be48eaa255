"""`mixed_edges`, whose derivative is written by hand, equals the plain operations that JAX differentiates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas.nets import operations
from jnas.nets.fast.mixture import mixed_edges

POOLS = (3, 5)


def plain(x, kernels, scale, offset, gates, skip, pool, stride, relu, statistics, pools):
    """The same sum, operation by operation."""
    read = jax.nn.relu(x) if relu else x
    outputs = []
    for target in range(kernels.shape[1]):
        y = 0.0
        for branch in range(kernels.shape[0]):
            u = operations.convolution(read, kernels[branch, target], "CNHW", stride)
            mean, variance = operations.moments(u, "CNHW")
            if statistics == "frozen":
                mean, variance = jax.lax.stop_gradient((mean, variance))
            normalised = operations.normalise(
                u, mean, variance, scale[branch, target], offset[branch, target], "CNHW"
            )
            y += gates[branch, target] * normalised
        if skip is not None:
            y += skip[target] * x + sum(
                pool[number, target] * operations.average_pool(x, "CNHW", size)
                for number, size in enumerate(POOLS)
            )
        outputs.append(y)
    return tuple(outputs)


def draw(seed, inputs, outputs, images=3, side=4, branches=2, targets=2, mixed=True):
    """x [C, N, H, W], the weights that are differentiated, and the gates; every value at random."""
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return np.float32(generator.standard_normal(shape))

    # The second branch, where there is one, is a 1x1 kernel in its frame.
    frame = np.ones((branches, 1, 3, 3, 1, 1), np.float32)
    frame[1:] = np.pad([[1.0]], 1)[None, None, :, :, None, None]
    kernels = normal(branches, targets, 3, 3, inputs, outputs) * frame
    weights = (kernels, normal(branches, targets, outputs), normal(branches, targets, outputs))
    gates = normal(branches, targets)
    gates[0, 0] = 0.0
    extra = (normal(targets), normal(len(POOLS), targets)) if mixed else (None, None)
    return normal(inputs, images, side, side), weights, (gates, *extra)


def assert_close(computed, expected):
    """Each array, to a share of its largest entry."""
    for one, other in zip(jax.tree.leaves(computed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5 * (np.abs(other).max() + 1))


# inputs, outputs, stride, relu, with skip and pool, branches, targets
SHAPES = {
    "one channel": (1, 1, 1, True, True, 2, 3),
    "three channels": (3, 3, 1, True, True, 2, 2),
    "four channels, past the sums of planes": (4, 4, 1, True, True, 2, 1),
    "stem": (3, 2, 1, False, False, 1, 1),
    "halving": (2, 4, 2, True, False, 1, 1),
    "halving one channel": (1, 2, 2, True, False, 1, 1),
}


@pytest.mark.parametrize("statistics", ["train", "frozen"])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_equal_the_plain_form(shape, statistics):
    inputs, outputs, stride, relu, mixed, branches, targets = SHAPES[shape]
    x, weights, gates = draw(0, inputs, outputs, branches=branches, targets=targets, mixed=mixed)
    generator = np.random.default_rng(1)
    size = 4 // stride
    cotangents = tuple(
        np.float32(generator.standard_normal((5, outputs, 3, size, size))) for _ in range(targets)
    )

    def outputs_and_gradients(function):
        def evaluate(x, weights, gates, ds):
            ys, pullback = jax.vjp(
                lambda x, weights: function(x, *weights, *gates, stride, relu, statistics, POOLS), x, weights
            )
            # All cotangents side by side, and the first of them alone; the plain form is linear in them.
            alone = pullback(tuple(d[0] for d in ds)) if function is mixed_edges else None
            return ys, jax.vmap(pullback)(ds), alone

        return jax.device_get(jax.jit(evaluate)(x, weights, gates, cotangents))

    ys, several, alone = outputs_and_gradients(mixed_edges)
    expected_ys, expected, _ = outputs_and_gradients(plain)
    first = jax.tree.map(lambda leaf: leaf[0], expected)
    assert_close((ys, several, alone), (expected_ys, expected, first))


@pytest.mark.parametrize("shape", ["three channels", "halving", "stem"])
def test_frozen_statistics_under_a_map_over_images(shape):
    """Image by image with the statistics of all: what one batch gives, and each image's own gradient."""
    inputs, outputs, stride, relu, mixed, branches, targets = SHAPES[shape]
    x, weights, gates = draw(2, inputs, outputs, images=4, branches=branches, targets=targets, mixed=mixed)
    size = 4 // stride
    d = np.float32(np.random.default_rng(3).standard_normal((outputs, 4, size, size)))
    ds = (d,) * targets

    @jax.jit
    def mapped(x, weights, ds):
        def of_image(image, ds):
            ys, pullback = jax.vjp(
                lambda x, weights: mixed_edges(x, *weights, *gates, stride, relu, "frozen", POOLS),
                image[:, None],
                weights,
            )
            dx, dweights = pullback(tuple(d[:, None] for d in ds))
            return tuple(y[:, 0] for y in ys), dx[:, 0], dweights

        return jax.vmap(of_image, in_axes=1, axis_name="images")(x, ds)

    @jax.jit
    def whole(x, weights, ds):
        ys, pullback = jax.vjp(
            lambda x, weights: plain(x, *weights, *gates, stride, relu, "frozen", POOLS), x, weights
        )
        one_image_each = tuple(jnp.eye(4)[:, None, :, None, None] * d for d in ds)
        return ys, pullback(ds)[0], jax.vmap(lambda ds: pullback(ds)[1])(one_image_each)

    ys, dx, dweights = jax.device_get(mapped(x, weights, ds))
    ys, dx = jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, 1), (ys, dx))
    assert_close((ys, dx, dweights), whole(x, weights, ds))


@pytest.mark.parametrize("statistics", ["train", "frozen"])
def test_an_outer_map_over_gates(statistics):
    """Architectures side by side, within each of them cotangents (train) or images (frozen)."""
    x, weights, gates = draw(4, 2, 2)
    several = jax.tree.map(lambda array: np.stack([array, 2 * array, array - 1]), gates)
    d = jnp.asarray(np.random.default_rng(5).standard_normal((2, *x.shape)), jnp.float32)

    def gradients(gates):
        if statistics == "train":
            pullback = jax.vjp(
                lambda x, weights: mixed_edges(x, *weights, *gates, 1, True, "train", POOLS), x, weights
            )[1]
            return jax.vmap(pullback)((d, d))

        def of_image(image, d):
            def edges(x, weights):
                return mixed_edges(x, *weights, *gates, 1, True, "frozen", POOLS)

            return jax.vjp(edges, image[:, None], weights)[1]((d[:, None], d[:, None]))

        return jax.vmap(of_image, in_axes=1, axis_name="images")(x, d[0])

    side_by_side = jax.jit(jax.vmap(gradients))(several)
    one_by_one = jax.jit(lambda several: jax.lax.map(gradients, several))(several)
    assert_close(side_by_side, one_by_one)
