"""Convolutions with batch normalisation that read the same input, as one operation with its own derivative.

All the branches `b` (a 3x3 and a 1x1 convolution, say) of all the edges that leave one node for its targets
`t` are evaluated together, on channel-first planes `[C, N, H, W]`:

    u_bt = kernel_bt * x                      (convolution, zero padding)
    z_bt = (u_bt - mean u_bt) / sqrt(var u_bt + 1e-5)
    y_t  = sum_b gates_bt (scale_bt z_bt + offset_bt)

An exact neural tangent kernel differentiates this N times, once for each image's logits, with the same
activations every time. What does not depend on the cotangent `d` is therefore worked out once, forwards:
the columns X of x, V = X z (for the kernels' gradient) and B = kernel^T z (for the input's gradient).
Each differentiation is then small dense algebra, with M_t = X d_t, s_t = sum d_t, q_bt = sum d_t z_bt and
a_bt = gates_bt scale_bt / sqrt(var + 1e-5), P the number of positions:

    dkernel_bt = a_bt (M_t - (X 1) s_t / P - V_bt q_bt / P)
    dscale_bt  = gates_bt q_bt          doffset_bt = gates_bt s_t
    dgates_bt  = scale_bt . q_bt + offset_bt . s_t
    dx         = sum_t (sum_b a_bt kernel_bt)^T (d_t - s_t / P)  -  sum_bt (a_bt q_bt / P) B_bt

All branches of an edge share one transposed convolution, and q comes from M: q = (kernel . M - mean s) / sd.
With `statistics="frozen"` the mean and the variance are constants at the batch's values, and every term
with 1 / P goes.

The rule differentiates backwards only. `jnas.nets.operations` holds the plain form, which tests hold equal.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

# PyTorch's default, and NAS-Bench-201's: the published kernels depend on it.
EPSILON = 1e-5
# Up to this many multiplications for each output, sums of shifted planes fuse into one loop that beats a
# matrix product; beyond, they no longer fit in registers and take long to compile.
PLANE_PRODUCTS = 9


def _shifted(x: Array, row: int, column: int, stride: int = 1) -> Array:
    """`y[..., h, w] = x[..., stride h + row - 1, stride w + column - 1]`, zero outside."""
    height, width = x.shape[-2:]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)])
    return padded[..., row : row + height : stride, column : column + width : stride]


def _columns(x: Array, stride: int) -> Array:
    """The 3x3 neighbourhoods of x [C, N, H, W] as [9 C, N, H', W'], rows in the order of a kernel's."""
    return jnp.concatenate([_shifted(x, row, column, stride) for row in range(3) for column in range(3)])


def _transposed(kernel: Array, d: Array, shape: tuple[int, ...], stride: int) -> Array:
    """Adjoint of the 3x3 convolution: kernel [3, 3, C, O], d [O, N, H', W'] to [C, N, H, W] = `shape`."""
    inputs, outputs = kernel.shape[2:]
    if stride == 1 and inputs * outputs <= PLANE_PRODUCTS:
        planes = [
            sum(
                kernel[row, column, c, o] * _shifted(d[o], 2 - row, 2 - column)
                for o in range(outputs)
                for row in range(3)
                for column in range(3)
            )
            for c in range(inputs)
        ]
        return jnp.stack(planes)
    if stride == 1:
        products = jnp.einsum("ijco,onhw->ijcnhw", kernel, d)
        return sum(_shifted(products[row, column], 2 - row, 2 - column) for row in range(3) for column in range(3))

    def forward(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("CNHW", "HWIO", "CNHW")
        )

    (dx,) = jax.linear_transpose(forward, jax.ShapeDtypeStruct(shape, d.dtype))(d)
    return dx


