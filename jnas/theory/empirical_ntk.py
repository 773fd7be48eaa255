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

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from jnas.errors import unknown_name
from jnas.types import Params

# Parameters by their path.
Flat: TypeAlias = dict[tuple[str, ...], Array]

LOGITS = ("sum", "trace", "full")
# The authors of TE-NAS count the parameters that PyTorch calls "weight": no offsets, no biases.
UNWEIGHTED = ("offset", "classifier_bias")
PARAMETERS = ("weights", "all")
NEURAL_TANGENTS = ("jacobian_contraction", "ntk_vector_products", "structured_derivatives")

# Size of the planes of cotangents in one backward pass. On a CPU they fill the cores and stay in the last cache; on
# an accelerator more of them do not pay.
CPU_BLOCK_BYTES = 8 * 2**20
ACCELERATOR_BLOCK_BYTES = 2**30


def split(params: Params, parameters: str) -> tuple[Flat, Flat]:
    """Split flat parameters into those that count in the kernel and the others."""
    flat = traverse_util.flatten_dict(dict(params))
    if parameters == "all":
        return flat, {}
    counted = {path: value for path, value in flat.items() if path[-1] not in UNWEIGHTED}
    return counted, {path: value for path, value in flat.items() if path[-1] in UNWEIGHTED}


def _cotangents(outputs: int, logits: str, dtype: jnp.dtype) -> Array:
    """Rows [R, O] that the Jacobian of one image's logits is multiplied by."""
    return jnp.ones((1, outputs), dtype) if logits == "sum" else jnp.eye(outputs, dtype=dtype)


def jacobian(
    apply: Callable[[Params, Array], Array],
    params: Params,
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

    # Cotangents to carry at once divide their number, as a remainder would compile a second time.
    count = len(images) * len(seeds)
    limit = CPU_BLOCK_BYTES if jax.default_backend() == "cpu" else ACCELERATOR_BLOCK_BYTES
    most = max(1, limit // (channels * images[..., 0].size * out.dtype.itemsize))
    block = max(size for size in range(1, count + 1) if count % size == 0 and size <= most)
    rows = jax.lax.map(row_of, jnp.arange(count), batch_size=block)
    return rows.reshape(len(images), len(seeds), -1)


def kernel_of(jacobian: Array, logits: str) -> Array:
    """The kernel of Jacobian rows [N, R, P]: float[N, N], or [N O, N O] for `"full"`."""
    images, rows, _ = jacobian.shape
    flat = jacobian.reshape(images if logits == "trace" else images * rows, -1)
    kernel = jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)
    return kernel / rows if logits == "trace" else kernel


def by_neural_tangents(
    apply: Callable[[Params, Array], Array],
    params: Params,
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
        inputs = images[None]

        def f(by_name, inputs):
            return logits_of(by_name, inputs[0]).reshape(1, -1)

    else:
        inputs = images

        def f(by_name, inputs):
            return jax.vmap(lambda image: logits_of(by_name, image[None])[0], axis_name="images")(inputs)

    implemented = getattr(nt.NtkImplementation, implementation.upper())
    kernel = nt.empirical_ntk_fn(f, trace_axes=(), implementation=implemented)(inputs, None, counted_by_name)
    count = len(images)
    if statistics == "train":
        rows = round(kernel.size**0.5) // count
        kernel = kernel.reshape(count, rows, count, rows)
    else:
        kernel = jnp.moveaxis(kernel, 1, 2)
    if logits == "trace":
        return jnp.trace(kernel, axis1=1, axis2=3) / kernel.shape[1]
    return kernel.reshape(count * kernel.shape[1], -1)
