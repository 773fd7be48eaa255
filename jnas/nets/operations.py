"""The candidate operations of cell spaces as functions on arrays, in either layout.

`layout` is `"NHWC"` (wide networks: what convolution libraries prefer) or `"CNHW"` (narrow networks:
channel-first planes, on which sums of shifted planes fuse). Convolutions carry no bias. Average pooling
leaves the padding out of its count, as NAS-Bench-201 does (Dong and Yang, 2020,
https://arxiv.org/abs/2001.00326).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# PyTorch's default, and NAS-Bench-201's: the published kernels depend on it.
EPSILON = 1e-5


def per_channel(values: Array, layout: str) -> Array:
    """values [C] shaped to broadcast over images in `layout`; also [..., C] over planes [..., C, N, H, W]."""
    return values if layout == "NHWC" else values[..., None, None, None]


def convolution(
    x: Array, kernel: Array, layout: str, stride: int = 1, dilation: int = 1, groups: int = 1
) -> Array:
    """Convolution with zero padding of half the kernel; kernel [k, k, C / groups, O], k odd.

    dilation: distance between the pixels that neighbours in the kernel act on.
    groups: of channels, each convolved alone; C makes the convolution depthwise.
    """
    if kernel.shape[0] == 1 and groups == 1:
        # A matrix product, whose derivatives copy nothing.
        return pointwise_convolution(every(x, stride, layout), kernel, layout)
    half = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2, rhs_dilation=(dilation, dilation),
        dimension_numbers=(layout, "HWIO", layout), feature_group_count=groups,
    )  # fmt: skip


def sum_of_shifts(x: Array, kernel: Array, stride: int = 1, dilation: int = 1) -> Array:
    """The depthwise convolution of x [N, H, W, C] as a sum of shifted images; kernel [k, k, 1, C], k odd.

    On a CPU XLA has no fast form of a convolution by groups: of 16 channels, forwards and backwards, ten times slower.
    """
    padded, (height, width) = _padded(x, kernel, dilation), x.shape[1:3]
    parts = []
    for row, column in np.ndindex(kernel.shape[:2]):
        top, left = dilation * row, dilation * column
        part = padded[:, top : top + height : stride, left : left + width : stride]
        parts.append(part * kernel[row, column, 0])
    return sum(parts[1:], parts[0])


def _padded(x: Array, kernel: Array, dilation: int) -> Array:
    half = dilation * (kernel.shape[0] // 2)
    return jnp.pad(x, [(0, 0), (half, half), (half, half), (0, 0)])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_by_shifts(x: Array, kernel: Array, stride: int = 1, dilation: int = 1) -> Array:
    """`sum_of_shifts`, whose derivatives are such sums too; differentiates backwards only, any number of times."""
    return sum_of_shifts(x, kernel, stride, dilation)


def _depthwise_forward(x, kernel, stride, dilation):
    # Not the plain sum: a second derivative runs through this line.
    return depthwise_by_shifts(x, kernel, stride, dilation), (x, kernel)


def _depthwise_backward(stride, dilation, residuals, d):
    x, kernel = residuals
    d = spread(d, stride, (1, 2), x.shape[1:3]) if stride > 1 else d
    padded = _padded(x, kernel, dilation)

    def of_shift(shift: Array) -> Array:
        return jnp.sum(jax.lax.dynamic_slice(padded, (0, *shift, 0), d.shape) * d, (0, 1, 2))

    # A loop: side by side, XLA would compute anew for each shift whatever led to the image.
    shifts = dilation * np.argwhere(np.ones(kernel.shape[:2]))
    dkernel = jax.lax.map(of_shift, jnp.asarray(shifts, jnp.int32)).reshape(kernel.shape)
    return depthwise_by_shifts(d, kernel[::-1, ::-1], 1, dilation), dkernel


depthwise_by_shifts.defvjp(_depthwise_forward, _depthwise_backward)


def pointwise_convolution(x: Array, kernel: Array, layout: str) -> Array:
    """1x1 convolution; kernel [1, 1, C, O]."""
    if layout == "CNHW":
        return jnp.einsum("cnhw,co->onhw", x, kernel[0, 0])
    # One product over all pixels: of more axes XLA makes slower ones, its derivative by the kernel above all.
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)


def spread(
    x: Array,
    stride: int,
    axes: tuple[int, int],
    image: tuple[int, int] | None = None,
    border: int = 0,
    fill: int = 0,
) -> Array:
    """Put `stride - 1` times `fill` between neighbours along two axes, the adjoint of taking every `stride`-th.

    image: the sides that the positions were taken from, to be reached again; border: further `fill` around them.
    """
    padding = [(0, 0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        beyond = image[place] - stride * (x.shape[axis] - 1) - 1 if image else 0
        padding[axis] = (border, border + beyond, stride - 1)
    return jax.lax.pad(x, jnp.asarray(fill, x.dtype), padding)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution_in_loops(x: Array, kernel: Array, stride: int = 1) -> Array:
    """`convolution` of x [N, H, W, C] whose derivatives stay fast inside loops and conditionals.

    On a CPU, XLA hands a convolution to its fast library only in the plain form. JAX's own derivatives are of
    other forms, which XLA rewrites at the top level of a program but not inside `while` and `cond`, where they
    run a hundred times slower. Here both derivatives are written in the plain form, by the flipped kernel and
    by images and channels exchanged. Differentiates backwards only, any number of times.
    """
    return convolution(x, kernel, "NHWC", stride)


def _convolution_forward(x, kernel, stride):
    # Not the plain form: a second derivative runs through this line.
    return convolution_in_loops(x, kernel, stride), (x, kernel)


def _convolution_backward(stride, kept, d):
    x, kernel = kept
    d = spread(d, stride, (1, 2), x.shape[1:3]) if stride > 1 else d
    dx = convolution_in_loops(d, jnp.swapaxes(kernel[::-1, ::-1], 2, 3))
    half = kernel.shape[0] // 2
    dkernel = _correlation(jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(d, (1, 2, 0, 3)), half)
    return dx, jnp.transpose(dkernel, (1, 2, 0, 3))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlation(x: Array, kernel: Array, half: int) -> Array:
    """Convolution of x [C, H, W, N] with a kernel as large as the image, [H, W, N, O], padded by `half`."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _correlation_forward(x, kernel, half):
    return _correlation(x, kernel, half), (x, kernel)


