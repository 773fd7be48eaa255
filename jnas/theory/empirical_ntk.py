"""The exact empirical neural tangent kernel of a network with batch normalisation.

    Theta[n, m] = sum_o,o' <d f_o(x_n) / d theta, d f_o'(x_m) / d theta>     ("sum": gradients of summed logits)
    Theta[n, m] = 1/O sum_o <d f_o(x_n) / d theta, d f_o(x_m) / d theta>     ("trace")
    Theta[n o, m o'] = <d f_o(x_n) / d theta, d f_o'(x_m) / d theta>         ("full")

(Jacot, Gabriel and Hongler, 2018, https://arxiv.org/abs/1806.07572.) With batch statistics that are
differentiated through (`"train"`), f(x_n) depends on the other images of the batch and each row of the
Jacobian is a backward pass through all of it; with statistics held constant (`"frozen"`) rows are
independent and one backward pass gives them all.

`jacobian` is jnas's path, for networks that evaluate convolutions on planes (`jnas.nets.fast.mixture`).
`by_neural_tangents` computes the same kernel by any implementation of neural-tangents (Novak et al., 2020,
https://arxiv.org/abs/1912.02803).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from jnas.errors import unknown_name

LOGITS = ("sum", "trace", "full")
# The authors of TE-NAS count the parameters that PyTorch calls "weight": no offsets, no biases.
UNWEIGHTED = ("offset", "classifier_bias")
PARAMETERS = ("weights", "all")
NEURAL_TANGENTS = ("jacobian_contraction", "ntk_vector_products", "structured_derivatives")

# Size of the planes of cotangents in one backward pass. On a CPU they fill the cores and stay in the last cache; on
# an accelerator more of them do not pay.
CPU_BLOCK_BYTES = 8 * 2**20
ACCELERATOR_BLOCK_BYTES = 2**30


def split(params: Mapping[str, Any], parameters: str) -> tuple[dict, dict]:
    """Split flat parameters into those that count in the kernel and the others."""
    flat = traverse_util.flatten_dict(dict(params))
    if parameters == "all":
        return flat, {}
    counted = {path: value for path, value in flat.items() if path[-1] not in UNWEIGHTED}
    return counted, {path: value for path, value in flat.items() if path[-1] in UNWEIGHTED}


def _cotangents(outputs: int, logits: str, dtype: jnp.dtype) -> Array:
    """Rows [R, O] that the Jacobian of one image's logits is multiplied by."""
    return jnp.ones((1, outputs), dtype) if logits == "sum" else jnp.eye(outputs, dtype=dtype)


