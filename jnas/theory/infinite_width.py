"""Kernels of cells of infinite width, NNGP and NTK in closed form, and the same networks at finite width.

The network is a 3x3 convolution, `depth` cells of NAS-Bench-201, ReLU, global average pooling and a linear output, in
the NTK parametrisation with weights of variance 2 / fan-in and without normalisation. Convolutions, ReLU, pooling and
the linear layers are neural-tangents' (Novak et al., ICLR 2020, https://arxiv.org/abs/1912.02803). As the number of
channels grows, the outputs of different convolutions become independent Gaussian processes g_i, so that each node of a
cell is

    node = sum_i L_i g_i,       K_node = sum_i L_i K_i L_i^T,       Theta_node = sum_i L_i Theta_i L_i^T,

with L_i, a matrix on pixels, the sum over all paths without a convolution from g_i to the node: skips are the
identity, average pooling is a matrix. Adding the kernels of the branches instead, as for independent ones, would be
wrong wherever two such paths meet: three skips give 2 x, not the sum of two independent copies of x.

Letters: N images, H, W pixels, S = H W.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jnas.nets import operations
from jnas.spaces import nasbench201
from jnas.types import Params

if TYPE_CHECKING:
    from neural_tangents import Kernel

Init: TypeAlias = Callable[[Array, Sequence[int]], Params]
Apply: TypeAlias = Callable[[Params, ArrayLike], Array]

SKIP, POOL = "skip_connect", "avg_pool_3x3"
KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
# Variance 2 / fan-in keeps the variance through a ReLU.
WEIGHT = 2.0**0.5


def pooling_matrix(height: int, width: int) -> np.ndarray:
    """3x3 average pooling without the padding in its count, as a matrix on pixels: float64[S, S]."""

    def along(size: int) -> np.ndarray:
        near = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) <= 1
        return near / near.sum(axis=1, keepdims=True)

    return np.kron(along(height), along(width))


def is_connected(architecture: ArrayLike) -> bool:
    """True where a path leads from a cell's input, 0 in its expression, to its output: architecture int32[E]."""
    return "0" in nasbench201.expression(architecture)


