"""The exact empirical neural tangent kernel of any function, within a memory that the caller names.

    Theta = sum over parts p of the parameters of  J_p J_p^T,    J_p [N R, P_p] = d logits / d parameters of the part

with the contractions of `jnas.theory.empirical_ntk`: R = 1 for `"sum"`, else O; `"trace"` divides by O. A part is as
many parameters as fit with all their rows into the memory; a parameter that does not is taken in blocks of rows, each
pair of blocks once. Nothing of the size N O P is ever held. The sum is symmetric, as each block is added with its
transpose, and positive semi-definite up to the rounding of its float32 products; parts are added in float64.

Where images do not depend on each other, a row is the backward pass of one image; where they do (batch statistics), of
the whole batch. Images are shared by the local devices, where their number divides evenly.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jnas.parallel import devices_of_images
from jnas.programs.function import Function

AXIS = "images"
Entries = Literal["all", "diagonal", "blocks"]


class Part(NamedTuple):
    """Parameters, by their place, whose Jacobian is held at once, in blocks of so many images."""

    places: tuple[int, ...]
    images: int


def kernel(
    function: Function,
    params: Any,
    images: Array,
    *,
    logits: str = "sum",
    parameters: str = "weights",
    entries: Entries = "all",
    memory_gb: float = 1.0,
) -> np.ndarray:
    """The kernel of a function at `params`.

    Args:
      function: traced with a batch of this shape.
      images: float32[N, ...].
      logits: `"sum"`, `"trace"` or `"full"`.
      parameters: `"weights"` leaves those out that are only added, `"all"` counts every one.
      entries: `"all"`; `"diagonal"`, whose sum is the trace; `"blocks"`, of each image with itself.
      memory_gb: of the rows of the Jacobian; the activations of one backward pass come on top.

    Returns:
      float64[M, M], M = N, or N O for `"full"`; the diagonal [M]; or blocks [N, R, R].
    """
    leaves, structure = jax.tree.flatten(params)
    outputs = function.classes
    rows = 1 if logits == "sum" else outputs
    count = len(images)
    counted = [place for place, counts in enumerate(function.counted(parameters)) if counts]
    # The traces of single logits are added one after the other, which needs no more rows than the sum.
    seeds = np.ones((1, 1, outputs)) if logits == "sum" else np.eye(outputs)[None]
    seeds = np.moveaxis(seeds, 1, 0) if logits == "trace" else seeds
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
    total: np.ndarray | None = None
    for part in parts(sizes, counted, count, seeds.shape[1], int(memory_gb * 2**30)):
        jacobian = function.programs.get((structure, part.places))
        if jacobian is None:
            jacobian = _program_of_rows(function, structure, part.places)
            function.programs[structure, part.places] = jacobian
        for seed in seeds:
            contracted = _contracted(
                partial(jacobian, leaves, images, jnp.asarray(seed, jnp.float32)), count, part.images, entries
            )
            total = contracted if total is None else total + contracted
    if total is None:
        raise ValueError("no parameter counts")
    return total / rows if logits == "trace" else total


def parts(
    sizes: Sequence[int], counted: Sequence[int], images: int, rows: int, memory: int
) -> Iterator[Part]:
    """Parameters of so many bytes in parts whose rows fit into the memory, or whose pairs of blocks of rows do."""
    fits, held = list[int](), 0
    for place in counted:
        needed = sizes[place] * rows
        if needed * images > memory:
            # Two blocks are held at a time.
            yield Part((place,), max(1, memory // (2 * needed)))
        elif held + needed * images > memory:
            yield Part(tuple(fits), images)
            fits, held = [place], needed * images
        else:
            fits.append(place)
            held += needed * images
    if fits:
        yield Part(tuple(fits), images)


def _on_devices(rows: Callable[..., Array]) -> Callable[..., Array]:
    """`rows` whose images are shared by the local devices, where they can be shared evenly."""

    def shared(leaves: list[Array], images: Array, seeds: Array, chosen: Array) -> Array:
        devices = devices_of_images()
        if len(devices) == 1 or len(chosen) % len(devices):
            return rows(leaves, images, seeds, chosen)
        whole, split = PartitionSpec(), PartitionSpec(AXIS)
        return jax.shard_map(
            rows, mesh=Mesh(np.array(devices), (AXIS,)), in_specs=(whole, whole, whole, split), out_specs=split,
            check_vma=False,
        )(leaves, images, seeds, chosen)  # fmt: skip

    return shared


def _program_of_rows(function: Function, structure: Any, places: tuple[int, ...]) -> Callable[..., Array]:
    """(leaves, images, seeds [R, O], chosen) to the rows of the chosen images: float32[B, R, P] of `places`."""
    if jax.default_backend() == "cpu" and len(devices_of_images()) == 1:
        return _rows_one_by_one(function, structure, places)
    return jax.jit(_on_devices(partial(_rows, function, structure, places)))


def _rows_one_by_one(
    function: Function, structure: Any, places: tuple[int, ...]
) -> Callable[[list[Array], Array, Array, Array], Array]:
    """`_rows` as a loop of Python: inside a loop of XLA a CPU has no fast form of a convolution's derivatives."""

    @jax.jit
    def forward(leaves: list[Array], images: Array) -> Any:
        own = [leaves[place] for place in places]
        return jax.vjp(lambda own: _logits(function, structure, places, leaves, own, images), own)

    @partial(jax.jit, donate_argnums=0)
    def backward(out: Array, number: int, pullback: Any, cotangent: Array) -> Array:
        return out.at[number].set(_flat(pullback(cotangent)[0]))

    def rows(leaves: list[Array], images: Array, seeds: Array, chosen: Array) -> Array:
        # A pass through the whole batch serves all rows of a function that couples its images.
        whole = forward(leaves, images) if function.couples else None
        # Rows are written into one array, as a list of them and their stack would be twice the memory.
        out = jnp.zeros((len(chosen) * len(seeds), sum(leaves[place].size for place in places)))
        for number, image in enumerate(np.asarray(chosen)):
            logits, pullback = whole or forward(leaves, images[image : image + 1])
            place = image if function.couples else 0
            for index, seed in enumerate(seeds):
                cotangent = jnp.zeros_like(logits).at[place].set(seed.astype(logits.dtype))
                out = backward(out, number * len(seeds) + index, pullback, cotangent)
        return out.reshape(len(chosen), len(seeds), -1)

    return rows


