"""Networks that a space gives for each architecture: Linen modules of any kind.

`Own` runs one as the networks of cells are run: parameters drawn by a key, statistics moved along, logits of images.
"""

import inspect
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from jnas.errors import InputError
from jnas.nets.sizes import Sizes
from jnas.programs import counts
from jnas.programs.inlining import equations
from jnas.spaces.base import Space
from jnas.spaces.layers import Blocks
from jnas.types import Params


def is_own(space: Space) -> bool:
    """True where a space gives a network for each architecture."""
    return callable(space.network)


@dataclass(frozen=True)
class Own:
    """A module and how it is called; `build` makes it from the row of an architecture."""

    module: nn.Module

    @cached_property
    def _takes_train(self) -> bool:
        return "train" in inspect.signature(self.module.__call__).parameters

    def _call(self, train: bool) -> dict[str, Any]:
        return {"train": train} if self._takes_train else {}

    def init(self, key: Array, image: Array) -> tuple[Params, Params]:
        """Parameters and all other collections, from images [N, H, W, C]."""
        variables = dict(self.module.init({"params": key, "dropout": key}, image, **self._call(True)))
        return variables.pop("params", {}), variables

    def train(
        self, params: Params, rest: Params, images: Array, key: Array | None = None
    ) -> tuple[Array, Params]:
        """(logits, other collections), normalised as in training. key: of dropout."""
        rngs = {"dropout": key if key is not None else jax.random.key(0)}
        logits, updated = self.module.apply(
            {"params": params, **rest}, images, mutable=list(rest), rngs=rngs, **self._call(True)
        )
        return logits, {**rest, **updated}

    def evaluate(self, params: Params, rest: Params, images: Array) -> Array:
        """Logits as after training."""
        if not self._takes_train:
            return self.train(params, rest, images)[0]
        logits: Any = self.module.apply({"params": params, **rest}, images, train=False)
        return logits


def build(space: Space, row: Any, image: tuple[int, ...], classes: int) -> Own:
    """The network of the operations int[cells, E] of one architecture, for images [H, W, C].

    Raises `InputError` where it is no Linen module, or gives no logits of so many classes.
    """
    assert callable(space.network)
    choices = np.asarray(row).reshape(-1).tolist()
    module = space.network(choices, classes)
    text = "|".join(space.operations[choice] for choice in choices)
    if not isinstance(module, nn.Module):
        raise InputError(f"the network of {text} is a {type(module).__name__}: return a Linen module")
    own = Own(module)
    images = jax.ShapeDtypeStruct((2, *image), np.float32)
    try:
        shape = jax.eval_shape(lambda x: own.train(*own.init(jax.random.key(0), x), x)[0], images).shape
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the network of {text} fails on images {list(image)}: {type(error).__name__}: {first}"
        ) from error
    if shape != (2, classes):
        raise InputError(
            f"the network of {text} gives {list(shape)} for 2 images of {classes} classes: return logits [N, {classes}]"
        )
    return own


def sizes(space: Space, choices: Any, image: tuple[int, ...], classes: int) -> Sizes:
    """Sizes of each architecture, counted on its program; convs are its convolutions. choices: int[B, cells, E].

    Of a network that is one block after another (`jnas.spaces.layers.Blocks`) each kind of block is counted once.
    """
    rows = [_sizes_of_one(space, row, tuple(image), classes) for row in np.asarray(choices)]
    return Sizes(*np.array(rows, np.int64).reshape(-1, 3).T)


def _sizes_of_one(space: Space, row: Any, image: tuple[int, ...], classes: int) -> tuple[int, int, int]:
    assert callable(space.network)
    module = space.network(np.asarray(row).reshape(-1).tolist(), classes)
    if not isinstance(module, Blocks):
        return _counted(build(space, row, image, classes), (1, *image))[0]
    params, flops, convolutions, shape = 0, 0, 0, (1, *image)
    for block in module.blocks:
        (more_params, more_flops, more_convolutions), shape = _of_block(block, shape)
        params, flops, convolutions = (
            params + more_params,
            flops + more_flops,
            convolutions + more_convolutions,
        )
    return params, flops, convolutions


@lru_cache(maxsize=4096)
def _of_block(block: nn.Module, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    return _counted(Own(block), shape)


def _counted(own: Own, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """(parameters, FLOPs, convolutions) of a module that reads an array of that shape, and its output's shape."""
    x = jax.ShapeDtypeStruct(shape, np.float32)
    params, rest = jax.eval_shape(lambda x: own.init(jax.random.key(0), x), x)
    closed, out = jax.make_jaxpr(own.evaluate, return_shape=True)(params, rest, x)
    convolutions = sum(e.primitive.name == "conv_general_dilated" for e in equations(closed.jaxpr))
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    return (size, counts.of_program(closed.jaxpr).flops, convolutions), out.shape