def _correlation_backward(half, kept, d):
    # x and kernel are images with axes exchanged, d [C, k, k, O] a small kernel: ordinary convolutions again.
    x, kernel = kept
    small = jnp.transpose(d, (1, 2, 0, 3))
    images = jnp.transpose(x, (3, 1, 2, 0))
    dkernel = jnp.transpose(convolution_in_loops(images, small), (1, 2, 0, 3))
    cotangents = jnp.transpose(kernel, (2, 0, 1, 3))
    flipped = jnp.swapaxes(small[::-1, ::-1], 2, 3)
    dx = jnp.transpose(convolution_in_loops(cotangents, flipped), (3, 1, 2, 0))
    return dx, dkernel


convolution_in_loops.defvjp(_convolution_forward, _convolution_backward)
_correlation.defvjp(_correlation_forward, _correlation_backward)


def normalise(x: Array, mean: Array, variance: Array, scale: Array, offset: Array, layout: str) -> Array:
    """`scale (x - mean) / sqrt(variance + 1e-5) + offset` for each channel."""
    slope = scale * jax.lax.rsqrt(variance + EPSILON)
    y = per_channel(slope, layout) * (x - per_channel(mean, layout)) + per_channel(offset, layout)
    return y.astype(x.dtype)


def moments(x: Array, layout: str, axis_name: str | None = None) -> tuple[Array, Array]:
    """Mean and biased variance of each channel over a batch, and over the `vmap` named `axis_name`.

    Of planes [..., C, N, H, W] those of each batch, [..., C].
    """
    axes = (0, 1, 2) if layout == "NHWC" else (-3, -2, -1)
    # In half precision a mean over a batch would be wrong in its second digit.
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(x, axes)
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    variance = jnp.mean((x - per_channel(mean, layout)) ** 2, axes)
    if axis_name is not None:
        variance = jax.lax.pmean(variance, axis_name)
    return mean, variance


