"""The network of one architecture, ready to be trained or used: plain functions of parameters and images.

`of_architecture` builds it from the space's own text: a string of NAS-Bench-201, any genotype of the DARTS form.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError, unknown_name
from jnas.nets import darts, darts_macro, nasbench201
from jnas.nets.modules import Build, initial_parameters, initial_statistics
from jnas.spaces import genotype
from jnas.spaces.nasbench201 import from_string

STAGES = 3


class Trainable(NamedTuple):
    """init: key -> (params, batch_stats). train: (params, batch_stats, images, drop, key) -> (logits [N, O], those
    of the auxiliary head or None, batch_stats), normalised by the batch, with paths dropped with probability `drop`,
    none where key is None.
    evaluate: (params, batch_stats, images) -> logits [N, O], normalised by the running statistics.

    images: float32[N, H, W, C], standardised.
    """

    init: Callable[[Array], tuple[Any, Any]]
    train: Callable[[Any, Any, Array, Array | float, Array | None], tuple[Array, Array | None, Any]]
    evaluate: Callable[[Any, Any, Array], Array]


# Those whose single networks are built here.
SPACES = ("nasbench201", "darts")


def of_architecture(
    space: str,
    text: str,
    image: tuple[int, ...],
    classes: int,
    channels: int,
    cells_per_stage: int,
    auxiliary: bool = False,
) -> Trainable:
    """The network of the architecture `text` for images of shape `image` [H, W, C].

    channels, cells_per_stage: 16 and 5 in NAS-Bench-201's tables; 36 and 6 (20 cells) for CIFAR-10, 48 and 4 (14
    cells) for ImageNet in the DARTS space. Raises `InputError` for another space, text that is no architecture, and
    images that do not fit.
    """
    if space == "nasbench201":
        cell = tuple(from_string(text).tolist())
        nasbench201.check_images(image, STAGES)

        def plain(build: Build) -> nasbench201.Network:
            return nasbench201.Network(channels, classes, build, cells_per_stage, STAGES, architecture=cell)

        trained: Any = plain(Build())
        evaluated: Any = plain(Build(statistics="running"))

        def train(params, batch_stats, images, drop, key):
            logits, updated = trained.apply(
                {"params": params, "batch_stats": batch_stats}, images, mutable=["batch_stats"]
            )
            return logits, None, updated["batch_stats"]

        def evaluate(params, batch_stats, images):
            return evaluated.apply({"params": params, "batch_stats": batch_stats}, images)

    elif space == "darts":
        cells = genotype.parse(text)
        darts_macro.check(cells)
        darts.check_images(image, STAGES - 1)
        if auxiliary and not darts_macro.auxiliary_fits(image):
            raise InputError(
                f"the auxiliary head does not fit images of {image[0]}x{image[1]}: it reads 8x8 or 7x7 after two "
                "halvings (32x32, 224x224); set recipe.auxiliary 0"
            )

        def macro(build: Build) -> darts_macro.Network:
            return darts_macro.Network(cells, channels, classes, build, cells_per_stage, STAGES, auxiliary)

        trained, evaluated = macro(Build()), macro(Build(statistics="running"))

        def train(params, batch_stats, images, drop, key):
            (logits, extra), updated = trained.apply(
                {"params": params, "batch_stats": batch_stats}, images, drop, key, mutable=["batch_stats"]
            )
            return logits, extra, updated["batch_stats"]

        def evaluate(params, batch_stats, images):
            return evaluated.clone(auxiliary=False).apply(
                {"params": params, "batch_stats": batch_stats}, images
            )[0]

    else:
        raise unknown_name("search space", space, SPACES)

    def init(key):
        one = jnp.zeros((1, *image))
        return initial_parameters(trained, key, one), initial_statistics(trained, one)

    return Trainable(init, train, evaluate)


def shapes(network: Trainable) -> tuple[Any, Any]:
    """(params, batch_stats) as shapes, without computing anything."""
    return jax.eval_shape(network.init, jax.random.key(0))
