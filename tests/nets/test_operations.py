import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas.nets import operations
from jnas.nets.modules import Build

LAYOUTS = ("NHWC", "CNHW")


def images(seed: int, height: int, width: int, channels: int = 2, count: int = 3) -> np.ndarray:
    """float32[N, H, W, C]."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, height, width, channels)).astype(np.float32)


def to(layout: str, x: np.ndarray) -> jax.Array:
    return jnp.asarray(x.transpose(["NHWC".index(letter) for letter in layout]))


def back(layout: str, x: jax.Array) -> np.ndarray:
    return np.asarray(x).transpose([layout.index(letter) for letter in "NHWC"])


def convolved(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """The convolution, one output position at a time."""
    half = len(kernel) // 2
    padded = np.pad(x.astype(np.float64), [(0, 0), (half, half), (half, half), (0, 0)])
    _, height, width, _ = x.shape
    size = len(kernel)
    rows = [
        [
            np.einsum("nijc,ijco->no", padded[:, h : h + size, w : w + size], kernel)
            for w in range(0, width, stride)
        ]
        for h in range(0, height, stride)
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_convolution(layout, size, stride):
    x, kernel = images(0, 4, 6), images(1, size, 2, 3, size)
    expected = convolved(x, kernel, stride)
    found = operations.convolution(to(layout, x), jnp.asarray(kernel), layout, stride)
    np.testing.assert_allclose(back(layout, found), expected, atol=1e-5)


LOOPS = [(1, 1, 4, 6), (1, 2, 5, 3), (3, 1, 4, 6), (3, 2, 4, 6), (3, 2, 5, 3)]


def same_derivatives(convolve, plain, x, kernel):
    """First and second derivatives of two convolutions agree."""

    def bend(tree):
        """A function that makes what stands inside it matter."""
        return sum(jnp.sum(jnp.sin(0.3 * leaf + 0.1) ** 2) for leaf in jax.tree.leaves(tree))

    def derivatives(convolve):
        first = jax.grad(lambda x, kernel: bend(convolve(x, kernel)), (0, 1))
        second = jax.grad(lambda x, kernel: bend(first(x, kernel)), (0, 1))
        return jax.jit(lambda x, kernel: (first(x, kernel), second(x, kernel)))(x, kernel)

    for one, other in zip(
        jax.tree.leaves(derivatives(convolve)), jax.tree.leaves(derivatives(plain)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(other).max() + 1))


@pytest.mark.parametrize(("size", "stride", "height", "width"), LOOPS)
def test_the_convolution_for_loops(size, stride, height, width):
    """Values, and derivatives of first and second order, those of the plain form."""
    x, kernel = jnp.asarray(images(0, height, width)), jnp.asarray(images(1, size, 2, 3, size))
    found = operations.convolution_in_loops(x, kernel, stride)
    np.testing.assert_allclose(found, convolved(np.asarray(x), np.asarray(kernel), stride), atol=1e-5)

    def plain(x, kernel):
        return operations.convolution(x, kernel, "NHWC", stride)

    same_derivatives(lambda x, kernel: operations.convolution_in_loops(x, kernel, stride), plain, x, kernel)


@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2)])
def test_depthwise_convolution_by_shifts(size, stride, dilation):
    """Values and derivatives of first and second order of a convolution by groups; the sum differentiates forwards."""
    x, kernel = jnp.asarray(images(0, 5, 6)), jnp.asarray(images(1, size, 1, 2, size))

    def groups(x, kernel):
        return operations.convolution(x, kernel, "NHWC", stride, dilation, groups=2)

    def by_shifts(x, kernel):
        return operations.depthwise_by_shifts(x, kernel, stride, dilation)

    np.testing.assert_allclose(by_shifts(x, kernel), groups(x, kernel), atol=1e-5)
    same_derivatives(by_shifts, groups, x, kernel)

    def forwards(x, kernel):
        return Build(loops=True, forwards=True).depthwise_convolution(x, kernel, stride, dilation)

    primals, tangents = (x, kernel), (x + 1, kernel - 1)
    for tangent, expected in zip(
        jax.jvp(forwards, primals, tangents), jax.jvp(groups, primals, tangents), strict=True
    ):
        np.testing.assert_allclose(tangent, expected, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_convolution_for_loops_where_it_is_meant_to_run(stride):
    """Inside a loop, a conditional and a map over kernels: the derivatives of one after the other, outside."""
    x = jnp.asarray(images(0, 4, 4))
    kernels = jnp.stack([jnp.asarray(images(seed, 3, 2, 3, 3)) for seed in range(3)])

    def loss(x, kernel, convolve=operations.convolution_in_loops):
        return jnp.sum(jnp.sin(convolve(x, kernel, stride)))

    def looped(kernel):
        def branch(kernel):
            return jax.grad(loss, (0, 1))(x, kernel)

        return jax.lax.cond(jnp.sum(kernel) > 1e6, lambda kernel: (x, kernel), branch, kernel)

    def plain(x, kernel, stride):
        return operations.convolution(x, kernel, "NHWC", stride)

    expected = [jax.grad(lambda x, kernel: loss(x, kernel, plain), (0, 1))(x, kernel) for kernel in kernels]
    for found in (jax.jit(lambda k: jax.lax.map(looped, k))(kernels), jax.jit(jax.vmap(looped))(kernels)):
        for index in range(3):
            for one, other in zip(found, expected[index], strict=True):
                np.testing.assert_allclose(one[index], other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 3), (1, 5), (2, 1)])
def test_average_pooling_leaves_the_padding_out(layout, height, width):
    x = images(2, height, width)
    expected = np.stack([
        np.stack([x[:, max(h - 1, 0) : h + 2, max(w - 1, 0) : w + 2].mean((1, 2)) for w in range(width)], 1)
        for h in range(height)
    ], 1)  # fmt: skip
    found = operations.average_pool(to(layout, x), layout)
    np.testing.assert_allclose(back(layout, found), expected, atol=1e-6)


def test_the_adjoint_of_average_pooling():
    x, d = (to("CNHW", images(seed, 4, 6)) for seed in (3, 4))
    _, pullback = jax.vjp(lambda x: operations.average_pool(x, "CNHW"), x)
    np.testing.assert_allclose(operations.average_pool_adjoint(d), pullback(d)[0], atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_halving_an_image(layout):
    x = images(5, 4, 6)
    expected = x.reshape(3, 2, 2, 3, 2, 2).mean((2, 4))
    np.testing.assert_allclose(
        back(layout, operations.average_pool_2x2(to(layout, x), layout)), expected, atol=1e-6
    )
    odd = operations.average_pool_2x2(to(layout, images(5, 5, 7)), layout)
    assert back(layout, odd).shape == (3, 2, 3, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_normalisation(layout):
    x = 3 + 2 * images(6, 4, 6)
    mean, variance = operations.moments(to(layout, x), layout)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-5)
    scale, offset = jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0])
    found = back(layout, operations.normalise(to(layout, x), mean, variance, scale, offset, layout))
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * scale + offset
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_moments_over_mapped_images(layout):
    x = images(7, 4, 4, count=6)

    def of_image(image):
        return operations.moments(jnp.expand_dims(image, layout.index("N")), layout, "images")

    mapped = to(layout, x)
    means, variances = jax.vmap(of_image, in_axes=layout.index("N"), axis_name="images")(mapped)
    mean, variance = operations.moments(mapped, layout)
    np.testing.assert_allclose(means, np.tile(mean, (6, 1)), atol=1e-6)
    np.testing.assert_allclose(variances, np.tile(variance, (6, 1)), rtol=1e-5)
