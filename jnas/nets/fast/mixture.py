"""All that leaves one node of a cell for its targets, as one operation with its own derivative.

The branches `b` (a 3x3 and a 1x1 convolution, say) of the edges from a node with value x to targets `t`, with
identity and average pools beside them, on channel-first planes `[C, N, H, W]`:

    u_bt = kernel_bt * relu(x)                (convolution, zero padding)
    z_bt = (u_bt - mean u_bt) / sqrt(var u_bt + 1e-5)
    y_t  = sum_b gates_bt (scale_bt z_bt + offset_bt)  +  skip_t x  +  sum_p pool_pt average_pool_p(x)

An exact neural tangent kernel differentiates this N times, once for each image's logits, with the same
activations every time. What does not depend on the cotangent `d` is therefore worked out once, forwards:
the columns X of relu(x), V = X z (for the kernels' gradient) and B = kernel^T z (for the input's gradient).
Each differentiation is then small dense algebra, with M_t = X d_t, s_t = sum d_t, q_bt = sum d_t z_bt and
a_bt = gates_bt scale_bt / sqrt(var + 1e-5), P the number of positions:

    dkernel_bt = a_bt (M_t - (X 1) s_t / P - V_bt q_bt / P)
    dscale_bt  = gates_bt q_bt          doffset_bt = gates_bt s_t
    dx = relu'(x) [ sum_t (sum_b a_bt kernel_bt)^T (d_t - s_t / P)  -  sum_bt (a_bt q_bt / P) B_bt ]
         + sum_t skip_t d_t + sum_p average_pool_p^T(sum_t pool_pt d_t)

All branches of an edge share one transposed convolution, and q comes from M: q = (kernel . M - mean s) / sd.
With `statistics="frozen"` the mean and the variance are constants at the batch's values, and every term
with 1 / P goes.

Under `vmap` over cotangents the new axis stands behind the channels, where every product is a plain matrix
product without a transposed copy. Under `vmap` over images (`frozen`) statistics run over the mapped axis
too, as a collective would, and the images are evaluated as one batch.

The rule differentiates backwards only, and not with respect to gates, skip and pool. `jnas.nets.operations`
holds the plain form, which tests hold equal.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import custom_vmap

from jnas.nets import operations
from jnas.nets.operations import EPSILON

# Up to so many input planes, sums of shifted planes, three output planes at a time, beat matrix products: more
# at once are too many streams of memory to read side by side.
FUSED_INPUTS = 6
PLANES_AT_ONCE = 3


def _shifted(x: Array, row: int, column: int, half: int, stride: int = 1) -> Array:
    """`y[..., h, w] = x[..., stride h + row - half, stride w + column - half]`, zero outside."""
    height, width = x.shape[-2:]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(half, half)] * 2)
    return padded[..., row : row + height : stride, column : column + width : stride]


def _columns(x: Array, size: int, stride: int) -> Array:
    """The size x size neighbourhoods of x [C, ..., H, W] as [size^2 C, ..., H', W'], in the order of a kernel's."""
    taps = np.ndindex(size, size)
    return jnp.concatenate([_shifted(x, row, column, size // 2, stride) for row, column in taps])


def _transposed(kernels: Array, ds: tuple[Array, ...], image: tuple[int, int], stride: int) -> Array:
    """Sum over t of adjoint convolutions: kernels [t, k, k, C, O], ds[t] [O, ..., H', W'] -> [C, ..., H, W]."""
    size, inputs, outputs = kernels.shape[2:]
    half, last = size // 2, size - 1
    if stride > 1:
        ds = tuple(operations.spread(d, stride, (-2, -1), image) for d in ds)
    if inputs <= FUSED_INPUTS:
        border = [(0, 0)] * (ds[0].ndim - 2) + [(half, half)] * 2
        padded = jnp.concatenate([jnp.pad(d, border) for d in ds])
        together = PLANES_AT_ONCE if outputs % PLANES_AT_ONCE == 0 else 1
        padded = padded.reshape(-1, together, *padded.shape[1:])
        grouped = jnp.moveaxis(kernels, -1, 1).reshape(
            -1, together, size, size, inputs, *(1,) * (ds[0].ndim - 1)
        )

        def add_group(index, planes):
            kernel, d = grouped[index], padded[index]
            return planes + sum(
                kernel[o, row, column]
                * d[o, ..., last - row : last - row + image[0], last - column : last - column + image[1]]
                for o, row, column in np.ndindex(together, size, size)
            )

        zero = jnp.zeros((inputs, *ds[0].shape[1:-2], *image), ds[0].dtype)
        return jax.lax.fori_loop(0, len(padded), add_group, zero)
    joined = jnp.moveaxis(kernels, 0, 3).reshape(size**2 * inputs, -1)
    products = jnp.tensordot(joined, jnp.concatenate(ds), 1)
    products = products.reshape(size, size, inputs, *products.shape[1:])
    taps = np.ndindex(size, size)
    return reduce(jnp.add, [_shifted(products[tap], last - tap[0], last - tap[1], half) for tap in taps])


def _evaluate(x, kernels, scale, offset, gates, skip, pool, stride, relu, pools):
    """Outputs, and what the derivative needs: columns, centred outputs, mean, 1 / sd."""
    branches, targets, size, _, inputs, outputs = kernels.shape
    columns = _columns(jax.nn.relu(x) if relu else x, size, stride)
    flat = kernels.reshape(branches * targets, size**2 * inputs, outputs)
    flat = jnp.swapaxes(flat, 1, 2).reshape(-1, size**2 * inputs)
    u = jnp.tensordot(flat, columns, 1).reshape(branches, targets, outputs, *columns.shape[1:])
    mean = jnp.mean(u, axis=(3, 4, 5))
    centred = u - mean[..., None, None, None]
    slope = jax.lax.rsqrt(jnp.mean(centred**2, axis=(3, 4, 5)) + EPSILON)
    weight = gates[..., None] * scale * slope
    y = jnp.sum(weight[..., None, None, None] * centred, axis=0)
    y = y + jnp.einsum("bt,bto->to", gates, offset)[..., None, None, None]
    ys = tuple(y)
    if skip is not None:
        pooled = [operations.average_pool(x, "CNHW", size) for size in pools]
        ys = tuple(
            y + s * x + sum(p * part for p, part in zip(weights, pooled, strict=True))
            for y, s, weights in zip(ys, skip, pool.T, strict=True)
        )
    return ys, (columns, centred, mean, slope)


@partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9, 10))
def mixed_edges(
    x: Array,
    kernels: Array,
    scale: Array,
    offset: Array,
    gates: Array,
    skip: Array | None = None,
    pool: Array | None = None,
    stride: int = 1,
    relu: bool = True,
    statistics: str = "train",
    pools: tuple[int, ...] = (3,),
) -> tuple[Array, ...]:
    """The gate-weighted sum of all operations from one node to each of its targets.

    Args:
      x: float[C, N, H, W].
      kernels: float[branches, targets, k, k, C, O], k odd; among 3x3 kernels a 1x1 kernel stands at the centre
        of zeros.
      scale, offset: float[branches, targets, O] of the batch normalisation.
      gates: float[branches, targets] of the convolutions.
      skip: float[targets], weights of the identity; pool: float[pools, targets], those of average pools. None for
        neither (O = C and stride 1 where given).
      stride: of the convolutions.
      relu: whether the convolutions read relu(x) rather than x.
      statistics: `"train"` differentiates through the batch's mean and variance, `"frozen"` holds them
        constant at their values and takes them over the axes of a surrounding `vmap` over images as well.
      pools: the sides of the average pools.

    Returns:
      `targets` arrays float[O, N, H / stride, W / stride].
    """
    return _mixed_forward(x, kernels, scale, offset, gates, skip, pool, stride, relu, statistics, pools)[0]


def _mixed_forward(x, kernels, scale, offset, gates, skip, pool, stride, relu, statistics, pools):
    parameters = (kernels, scale, offset, gates, skip, pool)
    if statistics == "frozen":
        ys, residuals = _evaluate_images(stride, relu, pools)(x, parameters)
        return ys, (x, parameters, residuals, None)
    ys, (columns, centred, mean, slope) = _evaluate(x, *parameters, stride, relu, pools)
    z = centred * slope[..., None, None, None]
    sums = jnp.sum(columns, axis=(1, 2, 3))
    count = columns.shape[0]
    correlation = z.reshape(-1, z[0, 0, 0].size) @ columns.reshape(count, -1).T
    spread = jax.vmap(  # each normalised plane back through its own kernel
        lambda kernel, plane: _transposed(kernel[None, ..., None], (plane[None],), x.shape[-2:], stride),
        out_axes=1,
    )(jnp.moveaxis(kernels, -1, 2).reshape(-1, *kernels.shape[2:5]), z.reshape(-1, *z.shape[3:]))
    shared = (sums, correlation.reshape(*z.shape[:3], count), spread)
    return ys, (x, parameters, (columns, mean, slope), shared)


def _mapped(function, batched, arguments):
    """`vmap` of `function` over axis 0 of the leaves of `arguments` that `batched` marks."""
    axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched)
    outs = jax.vmap(function, in_axes=tuple(axes))(*arguments)
    return outs, jax.tree.map(lambda _: True, outs)