def _box_sum(x: Array, size: int, height: int, width: int) -> Array:
    """Sum over the size x size neighbourhood in the axes `height` and `width`, zero outside; size odd."""
    half = size // 2
    padded = jnp.pad(x, [(half, half) if axis in (height, width) else (0, 0) for axis in range(x.ndim)])
    total = jnp.zeros_like(x)
    for row, column in np.ndindex(size, size):
        part = jax.lax.slice_in_dim(padded, row, row + x.shape[height], axis=height)
        total = total + jax.lax.slice_in_dim(part, column, column + x.shape[width], axis=width)
    return total


def inverse_counts(height: int, width: int, size: int = 3) -> np.ndarray:
    """1 / number of positions of the size x size neighbourhood that lie inside the image: float64[H, W].

    A constant made outside the trace: XLA would spend seconds folding a pooled array of ones.
    """

    def counts(side: int) -> np.ndarray:
        index, half = np.arange(side), size // 2
        return np.minimum(index + half, side - 1) - np.maximum(index - half, 0) + 1.0

    return 1.0 / np.outer(counts(height), counts(width))


def average_pool(x: Array, layout: str, size: int = 3) -> Array:
    """Mean over the size x size neighbourhood, the padding not counted; stride 1, size odd."""
    height, width = layout.index("H"), layout.index("W")
    inverse = jnp.asarray(inverse_counts(x.shape[height], x.shape[width], size), x.dtype)
    if layout == "CNHW":
        return _box_sum(x, size, height, width) * inverse
    # A node that nothing reaches is a constant, whose window sum XLA would take seconds to fold.
    x = jax.lax.optimization_barrier(x)
    half = size // 2
    for axis in (height, width):
        # One axis after the other: a third of the sums, and of XLA's time.
        window = tuple(size if other == axis else 1 for other in range(x.ndim))
        border = [(half, half) if other == axis else (0, 0) for other in range(x.ndim)]
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1,) * x.ndim, border)
    return x * inverse[None, :, :, None]


def average_pool_adjoint(d: Array, size: int = 3) -> Array:
    """The adjoint of `average_pool` on planes [..., H, W]."""
    height, width = d.shape[-2:]
    weighted = d * jnp.asarray(inverse_counts(height, width, size), d.dtype)
    return _box_sum(weighted, size, d.ndim - 2, d.ndim - 1)


def max_pool_3x3(x: Array, layout: str) -> Array:
    """Largest of the 3x3 neighbourhood within the image; stride 1."""
    for axis in (layout.index("H"), layout.index("W")):
        border = [(1, 1) if other == axis else (0, 0) for other in range(x.ndim)]
        padded = jnp.pad(x, border, constant_values=-jnp.inf)
        before = jax.lax.slice_in_dim(padded, 0, x.shape[axis], axis=axis)
        after = jax.lax.slice_in_dim(padded, 2, x.shape[axis] + 2, axis=axis)
        x = jnp.maximum(jnp.maximum(before, x), after)
    return x


def every(x: Array, stride: int, layout: str, first: int = 0) -> Array:
    """Every `stride`-th row and column of x, from `first` on; as many as from 0, zero beyond the last."""
    if stride == 1 and first == 0:
        return x
    for axis in (layout.index("H"), layout.index("W")):
        if first:
            border = [(0, first) if other == axis else (0, 0) for other in range(x.ndim)]
            x = jax.lax.slice_in_dim(jnp.pad(x, border), first, None, axis=axis)
        x = jax.lax.slice_in_dim(x, 0, None, stride, axis=axis)
    return x


def average_pool_2x2(x: Array, layout: str) -> Array:
    """Mean over disjoint 2x2 squares; an odd last row or column is left out."""
    for axis in (layout.index("H"), layout.index("W")):
        even = x.shape[axis] // 2 * 2
        first = jax.lax.slice_in_dim(x, 0, even, stride=2, axis=axis)
        second = jax.lax.slice_in_dim(x, 1, even, stride=2, axis=axis)
        x = 0.5 * (first + second)
    return x