def _block(rows: int, plane_bytes: int) -> int:
    """Number of cotangents to carry at once: a divisor of `rows`, as a remainder would compile a second time."""
    limit = CPU_BLOCK_BYTES if jax.default_backend() == "cpu" else ACCELERATOR_BLOCK_BYTES
    most = max(1, limit // plane_bytes)
    return max(size for size in range(1, rows + 1) if rows % size == 0 and size <= most)


def jacobian(
    apply: Callable[[Mapping, Array], Array],
    params: Mapping,
    images: Array,
    *,
    statistics: str,
    logits: str = "sum",
    parameters: str = "weights",
    channels: int,
) -> Array:
    """Rows of the Jacobian that the kernel is made of: float[N, R, P], R = 1 for `"sum"`, else O.

    Args:
      apply: (params, images [N, H, W, C]) to logits [N, O]. With `"frozen"` statistics it is called on one
        image at a time under `jax.vmap(axis_name="images")` and must take its statistics over that axis.
      params: the network's parameters.
      images: float[N, H, W, C].
      statistics: `"train"` or `"frozen"`.
      logits: one of `LOGITS`.
      parameters: one of `PARAMETERS`.
      channels: of the network's first stage; they set the number of cotangents in one pass.
    """
    counted, rest = split(params, parameters)

    def logits_of(counted, images):
        return apply(traverse_util.unflatten_dict({**counted, **rest}), images)

    if statistics == "frozen":

        def rows_of_image(image):
            out, pullback = jax.vjp(lambda counted: logits_of(counted, image[None])[0], counted)
            return jax.vmap(lambda d: pullback(d)[0])(_cotangents(out.shape[0], logits, out.dtype))

        rows = jax.vmap(rows_of_image, axis_name="images")(images)
        return jnp.concatenate([row.reshape(*row.shape[:2], -1) for row in rows.values()], axis=-1)

    out, pullback = jax.vjp(lambda counted: logits_of(counted, images), counted)
    seeds = _cotangents(out.shape[1], logits, out.dtype)

    def row_of(index):
        image, seed = index // len(seeds), index % len(seeds)
        (gradient,) = pullback(jnp.zeros_like(out).at[image].set(seeds[seed]))
        return jnp.concatenate([value.reshape(-1) for value in gradient.values()])

    indices = jnp.arange(len(images) * len(seeds))
    plane_bytes = channels * images[..., 0].size * out.dtype.itemsize
    rows = jax.lax.map(row_of, indices, batch_size=_block(len(indices), plane_bytes))
    return rows.reshape(len(images), len(seeds), -1)


def kernel_of(jacobian: Array, logits: str) -> Array:
    """The kernel of Jacobian rows [N, R, P]: float[N, N], or [N O, N O] for `"full"`."""
    images, rows, size = jacobian.shape
    if logits == "trace":
        flat = jacobian.reshape(images, rows * size)
        return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST) / rows
    flat = jacobian.reshape(images * rows, size)
    return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)


def by_neural_tangents(
    apply: Callable[[Mapping, Array], Array],
    params: Mapping,
    images: Array,
    *,
    implementation: str,
    statistics: str,
    logits: str = "sum",
    parameters: str = "weights",
) -> Array:
    """The same kernel from `neural_tangents.empirical_ntk_fn`; shapes and meaning as in `kernel_of`.

    `apply` must differentiate forwards too (a network that is not built on planes). With `"frozen"`
    statistics it is called on one image at a time, as by `jacobian`. With `"train"` statistics the whole
    batch is one input of neural-tangents' whose N O logits are its outputs.
    """
    if implementation not in NEURAL_TANGENTS:
        raise unknown_name("implementation", implementation, NEURAL_TANGENTS)
    import neural_tangents as nt

    counted, rest = split(params, parameters)
    counted_by_name = {"/".join(path): value for path, value in counted.items()}

    def logits_of(by_name, images):
        counted = {tuple(path.split("/")): value for path, value in by_name.items()}
        out = apply(traverse_util.unflatten_dict({**counted, **rest}), images)
        return jnp.sum(out, axis=-1, keepdims=True) if logits == "sum" else out

    if statistics == "train":
        # One input whose outputs are the logits of all images: their kernel is the one between images.
        def whole_batch(by_name, batch):
            return logits_of(by_name, batch[0]).reshape(1, -1)

        f, x, batched = whole_batch, images[None], None
    else:

        def one_by_one(by_name, batch):
            return jax.vmap(lambda image: logits_of(by_name, image[None])[0], axis_name="images")(batch)

        f, x, batched = one_by_one, images, None
    kernel_fn = nt.empirical_ntk_fn(
        f,
        trace_axes=(),
        vmap_axes=batched,
        implementation=getattr(nt.NtkImplementation, implementation.upper()),
    )
    kernel = kernel_fn(x, None, counted_by_name)
    count = len(images)
    rows = kernel.size // count**2
    if statistics == "train":
        kernel = kernel.reshape(count, round(rows**0.5), count, round(rows**0.5))
    else:
        kernel = jnp.moveaxis(kernel, 1, 2)
    if logits == "trace":
        return jnp.trace(kernel, axis1=1, axis2=3) / kernel.shape[1]
    return kernel.reshape(count * kernel.shape[1], -1)