def kernels(architecture: Sequence[int], images: ArrayLike, depth: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Kernels (NNGP, NTK) of one output of the network of infinite width: float64[N, N] each.

    Both are zero where the output does not depend on the image.

    architecture: E operations, by number.
    images: float[N, H, W, C].
    """
    # Imported where it is needed: neural-tangents takes a second.
    from neural_tangents import stax

    images = jnp.asarray(images)
    height, width = images.shape[1:3]
    pool = pooling_matrix(height, width)
    *_, stem = stax.Conv(1, (3, 3), padding="SAME", W_std=1.0)
    *_, head = stax.serial(stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1, W_std=WEIGHT))
    kernel = stem(images, None, None, diagonal_batch=True, diagonal_spatial=False)
    for _ in range(depth):
        kernel = _cell(architecture, kernel, pool)
        if kernel is None:
            zeros = np.zeros((len(images),) * 2)
            return zeros, zeros
    out = head(kernel)
    return np.asarray(out.nngp, np.float64), np.asarray(out.ntk, np.float64)


def _cell(architecture: Sequence[int], kernel: "Kernel", pool: np.ndarray) -> "Kernel | None":
    """The kernel of a cell's last node, None where nothing reaches it."""
    from neural_tangents import stax

    space, sources = nasbench201.SPACE, [kernel]
    # Of each node, the matrix L_i by the number of the source.
    nodes: list[dict[int, np.ndarray]] = [{0: np.eye(len(pool))}] + [{} for _ in range(3)]
    for (start, target), choice in zip(space.edges, architecture, strict=True):
        name = space.operations[choice]
        # Edges are in the order of their targets, so that a node is complete before an edge leaves it.
        if name == "none" or not nodes[start]:
            continue
        if name in KERNELS:
            *_, layer = stax.serial(
                stax.Relu(), stax.Conv(1, (KERNELS[name],) * 2, padding="SAME", W_std=WEIGHT)
            )
            sources.append(layer(_node(nodes[start], sources)))
            nodes[target][len(sources) - 1] = np.eye(len(pool))
            continue
        for number, matrix in nodes[start].items():
            passed = matrix if name == SKIP else pool @ matrix
            nodes[target][number] = nodes[target].get(number, 0) + passed
    return _node(nodes[-1], sources) if nodes[-1] else None


def _node(matrices: dict[int, np.ndarray], sources: list["Kernel"]) -> "Kernel":
    """sum_i L_i K_i L_i^T of neural-tangents' kernels."""
    parts = [_through(sources[number], matrix) for number, matrix in matrices.items()]
    total = parts[0]
    for part in parts[1:]:
        total = total.replace(
            **{name: getattr(total, name) + getattr(part, name) for name in ("nngp", "ntk", "cov1")}
        )
    return total


def _through(kernel: "Kernel", matrix: np.ndarray) -> "Kernel":
    """The kernel of L g from that of g."""
    # neural-tangents turns the order of the spatial axes round at each convolution; rows before columns here.
    kernel = kernel.reverse() if kernel.is_reversed else kernel
    height = kernel.shape1[1]
    if np.array_equal(matrix, np.eye(len(matrix))):
        return kernel
    linear = jnp.asarray(matrix, kernel.nngp.dtype)

    def both(array: Array) -> Array:
        # [.., H, H', W, W'] to [.., S, S'] and back.
        shape, lead = array.shape, array.ndim - 4
        flat = jnp.swapaxes(array, lead + 1, lead + 2).reshape(*shape[:lead], len(matrix), len(matrix))
        flat = jnp.einsum("st,...tu,vu->...sv", linear, flat, linear, precision=jax.lax.Precision.HIGHEST)
        opened = flat.reshape(*shape[:lead], height, -1, height, shape[-1])
        return jnp.swapaxes(opened, lead + 1, lead + 2)

    return kernel.replace(nngp=both(kernel.nngp), ntk=both(kernel.ntk), cov1=both(kernel.cov1))


def network(
    architecture: Sequence[int], channels: int, outputs: int = 1, depth: int = 1
) -> tuple[Init, Apply, Apply]:
    """The same network of finite width: (init, apply, features).

    init: (key, shape of images) to parameters.
    apply: (parameters, images [N, H, W, C]) to logits [N, outputs].
    features: (parameters, images) to the inputs [N, channels] of the linear output.
    """
    from neural_tangents import stax

    space = nasbench201.SPACE
    stem = stax.Conv(channels, (3, 3), padding="SAME", W_std=1.0)
    head = stax.Dense(outputs, W_std=WEIGHT)
    names = [space.operations[choice] for choice in architecture]
    layers = {
        name: stax.serial(stax.Relu(), stax.Conv(channels, (size, size), padding="SAME", W_std=WEIGHT))
        for name, size in KERNELS.items()
    }

    def init(key: Array, shape: Sequence[int]) -> Params:
        inside = (*shape[:-1], channels)
        keys = jax.random.split(key, 2 + depth * len(names))
        params = {
            "stem": stem[0](keys[0], tuple(shape))[1],
            "head": head[0](keys[1], (shape[0], channels))[1],
        }
        for place, layer_key in enumerate(keys[2:]):
            number, edge = divmod(place, len(names))
            if names[edge] in layers:
                params[f"cell_{number}_{edge}"] = layers[names[edge]][0](layer_key, inside)[1]
        return params

    def features(params: Params, images: ArrayLike) -> Array:
        x = stem[1](params["stem"], images)
        for number in range(depth):
            nodes = [x, *(jnp.zeros_like(x),) * 3]
            for edge, (start, target) in enumerate(space.edges):
                name, h = names[edge], nodes[start]
                if name in layers:
                    nodes[target] += layers[name][1](params[f"cell_{number}_{edge}"], h)
                elif name != "none":
                    nodes[target] += h if name == SKIP else operations.average_pool(h, "NHWC")
            x = nodes[-1]
        return jnp.mean(jax.nn.relu(x), axis=(1, 2))

    def apply(params: Params, images: ArrayLike) -> Array:
        return head[1](params["head"], features(params, images))

    return init, apply, features
