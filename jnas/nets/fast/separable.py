"""All convolutions that leave one node of a DARTS cell for its targets, on channel-first planes and at once.

Four convolutions lead from a node with value x to each target t: separable 3x3 and 5x5, dilated 3x3 and 5x5
(`KINDS`). Each is, on planes [C, N, H, W],

    u = first * relu(x)  (depthwise, strided)     z = normalise(pointwise u)

and the separable ones go on with v = second * relu(z) (depthwise), w = normalise(pointwise v). The gate-weighted
sum of the w of separable and the z of dilated kinds is what target t gets.

An exact neural tangent kernel differentiates this N times with the same activations, so the derivative is
written by hand. What does not depend on the cotangent is kept from the forward pass: the shifted planes that
the gradients of kernels are matrix products with, and the normalised planes. The adjoint of a depthwise
convolution is a sum of shifted planes, target after target: XLA fuses such a sum into one loop over memory, but
left to itself it also fuses what comes before into it, and computes that again for every shift. Loops keep the
stages apart:

    1. from the targets back through the second normalisation and pointwise convolution, into padded planes
    2. through the second depthwise convolution, the first normalisation and pointwise convolution
    3. through the first depthwise convolutions, summed over targets and kinds

`jnas.nets.candidates` holds the plain form of each operation, which tests hold equal. Differentiates backwards only,
and not with respect to the gates.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.nets import operations, stacks

# (side, dilation) of the first depthwise convolution of each kind; the first two kinds have a second one.
KINDS = ((3, 1), (5, 1), (3, 2), (5, 2))
SECONDS = 2


def _reach(side: int, dilation: int = 1) -> int:
    return dilation * (side // 2)


def _taps(side: int, dilation: int = 1) -> list[tuple[int, int]]:
    half = side // 2
    return [
        (dilation * (row - half), dilation * (column - half)) for row in range(side) for column in range(side)
    ]


# All that the first convolutions read, a row and a column away from where they write.
SHIFTS = sorted({tap for kind in KINDS for tap in _taps(*kind)})
REACH = max(row for row, _ in SHIFTS)
PLACES = [np.array([SHIFTS.index(tap) for tap in _taps(*kind)]) for kind in KINDS]


class Weights(NamedTuple):
    """The four kinds on the edges from one node to its T targets.

    first: four arrays [T, k, k, C]; pointwise_0: [T, 4, C, C]; scale_0, offset_0: [T, 4, C];
    second: two arrays [T, k, k, C]; pointwise_1: [T, 2, C, C]; scale_1, offset_1: [T, 2, C].
    """

    first: tuple[Array, ...]
    pointwise_0: Array
    scale_0: Array
    offset_0: Array
    second: tuple[Array, ...]
    pointwise_1: Array
    scale_1: Array
    offset_1: Array


def _at(padded: Array, shift: tuple[int, int], reach: int, image: tuple[int, int], stride: int = 1) -> Array:
    top, left = shift[0] + reach, shift[1] + reach
    return padded[..., top : top + image[0] : stride, left : left + image[1] : stride]


def _shifted(x: Array, shifts: list[tuple[int, int]], stride: int = 1) -> Array:
    """x [..., N, H, W] by each shift, zero outside: [..., shifts, N, H / stride, W / stride]."""
    reach, (height, width) = max(row for row, _ in shifts), x.shape[-2:]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach)] * 2)
    return jnp.stack([_at(padded, shift, reach, (height, width), stride) for shift in shifts], axis=-4)


def _pointwise(x: Array, kernels: Array) -> Array:
    """1x1 convolutions: x [..., C, N, H, W] by kernels [..., C, O] to [..., O, N, H, W]."""
    outputs = [
        sum(kernels[..., c, o, None, None, None] * x[..., c, :, :, :] for c in range(kernels.shape[-2]))
        for o in range(kernels.shape[-1])
    ]
    return jnp.stack(outputs, axis=-4)


def _normalise(x: Array, statistics: str, axis_name: str | None) -> tuple[Array, Array]:
    """x [..., C, N, H, W] of mean 0 and variance 1 over images, and 1 / sd [..., C]; x and 1 for `"none"`."""
    if statistics == "none":
        return x, jnp.ones(x.shape[:-3], x.dtype)
    seen = jax.lax.stop_gradient(x) if statistics == "frozen" else x
    mean, variance = operations.moments(seen, "CNHW", axis_name)
    slope = jax.lax.rsqrt(variance + operations.EPSILON)
    return (x - mean[..., None, None, None]) * slope[..., None, None, None], slope


def _scaled(z: Array, scale: Array, offset: Array, statistics: str) -> Array:
    """Normalised planes with learned scale and offset [..., C], which networks without normalisation lack."""
    if statistics == "none":
        return z
    return z * scale[..., None, None, None] + offset[..., None, None, None]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def convolutions(
    x: Array,
    weights: Weights,
    gates: Array,
    count: Array,
    stride: int = 1,
    statistics: str = "train",
    axis_name: str | None = None,
) -> tuple[Array, Array]:
    """The gate-weighted convolutions from one node to its targets.

    Args:
      x: float[C, N, H, W].
      weights: of the edges.
      gates: float[T, 4].
      count: int32[], how many of the T targets there are; the gates of the others are zero.
      stride: of the first convolutions.
      statistics: as in `jnas.nets.modules.Build`: `"train"`, `"frozen"` or `"none"`; axis_name: a `vmap` over
        images that they run over as well.

    Returns:
      float[T, C, N, H / stride, W / stride], and what the two second ReLUs of each edge read,
      float[T, 2, C, N, H / stride, W / stride], which carries no derivative.
    """
    return _forward(x, weights, gates, count, stride, statistics, axis_name)[0]


def _forward(x, weights, gates, count, stride, statistics, axis_name):
    planes = _shifted(jax.nn.relu(x), SHIFTS, stride)
    columns = planes.reshape(*planes.shape[:2], -1)
    u = jnp.stack(
        [
            jnp.einsum("tkc,ckp->tcp", first.reshape(len(first), -1, first.shape[-1]), columns[:, places])
            for first, places in zip(weights.first, PLACES, strict=True)
        ],
        axis=1,
    )
    u = u.reshape(*u.shape[:3], *planes.shape[2:])
    z, slope_0 = _normalise(_pointwise(u, weights.pointwise_0), statistics, axis_name)
    read = _scaled(z, weights.scale_0, weights.offset_0, statistics)
    out = jnp.sum((gates[..., None, None, None, None] * read)[:, SECONDS:], axis=1)
    kept = []
    for kind, second in enumerate(weights.second):
        own = jax.nn.relu(read[:, kind])
        shifted = _shifted(own, _taps(second.shape[1]))
        own_columns = shifted.reshape(*shifted.shape[:3], -1)
        v = jnp.einsum("tkc,tckp->tcp", second.reshape(len(second), -1, second.shape[-1]), own_columns)
        v = v.reshape(own.shape)
        w, slope_1 = _normalise(_pointwise(v, weights.pointwise_1[:, kind]), statistics, axis_name)
        scaled = _scaled(w, weights.scale_1[:, kind], weights.offset_1[:, kind], statistics)
        out = out + gates[:, kind, None, None, None, None] * scaled
        # As the backward pass multiplies by them: a transposed copy for each cotangent would cost more.
        kept.append((jnp.swapaxes(own_columns, -1, -2), v, w, slope_1))
    seconds = read[:, :SECONDS]
    empty = jnp.zeros((0, *x.shape[-2:]))
    columns = jnp.swapaxes(columns, -1, -2)
    residuals = (empty, x > 0, weights, gates, count, columns, u, z, slope_0, seconds > 0, kept)
    return (out, seconds), residuals


def _through_norm(
    d: Array, z: Array, slope: Array, scale: Array, statistics: str
) -> tuple[Array, Array, Array]:
    """Back through normalisation of planes d, z [C, N, H, W]: cotangents of its input, scale and offset [C]."""
    if statistics == "none":
        return d, jnp.zeros_like(scale), jnp.zeros_like(scale)
    doffset, dscale = jnp.sum(d, axis=(-3, -2, -1)), jnp.sum(d * z, axis=(-3, -2, -1))
    if statistics == "train":
        positions = d[0].size
        d = d - (doffset / positions)[:, None, None, None] - z * (dscale / positions)[:, None, None, None]
    return d * (slope * scale)[:, None, None, None], dscale, doffset


def _through_pointwise(d: Array, x: Array, kernel: Array) -> tuple[Array, Array]:
    """Back through a 1x1 convolution: cotangents of its input [C, N, H, W] and of its kernel [C, O]."""
    # Sums of a few channels, not a matrix product, whose operands would be copied.
    dkernel = jnp.sum(x[:, None] * d[None], axis=(-3, -2, -1))
    return _pointwise(d, kernel.T), dkernel


def _correlate(padded: Array, kernel: Array, dilation: int, image: tuple[int, int]) -> Array:
    """The adjoint of a depthwise convolution by kernel [k, k, C], of padded planes [C, N, ., .]."""
    side = kernel.shape[0]
    reach = _reach(side, dilation)
    flat = kernel.reshape(-1, kernel.shape[-1])
    parts = [
        flat[place, :, None, None, None] * _at(padded, (-row, -column), reach, image)
        for place, (row, column) in enumerate(_taps(side, dilation))
    ]
    return sum(parts[1:], parts[0])


def _write(buffer: Array, target: Array, value: Array, reach: int, stride: int = 1) -> Array:
    """value [C, N, h, w] into the middle of buffer [T, C, N, ., .], at `target` and every `stride`-th position."""
    value = operations.spread(value, stride, (-2, -1)) if stride > 1 else value
    start: list[Any] = [target, *[0] * (value.ndim - 2), reach, reach]
    return jax.lax.dynamic_update_slice(buffer, value[None], start)


def _backward(stride, statistics, axis_name, kept, cotangents):
    empty, positive, weights, gates, count, columns, u, z, slope_0, second_positive, seconds = kept
    dys, _ = cotangents
    targets, channels, images, height, width = dys.shape
    small, image = (height, width), empty.shape[-2:]

    def zeros(reach, size):
        return jnp.zeros((targets, channels, images, size[0] + 2 * reach, size[1] + 2 * reach), dys.dtype)

    def put(buffers, target, values):
        return jax.tree.map(
            lambda buffer, value: jax.lax.dynamic_update_index_in_dim(buffer, value, target, 0),
            buffers, values,
        )  # fmt: skip

    def first_stage(target, carry):
        padded, gradients = carry
        new, own = [], []
        for kind, (_, v, w, slope_1) in enumerate(seconds):
            d, dscale, doffset = _through_norm(
                gates[target, kind] * dys[target], w[target], slope_1[target],
                weights.scale_1[target, kind], statistics,
            )  # fmt: skip
            d, dpointwise = _through_pointwise(d, v[target], weights.pointwise_1[target, kind])
            new.append(_write(padded[kind], target, d, _reach(*KINDS[kind])))
            own.append((dpointwise, dscale, doffset))
        return new, put(gradients, target, stacks.stack(own))

    gradients = (weights.pointwise_1, weights.scale_1, weights.offset_1)
    start = [zeros(_reach(*kind), small) for kind in KINDS[:SECONDS]]
    padded_1, (dpointwise_1, dscale_1, doffset_1) = jax.lax.fori_loop(
        0, count, first_stage, (start, jax.tree.map(jnp.zeros_like, gradients))
    )

    def second_stage(target, carry):
        padded, flat, gradients, dseconds = carry
        new, own, new_seconds = [], [], []
        for kind in range(len(KINDS)):
            if kind < SECONDS:
                side, _ = KINDS[kind]
                through = padded_1[kind][target]
                kernel = weights.second[kind][target]
                d = _at(through, (0, 0), _reach(side), small)
                product = jnp.einsum("cp,cpk->kc", d.reshape(channels, -1), seconds[kind][0][target])
                new_seconds.append(put(dseconds[kind], target, product.reshape(kernel.shape)))
                d = _correlate(through, kernel, 1, small)
                d = jnp.where(second_positive[target, kind], d, 0)
            else:
                d = gates[target, kind] * dys[target]
            d, dscale, doffset = _through_norm(
                d, z[target, kind], slope_0[target, kind], weights.scale_0[target, kind], statistics
            )
            d, dpointwise = _through_pointwise(d, u[target, kind], weights.pointwise_0[target, kind])
            flat = jax.lax.dynamic_update_slice(flat, d.reshape(channels, 1, 1, -1), [0, target, kind, 0])
            new.append(_write(padded[kind], target, d, _reach(*KINDS[kind]), stride))
            own.append((dpointwise, dscale, doffset))
        return new, flat, put(gradients, target, stacks.stack(own)), new_seconds

    gradients = (weights.pointwise_0, weights.scale_0, weights.offset_0)
    start = [zeros(_reach(*kind), image) for kind in KINDS]
    flat = jnp.zeros((channels, targets, len(KINDS), columns.shape[1]), dys.dtype)
    padded_0, flat, (dpointwise_0, dscale_0, doffset_0), dseconds = jax.lax.fori_loop(
        0, count, second_stage,
        (start, flat, jax.tree.map(jnp.zeros_like, gradients), [jnp.zeros_like(own) for own in weights.second]),
    )  # fmt: skip

    dx = jnp.zeros((channels, images, *image), dys.dtype)
    for kind, (_, dilation) in enumerate(KINDS):

        def third_stage(target, dx, kind=kind, dilation=dilation):
            return dx + _correlate(padded_0[kind][target], weights.first[kind][target], dilation, image)

        dx = jax.lax.fori_loop(0, count, third_stage, dx)
    products = jnp.einsum("cqp,cpk->cqk", flat.reshape(channels, -1, flat.shape[-1]), columns)
    products = products.reshape(channels, targets, len(KINDS), len(SHIFTS))
    dfirst = tuple(
        jnp.moveaxis(products[:, :, kind, PLACES[kind]], 0, 2).reshape(first.shape)
        for kind, first in enumerate(weights.first)
    )
    dweights = Weights(
        dfirst, dpointwise_0, dscale_0, doffset_0, tuple(dseconds), dpointwise_1, dscale_1, doffset_1
    )
    no_derivative = np.zeros(count.shape, jax.dtypes.float0)
    return jnp.where(positive, dx, 0), dweights, jnp.zeros_like(gates), no_derivative


convolutions.defvjp(_forward, _backward)


def halve(
    x: Array,
    plain: Array,
    shifted: Array,
    scale: Array,
    offset: Array,
    statistics: str,
    axis_name: str | None,
) -> Array:
    """The skip connections of stride 2 to T targets: x [C, N, H, W] to [T, C, N, H / 2, W / 2].

    plain, shifted: 1x1 kernels [T, C, C / 2] of every second pixel and of those between, whose outputs stand
    side by side; scale, offset: [T, C] of the normalisation.
    """
    x = jax.nn.relu(x)
    halves = [
        jnp.einsum("tcd,cnhw->tdnhw", kernel, operations.every(x, 2, "CNHW", first))
        for first, kernel in ((0, plain), (1, shifted))
    ]
    y, _ = _normalise(jnp.concatenate(halves, axis=1), statistics, axis_name)
    return _scaled(y, scale, offset, statistics)
