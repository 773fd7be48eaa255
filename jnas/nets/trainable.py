"""The network of one architecture, ready to be trained or used: plain functions of parameters and images.

`of_architecture` builds it from the space's own text: a string of NAS-Bench-201, any genotype of the DARTS form.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas import spaces
from jnas.errors import InputError
from jnas.nets import macro, networks, own, two_inputs
from jnas.nets.modules import Build, initial_parameters, initial_statistics
from jnas.nets.sizes import Macro
from jnas.spaces import genotype

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
    known = spaces.get(space)
    if own.is_own(known):
        if auxiliary:
            raise InputError(f"networks of {known.name} have no auxiliary head: set recipe.auxiliary 0")
        return _of_own(own.build(known, known.choices(known.from_string(text)), tuple(image), classes), image)
    kind = networks.kind_of(known)
    kind.check_images(tuple(image), STAGES)
    sizes = Macro(channels, cells_per_stage, STAGES, classes=classes)
    # The cells of a stage of residual networks are one loop.
    loops = known.network != "two_inputs"
    network = networks.build(known, sizes, Build(loops=loops))
    if known.network == "two_inputs":
        if auxiliary and not two_inputs.auxiliary_fits(image):
            raise InputError(
                f"the auxiliary head does not fit images of {image[0]}x{image[1]}: it reads 8x8 or 7x7 after two "
                "halvings (32x32, 224x224); set recipe.auxiliary 0"
            )
        trained = network.clone(graphs=two_inputs.graphs_of(genotype.parse(text)), auxiliary=auxiliary)
    else:
        trained = macro.restricted(network, np.asarray(known.choices(known.from_string(text))))
    evaluated = network.clone(graphs=trained.graphs, build=Build(statistics="running", loops=loops))

    def train(params, batch_stats, images, drop, key):
        paths = {"drop": drop, "key": key} if known.network == "two_inputs" else {}
        logits, updated = trained.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            mutable=["batch_stats", "auxiliary"],
            **paths,
        )
        extra = updated["auxiliary"]["logits"][0] if "auxiliary" in updated else None
        return logits, extra, updated["batch_stats"]

    def evaluate(params, batch_stats, images):
        return evaluated.apply({"params": params, "batch_stats": batch_stats}, images)

    def init(key):
        one = jnp.zeros((1, *image))
        return initial_parameters(trained, key, one), initial_statistics(trained, one)

    return Trainable(init, train, evaluate)


def _of_own(network: own.Own, image: tuple[int, ...]) -> Trainable:
    def train(params, rest, images, drop, key):
        logits, rest = network.train(params, rest, images, key)
        return logits, None, rest

    return Trainable(lambda key: network.init(key, jnp.zeros((1, *image))), train, network.evaluate)


def shapes(network: Trainable) -> tuple[Any, Any]:
    """(params, batch_stats) as shapes, without computing anything."""
    return jax.eval_shape(network.init, jax.random.key(0))
