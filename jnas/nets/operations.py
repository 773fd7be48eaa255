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
LAYOUTS = ("NHWC", "CNHW")


def channel_axis(layout: str) -> int:
    return layout.index("C")


def reduce_axes(layout: str) -> tuple[int, ...]:
    """The axes that batch statistics run over: all but the channel's."""
    return tuple(axis for axis in range(4) if axis != channel_axis(layout))


def per_channel(values: Array, layout: str) -> Array:
    """values [C] shaped to broadcast over images in `layout`."""
    return values if layout == "NHWC" else values[:, None, None, None]


def convolution(x: Array, kernel: Array, layout: str, stride: int = 1, dilation: int = 1) -> Array:
    """Convolution with zero padding of half the kernel; kernel [k, k, C, O], k odd.

    dilation: distance between the pixels that neighbours in the kernel act on.
    """
    half = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(half, half)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=(layout, "HWIO", layout),
    )


def depthwise_convolution(x: Array, kernel: Array, stride: int = 1, dilation: int = 1) -> Array:
    """Convolution of each channel of x [N, H, W, C] by a kernel of its own; kernel [k, k, 1, C], k odd."""
    half = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(half, half)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def depthwise_convolution_in_loops(x: Array, kernel: Array, stride: int = 1, dilation: int = 1) -> Array:
    """`depthwise_convolution` as a sum of shifted images, whose derivatives are of the same form.

    Inside loops and conditionals XLA has no fast form of a convolution by groups on a CPU.
    """
    half = dilation * (kernel.shape[0] // 2)
    padded = jnp.pad(x, [(0, 0), (half, half), (half, half), (0, 0)])
    parts = []
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            top, left = dilation * row, dilation * column
            part = padded[:, top : top + x.shape[1] : stride, left : left + x.shape[2] : stride]
            parts.append(part * kernel[row, column, 0])
    return sum(parts[1:], parts[0])


def pointwise_convolution(x: Array, kernel: Array, layout: str) -> Array:
    """1x1 convolution; kernel [1, 1, C, O]."""
    form = "cnhw,co->onhw" if layout == "CNHW" else "nhwc,co->nhwo"
    return jnp.einsum(form, x, kernel[0, 0])


def cross_convolution(x: Array, wide: Array, tall: Array, stride: int = 1) -> Array:
    """x [N, H, W, C] by a kernel [1, k, C, C'] that strides along rows, then by [k, 1, C', O] along columns."""
    half = wide.shape[1] // 2
    form = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, wide, (1, stride), [(0, 0), (half, half)], dimension_numbers=form)
    return jax.lax.conv_general_dilated(x, tall, (stride, 1), [(half, half), (0, 0)], dimension_numbers=form)


def spread(kernel: Array, dilation: int) -> Array:
    """The kernel [k, k, C, O] with zeros between its entries: undilated, it acts as `kernel` does dilated."""
    between = (0, 0, dilation - 1)
    return jax.lax.pad(kernel, jnp.zeros((), kernel.dtype), [between, between, (0, 0, 0), (0, 0, 0)])


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
    if stride > 1:
        # The adjoint of taking every second position puts zeros between.
        spread = [
            (0, size - stride * (less - 1) - 1, stride - 1)
            for size, less in zip(x.shape[1:3], d.shape[1:3], strict=True)
        ]
        d = jax.lax.pad(d, jnp.zeros((), d.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
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
    """Mean and biased variance of each channel over a batch, and over the `vmap` named `axis_name`."""
    axes = reduce_axes(layout)
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
    for row in range(size):
        for column in range(size):
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
    inverse = inverse_counts(x.shape[height], x.shape[width], size)
    inverse = inverse[None, :, :, None] if layout == "NHWC" else inverse
    return _box_sum(x, size, height, width) * jnp.asarray(inverse, x.dtype)


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
    height, width = layout.index("H"), layout.index("W")
    for axis in (height, width):
        even = x.shape[axis] // 2 * 2
        first = jax.lax.slice_in_dim(x, 0, even, stride=2, axis=axis)
        second = jax.lax.slice_in_dim(x, 1, even, stride=2, axis=axis)
        x = 0.5 * (first + second)
    return x
