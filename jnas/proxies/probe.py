"""The object that proxies look at: one architecture of a supernet at initialisation, under jit.

A `Probe` offers what proxies measure from (activation patterns, gradients, input Jacobians, features), each
computed once in a program however many proxies ask for it. It lives inside a trace; its arrays are tracers.

Letters: N images, P parameters, O classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax import Array

from jnas.nets.modules import PER_CHANNEL, Build
from jnas.types import Params


@dataclass(frozen=True)
class Probe:
    """One architecture with everything that a training-free score may depend on.

    key: randomness of the measurement (not of the weights); the same for every architecture, so that they are
      compared under equal conditions.
    network: a build to the supernet.
    params: of the supernet; unused operations have parameters too, with gradients of zero.
    choices: int32[cells, E], the operation of each edge.
    images: float32[batches, N, H, W, C], standardised; labels: int32[batches, N]. All but ZiCo use the first.
    classes: O.
    """

    key: Array
    network: Callable[[Build], nn.Module]
    params: Params
    choices: Array
    images: Array
    labels: Array
    classes: int

    def forward(
        self, params: Params, images: Array, statistics: str = "train", **collections: Mapping[str, Any]
    ) -> tuple[Array, Mapping[str, Any]]:
        """Logits [N, O] and everything that the network sowed; `collections` are passed to it as they are."""
        network = self.network(Build(statistics=statistics, loops=True))
        return network.apply(
            {"params": params, **collections},
            images,
            self.choices,
            mutable=["patterns", "readers", "features", "deviations", "scales"],
        )

    @cached_property
    def _plain(self) -> tuple[Array, Mapping[str, Any]]:
        return self.forward(self.params, self.images[0])

    @cached_property
    def patterns(self) -> list[tuple[Array, Array]]:
        """For each ReLU input that is read: its signs bool[N, M], and how many ReLUs read it."""
        sown = self._plain[1]
        signs = traverse_util.flatten_dict(sown["patterns"])
        readers = traverse_util.flatten_dict(sown["readers"])
        count = self.images.shape[1]
        return [
            (values.reshape(count, -1), jnp.asarray(readers[path][0] if path in readers else 1))
            for path, (values,) in signs.items()
        ]

    @cached_property
    def logits(self) -> Array:
        """Logits of the first batch: float32[N, O]."""
        return self._plain[0]

    @cached_property
    def features(self) -> Array:
        """Features that the classifier reads: float32[N, F]."""
        return self._plain[1]["features"]["pooled"][0]

    def loss(self, params: Params, batch: int, channel_gates: Mapping[str, Any]) -> Array:
        """Mean cross-entropy of a batch."""
        logits, _ = self.forward(params, self.images[batch], channel_gates=channel_gates)
        return jnp.mean(cross_entropy(logits, self.labels[batch]))

    @cached_property
    def loss_gradients(self) -> tuple[dict[tuple[str, ...], Array], dict[tuple[str, ...], Array]]:
        """Gradients of the first batch's loss: by weight [..., O], and by channel [N, channels] of outputs."""
        gates = channel_gates(self.params, self.images.shape[1])
        by_weight, by_channel = jax.grad(self.loss, (0, 2))(self.params, 0, gates)
        return kernels_of(by_weight), traverse_util.flatten_dict(by_channel)

    def weight_gradients(self, batch: int) -> dict[tuple[str, ...], Array]:
        """Gradients of the loss of any batch, by weight."""
        if batch == 0:
            return self.loss_gradients[0]
        return kernels_of(jax.grad(self.loss)(self.params, batch, {}))

    @cached_property
    def jacobian_correlations(self) -> Array:
        """Correlations between images of the gradient of their summed logits by the input: float32[N, N].

        Row n is d sum(logits) / d x_n: with batch statistics this includes what image n does to the others, as
        in the authors' code.
        """
        gradient = jax.grad(lambda x: jnp.sum(self.forward(self.params, x)[0]))(self.images[0])
        rows = gradient.reshape(len(gradient), -1)
        centred = rows - jnp.mean(rows, axis=1, keepdims=True)
        length = jnp.linalg.norm(centred, axis=1, keepdims=True)
        # An image without any gradient correlates with none.
        unit = jnp.where(length > 0, centred / jnp.where(length > 0, length, 1), 0)
        return jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """-log softmax(logits)[label] of each image: [N, O], [N] -> [N]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def kernels_of(params: Params) -> dict[tuple[str, ...], Array]:
    """The weights of convolutions and of the classifier, by path; no scales, offsets or biases."""
    flat = traverse_util.flatten_dict(dict(params))
    return {path: value for path, value in flat.items() if path[-1] not in PER_CHANNEL}


def by_layer(weights: Array) -> Array:
    """Weights of layers side by side, their last four axes, or of the classifier, two: [layers, weights of one]."""
    layers = math.prod(weights.shape[:-4])
    return weights.reshape(layers, -1)


def channel_gates(params: Params, images: int) -> dict[str, Any]:
    """Ones [..., N, channels] for the output of every convolution, in the place of its weights."""
    gates = {
        path: jnp.ones((*value.shape[:-4], images, value.shape[-1]), value.dtype)
        for path, value in kernels_of(params).items()
        if value.ndim > 2
    }
    return traverse_util.unflatten_dict(gates)
