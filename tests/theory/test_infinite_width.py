"""Kernels of infinite width against neural-tangents' own sum of branches, and against wide networks."""

import itertools

import jax
import numpy as np
import pytest
from neural_tangents import stax

from jnas import spaces
from jnas.theory import infinite_width

NONE, SKIP, POINT, CONV, POOL = (
    spaces.get("nasbench201").operations.index(name)
    for name in ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
)
IMAGES = np.random.default_rng(0).normal(size=(4, 4, 6, 2)).astype(np.float32)
# Edges: 0>1, 0>2, 1>2, 0>3, 1>3, 2>3.
MEETING = (SKIP, POOL, CONV, SKIP, POOL, SKIP)


# They are: a convolution begins each branch.
@pytest.mark.filterwarnings("ignore:`FanIn` layers assume independent inputs")
def test_a_cell_whose_branches_are_independent_is_that_of_stax():
    """0>3 by a 3x3 convolution and 0>1>3 by pooling of another: neural-tangents may add these up."""
    relu_conv = stax.serial(stax.Relu(), stax.Conv(1, (3, 3), padding="SAME", W_std=infinite_width.WEIGHT))
    pool = stax.AvgPool((3, 3), padding="SAME", normalize_edges=True)
    *_, kernel_fn = stax.serial(
        stax.Conv(1, (3, 3), padding="SAME", W_std=1.0),
        stax.FanOut(2),
        stax.parallel(relu_conv, stax.serial(relu_conv, pool)),
        stax.FanInSum(),
        stax.Relu(),
        stax.GlobalAvgPool(),
        stax.Dense(1, W_std=infinite_width.WEIGHT),
    )
    expected = kernel_fn(IMAGES, None, ("nngp", "ntk"))
    nngp, ntk = infinite_width.kernels((CONV, NONE, NONE, CONV, POOL, NONE), IMAGES)
    np.testing.assert_allclose(nngp, expected.nngp, rtol=1e-4)
    np.testing.assert_allclose(ntk, expected.ntk, rtol=1e-4)


def test_paths_that_meet_are_not_independent():
    """Skips alone give 2 x where 0>3 and 0>1>3 meet: kernels four times those of x, not twice."""
    one = infinite_width.kernels((NONE, NONE, NONE, SKIP, NONE, NONE), IMAGES)
    two = infinite_width.kernels((SKIP, NONE, NONE, SKIP, SKIP, NONE), IMAGES)
    for single, double in zip(one, two, strict=True):
        np.testing.assert_allclose(double, 4 * single, rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_wide_networks_come_close(depth):
    """Mean over draws of 96 channels; a wrong sum of branches would be off by a third or more."""
    nngp, ntk = infinite_width.kernels(MEETING, IMAGES, depth)
    init, apply, features = infinite_width.network(MEETING, 96, depth=depth)

    @jax.jit
    def drawn(key):
        params = init(key, IMAGES.shape)
        rows = jax.vmap(lambda x: jax.grad(lambda p: apply(p, x[None])[0, 0])(params))(IMAGES)
        jacobian = jax.numpy.concatenate(
            [leaf.reshape(len(IMAGES), -1) for leaf in jax.tree.leaves(rows)], axis=1
        )
        read = features(params, IMAGES)
        return infinite_width.WEIGHT**2 * read @ read.T / 96, jacobian @ jacobian.T

    found = [drawn(key) for key in jax.random.split(jax.random.key(1), 24)]
    for number, expected in enumerate((nngp, ntk)):
        mean = np.mean([np.asarray(pair[number]) for pair in found], axis=0)
        assert np.linalg.norm(mean - expected) < 0.12 * np.linalg.norm(expected)


def test_pooling_is_the_matrix():
    pooled = stax.AvgPool((3, 3), padding="SAME", normalize_edges=True)[1]((), IMAGES)
    matrix = infinite_width.pooling_matrix(*IMAGES.shape[1:3])
    expected = np.einsum("st,ntc->nsc", matrix, IMAGES.reshape(4, 24, 2)).reshape(IMAGES.shape)
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_cells_that_pass_nothing_on():
    for cell in itertools.islice(itertools.product((NONE, SKIP), repeat=6), 64):
        reached = any(all(cell[edge] == SKIP for edge in path) for path in ((3,), (0, 4), (1, 5), (0, 2, 5)))
        assert infinite_width.is_connected(cell) == reached
    nngp, ntk = infinite_width.kernels((SKIP, NONE, NONE, NONE, NONE, SKIP), IMAGES)
    assert not nngp.any() and not ntk.any()
