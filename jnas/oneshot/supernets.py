"""The supernets that one-shot methods train, all as the same thing: a function of images and a flat vector of masks.

A supernet has G groups of weights, group g with C_g masks, M = sum C_g of them. For the cell of NAS-Bench-201 a group
is one operation of one edge with one mask, its gate, shared by all cells; for the networks of the paper a group is one
convolution (or one source of a dense connection) with one mask for each input channel. Masks lie side by side in the
order of the groups. `SUPERNETS` names them with the function that builds each.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array

from jnas.errors import InputError
from jnas.nets import darts_cost
from jnas.nets.densenet import DenseNet
from jnas.nets.enas import EnasNetwork
from jnas.nets.families import FAMILIES
from jnas.nets.four_kernel_resnet import FourKernelResNet
from jnas.nets.modules import Build, initial_parameters, initial_statistics, statistics_of_batch
from jnas.nets.nasbench201 import Network, check_images
from jnas.nets.shake_shake import ShakeShake
from jnas.spaces import darts, nasbench201
from jnas.spaces.base import Space
from jnas.spaces.genotype import INPUTS


@dataclass(frozen=True)
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
    | `space` | the space whose gates the masks are, where they are gates of operations |
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
    space: Space | None = None
    choices: bool = False

    @property
    def masks(self) -> int:
        """M."""
        return sum(self.sizes)

    @cached_property
    def parameters(self) -> int:
        """Of the whole supernet."""
        _, arguments = self.inputs(jnp.ones(self.masks), jnp.zeros((1, *self.image)))
        shapes = jax.eval_shape(self.network(Build()).init, jax.random.key(0), *arguments)["params"]
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

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
        collections, arguments = self.inputs(masks, images)
        variables = {"params": params, "batch_stats": batch_stats, **collections}
        logits, updated = self.network(Build()).apply(variables, *arguments, mutable=["batch_stats"])
        return logits, updated["batch_stats"]

    def evaluate(self, params: Any, batch_stats: Any, masks: Array, images: Array) -> Array:
        """Logits [N, O] normalised by the statistics given."""
        collections, arguments = self.inputs(masks, images)
        variables = {"params": params, "batch_stats": batch_stats, **collections}
        logits: Any = self.network(Build(statistics="running")).apply(variables, *arguments)
        return logits

    def statistics(self, params: Any, masks: Array, images: Array) -> Any:
        """The statistics of a batch of images under masks, in the form of `batch_stats`."""
        network = self.network(Build())
        collections, arguments = self.inputs(masks, images)
        return statistics_of_batch(network, {"params": params, **collections}, *arguments)

    def squared_norms(self, params: Any) -> Array:
        """||W_g||^2 of each group: float[G]; 0 for what has no weights."""
        flat = traverse_util.flatten_dict(dict(params))
        return jnp.stack(
            [
                sum((jnp.sum(flat[path][part] ** 2) for path, part in kernels), start=jnp.float32(0))
                for kernels in self.kernels
            ]
        )


def nasbench201_supernet(
    image: tuple[int, int, int], classes: int, width: int, depth: int, stages: int = 3
) -> Supernet:
    """The cell of NAS-Bench-201, a gate for each operation: channels, cells of a stage (16 and 5 in its table)."""
    space = nasbench201.SPACE
    check_images(image, stages)
    # `none` weighs nothing: an edge without any operation is what it stands for.
    gates = [
        (edge, operation)
        for edge in range(len(space.edges))
        for operation, name in enumerate(space.operations)
        if name != "none"
    ]
    edges, operations = (np.array(column) for column in zip(*gates, strict=True))

    def network(build: Build) -> nn.Module:
        return Network(width, classes, build, depth, stages)

    def inputs(masks: Array, images: Array) -> tuple[dict[str, Any], tuple[Any, ...]]:
        if jnp.issubdtype(masks.dtype, jnp.integer):
            return {}, (images, masks[None])
        shape = (*masks.shape[:-1], 1, len(space.edges), len(space.operations))
        return {}, (images, jnp.zeros(shape, masks.dtype).at[..., 0, edges, operations].set(masks))

    shapes = _shapes(network, jnp.zeros((1, *image)), jnp.zeros((1, len(space.edges), len(space.operations))))
    names, kernels = [], []
    for edge, operation in gates:
        source, target = space.edges[edge]
        module = f"edge_{source}_{target}_{space.operations[operation]}"
        names.append(f"{space.operations[operation]} {source}→{target}")
        kernels.append(tuple((path, (...,)) for path in shapes if module in path and path[-1] == "kernel"))
    # With what normalises it: all below the module that holds the kernel.
    weights = [
        sum(
            math.prod(shape)
            for path, shape in shapes.items()
            if any(path[: len(own) - 1] == own[:-1] for own, _ in group)
        )
        for group in kernels
    ]
    return Supernet(
        "nasbench201", tuple(names), (1,) * len(gates), np.array(weights), image, network, inputs,
        tuple(kernels), space, choices=True,
    )  # fmt: skip


def _darts(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """The cells of DARTS, a gate for each operation: channels, normal cells of a stage (16 and 2 in its search)."""
    space, family = darts.SPACE, FAMILIES["darts"]
    family.check_images(image, 3)

    def network(build: Build) -> nn.Module:
        return family.network(width, classes, build, depth, 3, True)

    cells, edges, operations = space.cells, len(space.edges), len(space.operations)

    def inputs(masks: Array, images: Array) -> tuple[dict[str, Any], tuple[Any, ...]]:
        shape = (*masks.shape[:-1], cells, edges, operations - 1)
        # `none` weighs nothing.
        return {}, (images, jnp.pad(masks.reshape(shape), [(0, 0)] * (len(shape) - 1) + [(1, 0)]))

    shapes = _shapes(network, jnp.zeros((1, *image)), jnp.zeros((cells, edges, operations)))
    kinds = darts_cost.reductions(depth)
    names, kernels, weights = [], [], []
    for cell, label in enumerate(space.cell_names):
        modules = [f"cell_{index}" for index, reduction in enumerate(kinds) if reduction == bool(cell)]
        for source, target in space.edges:
            for name in space.operations[1:]:
                own = [
                    (path, part)
                    for path, shape in shapes.items()
                    if path[0] in modules
                    for part in _part_of_edge(path, shape, source, target, name)
                ]
                names.append(f"{label.split()[0]} {name} {source}→{target}")
                # Weights of convolutions shrink; the scales and offsets behind them are counted alone.
                kernels.append(
                    tuple((path, part) for path, part in own if path[-1] not in ("scale", "offset"))
                )
                weights.append(sum(int(np.prod(np.empty(shapes[path])[part].shape)) for path, part in own))
    return Supernet(
        "darts", tuple(names), (1,) * len(names), np.array(weights), image, network, inputs, tuple(kernels),
        space,
    )  # fmt: skip


def _part_of_edge(
    path: tuple[str, ...], shape: tuple[int, ...], source: int, target: int, operation: str
) -> list[tuple[Any, ...]]:
    """The part of a parameter of a DARTS cell that belongs to an operation of an edge; empty if none does."""
    if len(path) < 3 or path[1] != f"from_{source}":
        return []
    label = {"skip_plain": "skip_connect", "skip_shifted": "skip_connect"}.get(path[2], path[2])
    if operation not in label:
        return []
    first = max(source + 1, INPUTS)
    targets, place = INPUTS + darts.NODES - first, target - first
    if path[2].endswith("depthwise") or path[2].startswith("norms"):
        width = shape[-1] // targets
        return [(..., slice(place * width, (place + 1) * width))]
    return [(place,)]


def _masked(name: str, network: Callable[[Build], nn.Module], image: tuple[int, int, int]) -> Supernet:
    """A network with masked convolutions (`jnas.nets.masked`)."""
    variables = jax.eval_shape(network(Build()).init, jax.random.key(0), jnp.zeros((1, *image)))
    shapes = _flat_shapes(variables["params"])
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables["masks"])
    names, sizes, kernels, weights = [], [], [], []
    for path, leaf in leaves:
        *module, _ = (entry.key for entry in path if hasattr(entry, "key"))
        number = path[-1].idx
        before = sum(
            size.shape[0] for other, size in leaves if other[:-1] == path[:-1] and other[-1].idx < number
        )
        # The input channels are the last axis but one.
        part = (..., slice(before, before + leaf.shape[0]), slice(None))
        kernel = (*module, "kernel")
        label = "/".join(name for name in module if name != "convolution")
        names.append(label if number == 0 else f"{label} {number}")
        sizes.append(leaf.shape[0])
        kernels.append(((kernel, part),))
        shape = shapes[kernel]
        weights += [math.prod(shape) // shape[-2]] * leaf.shape[0]
    places = np.cumsum(sizes)[:-1]

    def inputs(masks: Array, images: Array) -> tuple[dict[str, Any], tuple[Any, ...]]:
        return {"masks": jax.tree.unflatten(tree, jnp.split(masks, places, axis=-1))}, (images,)

    return Supernet(
        name, tuple(names), tuple(sizes), np.array(weights), image, network, inputs, tuple(kernels)
    )


def _shapes(
    network: Callable[[Build], nn.Module], *arguments: Array
) -> dict[tuple[str, ...], tuple[int, ...]]:
    return _flat_shapes(jax.eval_shape(network(Build()).init, jax.random.key(0), *arguments)["params"])


def _flat_shapes(params: Mapping[str, Any]) -> dict[tuple[str, ...], tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(dict(params)).items()}


# The smallest width that tells, for a configuration that does not say.
SMALL_WIDTHS = {
    "nasbench201": 8,
    "darts": 4,
    "shake_shake": 1,
    "enas": 2,
    "four_kernel_resnet": 2,
    "densenet": 2,
}
# Images smaller than this go through the networks of ImageNet without the strides of their stems.
LARGE_IMAGE = 64


def _require(name: str, image: tuple[int, int, int], side: int) -> None:
    if min(image[:2]) < side:
        raise InputError(
            f"images of {image[0]}x{image[1]} do not fit {name}, which halves them: give at least {side}x{side}"
        )


def _shake_shake(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """Shake-Shake-26 (M: width 6, MI: width 10; depth 4): channels 16 x width, blocks of a stage."""
    _require("shake_shake", image, 4)
    return _masked("shake_shake", lambda build: ShakeShake(width, classes, build, depth), image)


def _enas(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """ENAS's cell (E: width 9, EI: width 18; depth 5): a quarter of its filters, a third of its layers."""
    _require("enas", image, 4)
    return _masked("enas", lambda build: EnasNetwork(4 * width, classes, build, 3 * depth), image)


