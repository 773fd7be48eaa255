"""The supernets that one-shot methods train, all as the same thing: a function of images and a flat vector of masks.

A supernet has G groups of weights, group g with C_g masks, M = sum C_g of them. For the cell of NAS-Bench-201 a group
is one operation of one edge with one mask, its gate, shared by all cells; for the networks of the paper a group is one
convolution (or one source of a dense connection) with one mask for each input channel. Masks lie side by side in the
order of the groups. `SUPERNETS` names them with the function that builds each.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array
from jax.typing import ArrayLike

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.training import Batch, cross_entropy, percent_right
from jnas.nets import networks
from jnas.nets.candidates import OPERATIONS
from jnas.nets.masked.densenet import DenseNet
from jnas.nets.masked.enas import EnasNetwork
from jnas.nets.masked.four_kernel_resnet import FourKernelResNet
from jnas.nets.masked.shake_shake import ShakeShake
from jnas.nets.modules import PER_CHANNEL, Build, initial_parameters, initial_statistics, statistics_of_batch
from jnas.nets.sizes import Macro, parameters
from jnas.nets.stacks import weighted
from jnas.spaces import darts, nasbench201
from jnas.spaces.base import Space
from jnas.spaces.masks import masks as masks_space
from jnas.types import Info

# (key, images as they are stored) -> standardised images, shifted and mirrored where that keeps their labels true.
Prepare: TypeAlias = Callable[[Array, Array], Array]


# Compared by identity, so that a compiled program belongs to a supernet.
@dataclass(frozen=True, eq=False)
class Supernet:
    """A network whose parts can be masked.

    | field | meaning |
    |---|---|
    | `name` | its key in `SUPERNETS` |
    | `groups` | a name for each of the G groups |
    | `sizes` | C_g, the masks of each group |
    | `weights_of_mask` | int[M], the weights that each mask keeps |
    | `image` | (H, W, C) of an image |
    | `network` | `build -> Flax module`, called as `inputs` says |
    | `inputs` | `(masks [M] or [N, M], images) -> (collections, arguments)` for `network.apply` |
    | `kernels` | for each group the paths of its weights, each with the part of the array that is the group's |
    | `space` | the space of its architectures; masks are the gates of all operations but the first, which is nothing |
    | `choices` | whether an architecture, int32[.], does in place of masks, and its operations run alone |
    """

    name: str
    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    weights_of_mask: np.ndarray
    image: tuple[int, int, int]
    network: Callable[[Build], nn.Module]
    inputs: Callable[[Array, Array], tuple[dict[str, Any], tuple[Any, ...]]]
    kernels: tuple[tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...], ...]
    space: Space
    choices: bool = False

    @property
    def masks(self) -> int:
        """M."""
        return sum(self.sizes)

    def masks_of(self, architectures: ArrayLike) -> Array:
        """int32[..., D] -> float32[..., M]."""
        return masks_of_gates(self.space.gates(architectures))

    @cached_property
    def parameters(self) -> int:
        """Number of parameters of the whole supernet."""
        return parameters(jax.eval_shape(self.init, jax.random.key(0))[0])

    def parameters_of(self, architectures: ArrayLike) -> np.ndarray:
        """Parameters that architectures int32[B, D] keep: int[B]."""
        kept = np.asarray(self.masks_of(jnp.asarray(architectures))) > 0
        return np.asarray(self.fixed + kept @ self.weights_of_mask)

    @property
    def fixed(self) -> int:
        """Parameters that no mask drops."""
        return self.parameters - int(self.weights_of_mask.sum())

    def init(self, key: Array) -> tuple[Any, Any]:
        """(params, batch_stats)"""
        network = self.network(Build())
        _, arguments = self.inputs(jnp.ones(self.masks), jnp.zeros((1, *self.image)))
        return initial_parameters(network, key, *arguments), initial_statistics(network, *arguments)

    def train(self, params: Any, batch_stats: Any, masks: Array, images: Array) -> tuple[Array, Any]:
        """Logits [N, O] normalised by the batch, and the running statistics moved towards it."""
        logits, updated = self._apply(Build(), params, batch_stats, masks, images, mutable=["batch_stats"])
        return logits, updated["batch_stats"]

    def evaluate(self, params: Any, batch_stats: Any, masks: Array, images: Array) -> Array:
        """Logits [N, O] normalised by the statistics given."""
        return self._apply(Build(statistics="running"), params, batch_stats, masks, images)

    def _apply(
        self, build: Build, params: Any, batch_stats: Any, masks: Array, images: Array, **mutable: Any
    ) -> Any:
        collections, arguments = self.inputs(masks, images)
        variables = {"params": params, "batch_stats": batch_stats, **collections}
        return self.network(build).apply(variables, *arguments, **mutable)

    def statistics(self, params: Any, masks: Array, images: Array) -> Any:
        """The statistics of a batch of images under masks, in the form of `batch_stats`."""
        collections, arguments = self.inputs(masks, images)
        return statistics_of_batch(self.network(Build()), {"params": params, **collections}, *arguments)

    def squared_norms(self, params: Any) -> Array:
        """||W_g||^2 of each group: float[G]; 0 for what has no weights."""
        flat = traverse_util.flatten_dict(dict(params))
        return jnp.stack(
            [
                sum((jnp.sum(flat[path][part] ** 2) for path, part in kernels), start=jnp.float32(0))
                for kernels in self.kernels
            ]
        )


def objective(
    supernet: Supernet, params: Any, batch_stats: Any, masks: Array, batch: Batch, regulariser: Array
) -> tuple[Array, tuple[Any, Info]]:
    """The loss of a step, with the running statistics and the record that it leaves.

    The loss is the mean cross-entropy of a batch plus `regulariser`. masks: [M] or [N, M]; batch: (standardised
    images float[N, H, W, C], labels int[N]).
    """
    images, labels = batch
    logits, batch_stats = supernet.train(params, batch_stats, masks, images)
    likelihood = cross_entropy(logits, labels)
    accuracy = percent_right(logits, labels)
    info = {"cross_entropy": likelihood, "regulariser": regulariser, "accuracy": accuracy}
    return likelihood + regulariser, (batch_stats, info)


def masks_of_gates(gates: Array) -> Array:
    """float[..., cells, E, K] -> float[..., M], without those of the first operation, which is nothing."""
    some = gates[..., 1:]
    return some.reshape(*some.shape[:-3], math.prod(some.shape[-3:]))


def gates_of_masks(space: Space, masks: Array) -> Array:
    """float or bool [..., M] -> [..., cells, E, K]; the first operation, which is nothing, has the gate 0."""
    shape = (*masks.shape[:-1], space.cells, len(space.edges), len(space.operations) - 1)
    return jnp.pad(masks.reshape(shape), [(0, 0)] * (len(shape) - 1) + [(1, 0)])


def of_space(
    space: Space, image: tuple[int, int, int], classes: int, width: int, depth: int, stages: int = 3
) -> Supernet:
    """The cells of a space, a gate for each operation of each edge: channels, cells of a stage."""
    networks.kind_of(space).check_images(image, stages)
    sizes = Macro(width, depth, stages, classes=classes)

    def network(build: Build) -> Any:
        return networks.build(space, sizes, build, search=True)

    built = network(Build())
    # An operation that gives zero weighs nothing: an edge without any operation is what it stands for.
    gates = [
        (kind, edge, k)
        for kind, graph in enumerate(space.graphs)
        for edge, allowed in enumerate(graph.choices)
        for k in allowed
        if OPERATIONS[space.operations[k]].module is not None
    ]
    places = tuple(np.array(column) for column in zip(*gates, strict=True))
    shape = (space.cells, len(space.edges), len(space.operations))

    def inputs(masks: Array, images: Array) -> tuple[dict[str, Any], tuple[Any, ...]]:
        if jnp.issubdtype(masks.dtype, jnp.integer):
            return {}, (images, None, space.choices(masks))
        empty = jnp.zeros((*masks.shape[:-1], *shape), masks.dtype)
        return {}, (images, empty.at[(..., *places)].set(masks))

    variables = jax.eval_shape(built.init, jax.random.key(0), jnp.zeros((1, *image)), jnp.zeros(shape))
    leaves = traverse_util.flatten_dict(dict(variables["params"]))
    names, kernels, weights = [], [], []
    for kind, edge, k in gates:
        operation, (source, target) = space.operations[k], space.edges[edge]
        label = f"{space.cell_names[kind].split()[0]} " if space.cells > 1 else ""
        names.append(f"{label}{operation} {source}→{target}")
        rows = weighted(space.graphs[kind]).get(operation, ())
        inside = [
            (path, leaf)
            for path, leaf in leaves.items()
            if built.cell_kinds().get(path[0]) == kind and path[1] == operation and edge in rows
        ]
        part = (*[slice(None)] * built.edge_axis, rows.index(edge) if edge in rows else 0)
        kernels.append(tuple((path, part) for path, _ in inside if path[-1] not in PER_CHANNEL))
        # With what normalises it.
        weights.append(sum(leaf.size // len(rows) for _, leaf in inside))
    return Supernet(
        space.name, tuple(names), (1,) * len(gates), np.array(weights), image, network, inputs,
        tuple(kernels), space, choices=space.coding is None,
    )  # fmt: skip


def nasbench201_supernet(
    image: tuple[int, int, int], classes: int, width: int, depth: int, stages: int = 3
) -> Supernet:
    """The cell of NAS-Bench-201, a gate for each operation: channels, cells of a stage (16 and 5 in its table)."""
    return of_space(nasbench201.SPACE, image, classes, width, depth, stages)


def _darts(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """The cells of DARTS, a gate for each operation: channels, normal cells of a stage (16 and 2 in its search)."""
    return of_space(darts.SPACE, image, classes, width, depth)


def _masked(
    name: str, side: int, network: Callable[[Build], nn.Module], image: tuple[int, int, int]
) -> Supernet:
    """A network with masked convolutions (`jnas.nets.masked.layers`), which halves images of at least side x side."""
    if min(image[:2]) < side:
        raise InputError(
            f"images of {image[0]}x{image[1]} do not fit {name}, which halves them: give at least {side}x{side}"
        )
    variables = jax.eval_shape(network(Build()).init, jax.random.key(0), jnp.zeros((1, *image)))
    shapes = traverse_util.flatten_dict(dict(variables["params"]))
    tree = jax.tree.structure(variables["masks"])
    names, sizes, kernels, weights = [], [], [], []
    # The masks of a convolution are a tuple, one array for each of its sources.
    for (*module, _), groups in jax.tree_util.tree_leaves_with_path(
        variables["masks"], is_leaf=lambda entry: isinstance(entry, tuple)
    ):
        path = tuple(entry.key for entry in module)
        label, kernel = "/".join(name for name in path if name != "convolution"), (*path, "kernel")
        shape, start = shapes[kernel].shape, 0
        for number, group in enumerate(groups):
            names.append(f"{label} {number}" if number else label)
            sizes.append(group.size)
            # The input channels are the last axis but one.
            kernels.append(((kernel, (..., slice(start, start + group.size), slice(None))),))
            weights += [math.prod(shape) // shape[-2]] * group.size
            start += group.size
    places = np.cumsum(sizes)[:-1]

    def inputs(masks: Array, images: Array) -> tuple[dict[str, Any], tuple[Any, ...]]:
        return {"masks": jax.tree.unflatten(tree, jnp.split(masks, places, axis=-1))}, (images,)

    return Supernet(
        name, tuple(names), tuple(sizes), np.array(weights), image, network, inputs, tuple(kernels),
        masks_space(name, sum(sizes)),
    )  # fmt: skip


# Widths for a configuration that gives none; 8 for a space of one's own.
SMALL_WIDTHS: dict[str, int] = defaultdict(
    lambda: 8, darts=4, shake_shake=1, enas=2, four_kernel_resnet=2, densenet=2
)


def _shake_shake(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """Shake-Shake-26 (M: width 6, MI: width 10; depth 4): channels 16 x width, blocks of a stage."""
    return _masked("shake_shake", 4, lambda build: ShakeShake(width, classes, build, depth), image)


def _enas(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """ENAS's cell (E: width 9, EI: width 18; depth 5): a quarter of its filters, a third of its layers."""
    return _masked("enas", 4, lambda build: EnasNetwork(4 * width, classes, build, 3 * depth), image)