def _forward(x, kernels, scale, offset, gates, stride, statistics, axis_name):
    branches, targets, _, _, inputs, outputs = kernels.shape
    columns = _columns(x, stride)
    u = jnp.einsum("btko,knhw->btonhw", kernels.reshape(branches, targets, 9 * inputs, outputs), columns)
    mean = jnp.mean(u, axis=(3, 4, 5))
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    centred = u - mean[..., None, None, None]
    variance = jnp.mean(centred**2, axis=(3, 4, 5))
    if axis_name is not None:
        variance = jax.lax.pmean(variance, axis_name)
    slope = jax.lax.rsqrt(variance + EPSILON)
    weight = gates[..., None] * scale * slope
    y = jnp.einsum("bto,btonhw->tonhw", weight, centred)
    y = y + jnp.einsum("bt,bto->to", gates, offset)[..., None, None, None]
    return y, (columns, centred, mean, slope)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def mixed_convolutions(
    x: Array,
    kernels: Array,
    scale: Array,
    offset: Array,
    gates: Array,
    stride: int = 1,
    statistics: str = "train",
    axis_name: str | None = None,
) -> Array:
    """Gate-weighted sum over branches of convolution and batch normalisation, for every target.

    Args:
      x: float[C, N, H, W].
      kernels: float[branches, targets, 3, 3, C, O]; a 1x1 kernel stands at the centre of zeros.
      scale, offset: float[branches, targets, O] of the batch normalisation.
      gates: float[branches, targets].
      stride: of the convolutions.
      statistics: `"train"` differentiates through the batch's mean and variance, `"frozen"` holds them
        constant at their values.
      axis_name: the name of a `vmap` over images; the statistics are taken over it too (`"frozen"` only).

    Returns:
      float[targets, O, N, H / stride, W / stride].
    """
    return _forward(x, kernels, scale, offset, gates, stride, statistics, axis_name)[0]


def _mixed_forward(x, kernels, scale, offset, gates, stride, statistics, axis_name):
    y, (columns, centred, mean, slope) = _forward(x, kernels, scale, offset, gates, stride, statistics, axis_name)
    shared = None
    if statistics == "train":
        z = centred * slope[..., None, None, None]
        sums = jnp.sum(columns, axis=(1, 2, 3))
        correlation = jnp.einsum("knhw,btonhw->btko", columns, z)
        spread = jax.vmap(  # over branches, targets and outputs: each normalised plane back through its kernel
            lambda kernel, plane: _transposed(kernel[..., None], plane[None], x.shape, stride)
        )
        flat_kernels = jnp.moveaxis(kernels, -1, 2).reshape(-1, *kernels.shape[2:5])
        shared = (sums, correlation, spread(flat_kernels, z.reshape(-1, *z.shape[3:])))
    return y, (x, columns, mean, slope, shared, kernels, scale, offset, gates)


def _mixed_backward(stride, statistics, axis_name, residuals, d):
    x, columns, mean, slope, shared, kernels, scale, offset, gates = residuals
    branches, targets, _, _, inputs, outputs = kernels.shape
    flat = kernels.reshape(branches, targets, 9 * inputs, outputs)
    m = jnp.einsum("knhw,tonhw->tko", columns, d)
    s = jnp.sum(d, axis=(2, 3, 4))
    q = slope * (jnp.einsum("btko,tko->bto", flat, m) - mean * s)
    weight = gates[..., None] * scale * slope
    dkernels = m[None]
    if statistics == "train":
        sums, correlation, spread = shared
        positions = d.shape[2] * d.shape[3] * d.shape[4]
        dkernels = dkernels - (sums[:, None] * (s[:, None] / positions)) - correlation * (q / positions)[:, :, None]
        d = d - (s / positions)[..., None, None, None]
    dkernels = (weight[:, :, None] * dkernels).reshape(kernels.shape)
    merged = jnp.einsum("bto,btijco->tijco", weight, kernels)
    if inputs * outputs <= PLANE_PRODUCTS:
        dx = sum(_transposed(merged[t], d[t], x.shape, stride) for t in range(targets))
    else:
        joined = jnp.moveaxis(merged, 0, 3).reshape(3, 3, inputs, targets * outputs)
        dx = _transposed(joined, d.reshape(targets * outputs, *d.shape[2:]), x.shape, stride)
    if statistics == "train":
        dx = dx - jnp.einsum("r,rcnhw->cnhw", (weight * q / positions).reshape(-1), spread)
    dscale = gates[..., None] * q
    doffset = gates[..., None] * s
    dgates = jnp.einsum("bto,bto->bt", scale, q) + jnp.einsum("bto,to->bt", offset, s)
    return dx, dkernels, dscale, doffset, dgates


mixed_convolutions.defvjp(_mixed_forward, _mixed_backward)