def _four_kernel_resnet(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """ResNet-50 with four kernels (width 16, depth 3): a quarter of its channels, blocks of a stage."""
    _require("four_kernel_resnet", image, 8)
    blocks = (depth, depth + 1, 2 * depth, depth)
    small = min(image[:2]) < LARGE_IMAGE
    return _masked(
        "four_kernel_resnet", lambda build: FourKernelResNet(classes, build, 4 * width, blocks, small), image
    )


def _densenet(image: tuple[int, int, int], classes: int, width: int, depth: int) -> Supernet:
    """DenseNet-121, a mask for each source (width 8, depth 6): a quarter of its growth, layers of a block."""
    _require("densenet", image, 8)
    blocks = (depth, 2 * depth, 4 * depth, round(8 * depth / 3))
    small = min(image[:2]) < LARGE_IMAGE
    return _masked("densenet", lambda build: DenseNet(classes, build, 4 * width, blocks, small), image)


# (image [H, W, C], classes, width, depth) -> Supernet. The line of each says what width and depth are, and the paper's.
SUPERNETS: dict[str, Callable[[tuple[int, int, int], int, int, int], Supernet]] = {
    "nasbench201": nasbench201_supernet,
    "darts": _darts,
    "shake_shake": _shake_shake,
    "enas": _enas,
    "four_kernel_resnet": _four_kernel_resnet,
    "densenet": _densenet,
}