def _evaluate_images(stride, relu, pools):
    """`_evaluate` whose `vmap` over images is one batch: x [B, C, N, H, W] becomes [C, B N, H, W]."""

    def plain(x, parameters):
        ys, (columns, _, mean, slope) = _evaluate(x, *(*parameters, stride, relu, pools))
        return ys, (columns, mean, slope)

    evaluate = custom_vmap(plain)

    @evaluate.def_vmap
    def _(size, batched, x, parameters):
        if any(jax.tree.leaves(batched[1])):
            # A map over networks: each has statistics of its own.
            return _mapped(plain, batched, (x, parameters))
        merged = jnp.moveaxis(x, 0, 1)
        ys, (columns, mean, slope) = plain(merged.reshape(merged.shape[0], -1, *x.shape[-2:]), parameters)

        def split(array):
            return jnp.moveaxis(array.reshape(array.shape[0], size, -1, *array.shape[-2:]), 1, 0)

        outs = (jax.tree.map(split, ys), (split(columns), mean, slope))
        return outs, (jax.tree.map(lambda _: True, ys), (True, False, False))

    return evaluate


def _adjoint(stride, relu, statistics, pools):
    """(x, parameters, residuals, shared, ds) to the cotangents; one rule for each kind of `vmap`."""

    def gradients(x, parameters, residuals, shared, ds, extra):
        """`extra` axes stand behind the channels of ds: none, cotangents [B] or images [B] of x too."""
        kernels, scale, _, gates, skip, pool = parameters
        columns, mean, slope = residuals
        branches, targets, size, _, inputs, outputs = kernels.shape
        flat = kernels.reshape(branches, targets, size**2 * inputs, outputs)
        positions = ds[0][0].size // (ds[0].shape[1] if extra else 1)
        if extra == "images":
            m = jnp.stack([jnp.einsum("kbnhw,obnhw->bko", columns, d) for d in ds], 1)
        else:
            products = [columns.reshape(len(columns), -1) @ d.reshape(-1, positions).T for d in ds]
            m = jnp.stack([product.reshape(len(columns), outputs, -1) for product in products])
            m = jnp.moveaxis(m, 3, 0)
        s = jnp.stack([jnp.sum(d, axis=(-3, -2, -1)).reshape(outputs, -1).T for d in ds], 1)
        # From here on B stands in front: m [B, t, 9 C, O], s [B, t, O], q [B, b, t, O].
        q = slope * (jnp.einsum("btko,Btko->Bbto", flat, m) - mean * s[:, None])
        weight = gates[..., None] * scale * slope
        dkernels = jnp.broadcast_to(m[:, None], (len(m), branches, *m.shape[1:]))
        convolved = ds
        if statistics == "train":
            sums, correlation, spread = shared
            dkernels = dkernels - (sums[:, None] * s[:, None, :, None] / positions)
            dkernels = dkernels - jnp.swapaxes(correlation, 2, 3) * q[:, :, :, None] / positions
            means = jnp.moveaxis(s, 0, -1) / positions
            convolved = tuple(
                d - (mean if extra else mean[:, 0])[..., None, None, None]
                for d, mean in zip(ds, means, strict=True)
            )
        dkernels = (weight[:, :, None] * dkernels).reshape(len(m), *kernels.shape)
        merged = jnp.einsum("bto,btijco->tijco", weight, kernels)
        dx = _transposed(merged, convolved, x.shape[-2:], stride)
        if statistics == "train":
            coefficients = (weight * q / positions).reshape(len(q), -1)
            correction = jnp.matmul(coefficients, spread.reshape(inputs, -1, spread[0, 0].size))
            dx = dx - correction.reshape(dx.shape)
        if relu:
            positive = x > 0
            dx = jnp.where(positive[:, None] if extra == "cotangents" else positive, dx, 0.0)
        if skip is not None:
            skipped = sum(weight * d for weight, d in zip(skip, ds, strict=True))
            dx = dx + skipped
            for size, weights in zip(pools, pool, strict=True):
                pooled = sum(weight * d for weight, d in zip(weights, ds, strict=True))
                dx = dx + operations.average_pool_adjoint(pooled, size)
        return dx, (dkernels, gates[..., None] * q, gates[..., None] * s[:, None])

    def plain(x, parameters, residuals, shared, ds):
        dx, rest = gradients(x, parameters, residuals, shared, ds, extra="")
        return dx, jax.tree.map(lambda array: array[0], rest)

    adjoint = custom_vmap(plain)

    @adjoint.def_vmap
    def _(size, batched, x, parameters, residuals, shared, ds):
        images = batched[0]
        if any(jax.tree.leaves(batched[1])) or (images and statistics == "train"):
            return _mapped(plain, batched, (x, parameters, residuals, shared, ds))
        behind = jax.tree.map(lambda d: jnp.moveaxis(d, 0, 1), ds)
        if images:
            x = jnp.moveaxis(x, 0, 1)
            residuals = (jnp.moveaxis(residuals[0], 0, 1), *residuals[1:])
        dx, rest = gradients(x, parameters, residuals, shared, behind, "images" if images else "cotangents")
        return (jnp.moveaxis(dx, 1, 0), rest), (True, (True, True, True))

    return adjoint


def _mixed_backward(stride, relu, statistics, pools, kept, ds):
    x, parameters, residuals, shared = kept
    adjoint = _adjoint(stride, relu, statistics, pools)
    dx, (dkernels, dscale, doffset) = adjoint(x, parameters, residuals, shared, ds)
    rest = jax.tree.map(jnp.zeros_like, parameters[3:])
    return dx, dkernels, dscale, doffset, *rest


mixed_edges.defvjp(_mixed_forward, _mixed_backward)