def _rows(
    function: Function,
    structure: Any,
    places: tuple[int, ...],
    leaves: list[Array],
    images: Array,
    seeds: Array,
    chosen: Array,
) -> Array:
    """Rows of the Jacobian of the chosen images: float32[B, R, P] of the parameters at `places`."""

    logits_of = partial(_logits, function, structure, places, leaves)
    own = [leaves[place] for place in places]

    if function.couples:
        out, pullback = jax.vjp(lambda own: logits_of(own, images), own)

        def row(index: Array) -> Array:
            image, seed = chosen[index // len(seeds)], seeds[index % len(seeds)]
            return _flat(pullback(jnp.zeros_like(out).at[image].set(seed.astype(out.dtype)))[0])

        rows = jax.lax.map(row, jnp.arange(len(chosen) * len(seeds)), batch_size=_at_once())
        return rows.reshape(len(chosen), len(seeds), -1)

    def rows_of(image: Array) -> Array:
        out, pullback = jax.vjp(lambda own: logits_of(own, image[None])[0], own)
        return jax.lax.map(lambda seed: _flat(pullback(seed.astype(out.dtype))[0]), seeds)

    return jax.lax.map(rows_of, images[chosen], batch_size=_at_once())


def _logits(
    function: Function,
    structure: Any,
    places: tuple[int, ...],
    leaves: list[Array],
    own: list[Array],
    images: Array,
) -> Array:
    """Logits with the parameters `own` at `places`."""
    every = list(leaves)
    for place, leaf in zip(places, own, strict=True):
        every[place] = leaf
    return function.apply(jax.tree.unflatten(structure, every), images)


def _at_once() -> int:
    """Backward passes side by side: XLA's gradient of grouped convolutions is slow on a CPU."""
    return 1 if jax.default_backend() == "cpu" else 8


def _flat(gradient: list[Array]) -> Array:
    return jnp.concatenate([leaf.reshape(-1).astype(jnp.float32) for leaf in gradient])


def _contracted(jacobian: Callable[[Array], Array], images: int, block: int, entries: Entries) -> np.ndarray:
    """The entries of J J^T, float64, from rows in blocks of images."""
    starts = range(0, images, block)

    def rows(start: int) -> Array:
        return jacobian(jnp.arange(start, min(start + block, images)))

    if entries != "all":
        return np.concatenate([np.asarray(_own(rows(start), entries), np.float64) for start in starts])
    blocks = [[np.zeros((0, 0))] * len(starts) for _ in starts]
    for one, start in enumerate(starts):
        left = rows(start)
        for two in range(one, len(starts)):
            right = left if one == two else rows(starts[two])
            product = np.asarray(_product(left, right), np.float64)
            product = (product + product.T) / 2 if one == two else product
            blocks[one][two], blocks[two][one] = product, product.T
    return np.block(blocks)


@jax.jit
def _product(left: Array, right: Array) -> Array:
    one, two = (rows.reshape(-1, rows.shape[-1]) for rows in (left, right))
    return jnp.matmul(one, two.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnums=1)
def _own(rows: Array, entries: Entries) -> Array:
    if entries == "diagonal":
        return jnp.sum(rows**2, axis=-1).reshape(-1)
    return jnp.matmul(rows, jnp.swapaxes(rows, 1, 2), precision=jax.lax.Precision.HIGHEST)