def _four_kernel_resnet(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """ResNet-50 with four kernels (width 16, depth 3): a quarter of its channels, blocks of a stage."""
    blocks = (depth, depth + 1, 2 * depth, depth)
    return _masked(
        "four_kernel_resnet", 8, lambda build: FourKernelResNet(classes, build, 4 * width, blocks), image
    )


def _densenet(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """DenseNet-121, a mask for each source (width 8, depth 6): a quarter of its growth, layers of a block."""
    blocks = (depth, 2 * depth, 4 * depth, round(8 * depth / 3))
    return _masked("densenet", 8, lambda build: DenseNet(classes, build, 4 * width, blocks), image)


class _Supernets(dict[str, Callable[[tuple[int, int, int], int, int, int], Supernet]]):
    """The supernets named here, and one for every other space."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in spaces.SPACES

    def __missing__(self, name: str) -> Callable[..., Supernet]:
        return partial(of_space, spaces.get(name))


# (image [H, W, C], classes, width, depth) -> Supernet. The line of each says what width and depth are, and the paper's.
SUPERNETS = _Supernets(
    nasbench201=nasbench201_supernet,
    darts=_darts,
    shake_shake=_shake_shake,
    enas=_enas,
    four_kernel_resnet=_four_kernel_resnet,
    densenet=_densenet,
)
