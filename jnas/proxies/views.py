"""The networks that a `Probe` can look at: one architecture of a supernet, and any function."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax import Array

from jnas.nets.modules import PER_CHANNEL, Build, initial_parameters
from jnas.programs.function import Function, trace
from jnas.programs.tapped import Taps
from jnas.proxies.probe import Seen, View
from jnas.types import Params


def of_supernet(network: Callable[[Build], nn.Module], choices: Array, image: Array) -> View:
    """The view of one architecture of a supernet.

    network: a build to the supernet. choices: int32[cells, E], the operation of each edge. image: float32[1, H, W, C],
    that shapes are read off.
    """

    def forward(
        params: Params, images: Array, statistics: str = "train", forwards: bool = False, **collections: Any
    ) -> Any:
        built = network(Build(statistics=statistics, loops=True, forwards=forwards))
        mutable = ["patterns", "readers", "features", "deviations", "scales"]
        return built.apply({"params": params, **collections}, images, choices, mutable=mutable)

    def look(params: Params, images: Array) -> Seen:
        logits, sown = forward(params, images)
        signs = traverse_util.flatten_dict(sown["patterns"])
        readers = traverse_util.flatten_dict(sown["readers"])
        patterns = [
            (values.reshape(len(images), -1), jnp.asarray(readers[path][0] if path in readers else 1))
            for path, (values,) in signs.items()
        ]
        features = sown["features"]
        deviation = sum(jax.tree.leaves(sown["deviations"]), jnp.zeros(()))
        return Seen(logits, patterns, features["pooled"][0], features["last"][0], deviation)

    def unnormalised(params: Params, images: Array) -> tuple[Array, Array]:
        logits, sown = forward(params, images, statistics="none")
        return logits, sum(jax.tree.leaves(sown["scales"]), jnp.zeros(()))

    def blocks(params: Params, images: Array, shifts: Mapping[str, Array]) -> dict[str, Array]:
        collections: dict[str, Any] = {"boundaries": shifts} if shifts else {}
        features = forward(params, images, **collections)[1]["features"]
        names = sorted((name for name in features if name.startswith("after_")), key=_position)
        return {name: features[name][0] for name in names}

    def redrawn(key: Array, params: Params) -> Params:
        drawn = initial_parameters(network(Build(initialisation="kaiming_normal")), key, image, choices)
        return jax.tree_util.tree_map_with_path(
            # Kaiming's variance is 2 / fan-in.
            lambda path, w: (
                w if path[-1].key in PER_CHANNEL else w * math.sqrt(math.prod(w.shape[-4:-1]) / 2)
            ),
            drawn,
        )

    return View(
        look,
        lambda params, images, gates: forward(params, images, channel_gates=gates)[0],
        lambda params, images: forward(params, images, forwards=True)[0],
        _channel_gates,
        unnormalised,
        blocks,
        # Weights of layers stand side by side, their last four axes, or of the classifier, two.
        lambda tree: {
            path: value.reshape(math.prod(value.shape[:-4]), -1) for path, value in _kernels(tree).items()
        },
        redrawn,
    )


def of_function(function: Function) -> View:
    """The view of a traced function. Custom derivatives stay where nothing is changed in the run."""

    def look(params: Any, images: Array) -> Seen:
        seen = function.run(params, images)
        deviations = list(seen.places.deviations.values())
        # A network without normalisation divides by nothing; one that normalises each image does.
        total = (
            None
            if function.normalises and not deviations
            else jnp.sum(jnp.stack([jnp.zeros(()), *deviations]))
        )
        return Seen(seen.logits, list(seen.places.units.values()), seen.features, seen.last, total)

    def logits(params: Any, images: Array, gates: Any) -> Array:
        if not gates:
            return function.apply(params, images)
        return function.run(params, images, Taps(gates=gates)).logits

    def unnormalised(params: Any, images: Array) -> tuple[Array, Array]:
        plain = function.without_normal(params)
        # A program is read for two images or more.
        batch = jnp.concatenate([images] * 2) if len(images) == 1 else images
        few = trace(function.apply, params, batch)
        return few.run(plain, batch, Taps(plain=True)).logits[: len(images)], jnp.zeros(())

    def redrawn(key: Array, params: Any) -> Any:
        def weight(place: int, leaf: Array) -> Array:
            return jax.random.normal(jax.random.fold_in(key, place), leaf.shape, leaf.dtype)

        return function.without_normal(params, weight)

    return View(
        look,
        logits,
        function.apply,
        lambda params, images: function.gates(),
        unnormalised,
        lambda params, images, shifts: function.run(params, images, Taps(shifts=dict(shifts))).places.blocks,
        function.weights,
        redrawn,
    )


def _position(name: str) -> tuple[int, ...]:
    """The place in the network of a block whose output was sown under `name`: the stem first, then by number."""
    return tuple(int(number) for number in name.split("_")[2:]) or (-1,)


def _kernels(params: Params) -> dict[tuple[str, ...], Array]:
    """The weights of convolutions and of the classifier, by path; no scales, offsets or biases."""
    flat = traverse_util.flatten_dict(dict(params))
    return {path: value for path, value in flat.items() if path[-1] not in PER_CHANNEL}


def _channel_gates(params: Params, images: int) -> dict[str, Any]:
    """Ones [..., N, channels] for the output of every convolution, in the place of its weights."""
    gates = {
        path: jnp.ones((*value.shape[:-4], images, value.shape[-1]), value.dtype)
        for path, value in _kernels(params).items()
        if value.ndim > 2
    }
    return traverse_util.unflatten_dict(gates)
