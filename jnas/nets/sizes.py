"""Parameters, FLOPs and convolutions of networks, counted on their traced programs.

A network's sizes are those of its skeleton, whose cells carry nothing, and of the operation of each edge of each
cell. Both are counted, not written down: parameters on the shapes that Flax reports, FLOPs on the convolutions and
matrix products of the program of one image.

What counts. Parameters: every weight, scale and bias, also of edges that carry zero. FLOPs: the multiply-adds of
convolutions and of the classifier and the classifier's additions of its bias, paddings included; normalisation, ReLU,
pooling and sums are free. Convolutions: operations that count as such (`Operation.convolution`) in the cells of an
architecture, each kind of cell once.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jnas.nets import candidates
from jnas.nets.modules import Build
from jnas.programs.counts import of_function

# Every convolution is one of XLA's, which counts read.
READ = Build(forwards=True)


@dataclass(frozen=True)
class Macro:
    """The sizes that a network adds to a cell; the defaults are those of NAS-Bench-201's CIFAR-10 table.

    image: (height, width, channels).
    """

    channels: int = 16
    cells: int = 5
    stages: int = 3
    image: tuple[int, int, int] = (32, 32, 3)
    classes: int = 10


class Sizes(NamedTuple):
    """Counts of each architecture: int64[...]."""

    params: np.ndarray
    flops: np.ndarray
    convs: np.ndarray


class Place(NamedTuple):
    """A cell in a network: its kind, its channels, and the image that its inputs bring."""

    kind: int
    channels: int
    height: int
    width: int


def parameters(variables: Any) -> int:
    """Number of parameters of a tree of arrays or shapes, without the auxiliary head, as published counts have it."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return sum(math.prod(leaf.shape) for path, leaf in leaves if path[0].key != "auxiliary_head")


@cache
def of_operation(
    operation: candidates.Operation, channels: int, stride: int, height: int, width: int
) -> tuple[int, int]:
    """(parameters, FLOPs) of a candidate operation that reads an image of that size."""
    module = None if operation.module is None else operation.module(channels, stride, READ)
    return _counted(module, (height, width, channels)) if isinstance(module, nn.Module) else (0, 0)


def _counted(module: nn.Module, image: tuple[int, ...]) -> tuple[int, int]:
    """(parameters, FLOPs) of a module that reads one image [H, W, C]."""
    x = jnp.zeros((1, *image))
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return parameters(params), of_function(lambda p, x: module.apply({"params": p}, x), params, x).flops


def sizes(network: Any, image: tuple[int, ...], choices: Any) -> Sizes:
    """Sizes of the network of each architecture.

    network: a network of `jnas.nets.macro`; image: (H, W, C); choices: int[..., cells, E].
    """
    choices = np.asarray(choices)
    table = [candidates.OPERATIONS[name] for name in network.graphs[0].operations]
    params, flops = map(np.int64, _of_skeleton(network.clone(build=READ), tuple(image)))
    for place in network.places(image):
        graph = network.graphs[place.kind]
        for edge in range(len(graph.edges)):
            stride = graph.stride_of(edge)
            side = (
                (place.height, place.width)
                if graph.edges[edge][0] < graph.inputs
                else (-(-place.height // graph.stride), -(-place.width // graph.stride))
            )
            both = np.array([of_operation(op, place.channels, stride, *side) for op in table], np.int64)
            part = both[choices[..., place.kind, edge]]
            params, flops = params + part[..., 0], flops + part[..., 1]
    convolutions = np.array([operation.convolution for operation in table], np.int64)
    return Sizes(np.asarray(params), np.asarray(flops), convolutions[choices].sum((-2, -1)))


@lru_cache(maxsize=128)
def _of_skeleton(network: Any, image: tuple[int, ...]) -> tuple[int, int]:
    """(parameters, FLOPs) of a network whose cells carry nothing."""
    empty = network.clone(
        graphs=tuple(graph.restricted(((),) * len(graph.edges)) for graph in network.graphs)
    )
    params, flops = _counted(empty, image)
    return params, flops + network.classes
