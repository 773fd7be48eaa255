"""The object that proxies look at: one network at initialisation, under jit.

A `Probe` offers what proxies measure from (activation patterns, gradients, input Jacobians, features), each
computed once in a program however many proxies ask for it. It lives inside a trace; its arrays are tracers.
A `View` runs the network: `jnas.proxies.views` has that of one architecture of a supernet and that of any function.

Letters: N images, P parameters, O classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnas.errors import InputError

# Weights by the name of their parameter: [layers, weights of one].
Weights = Mapping[Any, Array]

NO_CLASSIFIER = "the network has no classifier: its logits are not a product of features and weights"


class Seen(NamedTuple):
    """A run of a network that normalises by the batch.

    logits: float32[N, O]. patterns: for each ReLU input, its signs bool[N, M] and how many ReLUs read it.
    features: float32[N, F] that the classifier reads; last: the same before pooling. deviation: float32[], the sum of
    the logarithms of the deviations that normalisations divide by. None: the network has no such thing.
    """

    logits: Array
    patterns: list[tuple[Array, Array]]
    features: Array | None
    last: Array | None
    deviation: Array | None


class View(NamedTuple):
    """Pure functions that run one network.

    look: (parameters, images) -> `Seen`.
    logits: (parameters, images, gates) -> float32[N, O], channels multiplied by gates; {} for none.
    forwards: (parameters, images) -> float32[N, O], to be differentiated forwards.
    gates: (parameters, N) -> ones [..., N, channels] for the output of every convolution.
    unnormalised: (parameters, images) -> (logits without normalisation, logarithm of what they are to be scaled by).
    blocks: (parameters, images, shifts by name) -> outputs of blocks [N, H, W, C] by name, in the network's order.
    weights: tree like the parameters -> the weights of convolutions and of the classifier; no scales or offsets.
    redrawn: (key, parameters) -> parameters whose weights are N(0, 1), scales one and offsets zero.
    """

    look: Callable[[Any, Array], Seen]
    logits: Callable[[Any, Array, Any], Array]
    forwards: Callable[[Any, Array], Array]
    gates: Callable[[Any, int], Any]
    unnormalised: Callable[[Any, Array], tuple[Array, Array]]
    blocks: Callable[[Any, Array, Mapping[str, Array]], dict[str, Array]]
    weights: Callable[[Any], Weights]
    redrawn: Callable[[Array, Any], Any]


@dataclass(frozen=True)
class Probe:
    """One network with everything that a training-free score may depend on.

    key: randomness of the measurement (not of the weights); the same for every architecture, so that they are
      compared under equal conditions.
    view: runs the network.
    params: its parameters; unused operations of a supernet have some too, with gradients of zero.
    images: float32[batches, N, H, W, C], standardised; labels: int32[batches, N]. All but ZiCo use the first.
    classes: O.
    """

    key: Array
    view: View
    params: Any
    images: Array
    labels: Array
    classes: int

    @cached_property
    def _seen(self) -> Seen:
        return self.view.look(self.params, self.images[0])

    @property
    def logits(self) -> Array:
        """Logits of the first batch: float32[N, O]."""
        return self._seen.logits

    @property
    def patterns(self) -> list[tuple[Array, Array]]:
        """For each ReLU input that is read: its signs bool[N, M], and how many ReLUs read it."""
        if not self._seen.patterns:
            raise InputError("the network has no ReLU, nor its like, whose input has an axis of images")
        return self._seen.patterns

    @property
    def features(self) -> Array:
        """Features that the classifier reads: float32[N, F]."""
        if self._seen.features is None:
            raise InputError(NO_CLASSIFIER)
        return self._seen.features

    def weights(self, tree: Any) -> Weights:
        """The weights of parameters, or of their gradients, by layer."""
        return self.view.weights(tree)

    def loss(self, params: Any, batch: int, gates: Any) -> Array:
        """Mean cross-entropy of a batch; gates of channels, or {}."""
        logits = self.view.logits(params, self.images[batch], gates)
        return jnp.mean(cross_entropy(logits, self.labels[batch]))

    def curvature(self, one: Weights, other: Weights) -> Array:
        """u' H v of the first batch's loss along two directions of the weights: float32[].

        The mixed second derivative of L(w + s u + t v), forwards twice: no pass backwards, nothing to remember.
        Raises `TypeError` where the network has custom derivatives for backward passes alone.
        """
        # Directions as trees of parameters, zero in all others.
        tree = jax.linear_transpose(self.view.weights, self.params)
        (u,), (v,) = tree(one), tree(other)

        def loss(params: Any) -> Array:
            return jnp.mean(cross_entropy(self.view.forwards(params, self.images[0]), self.labels[0]))

        def slope(params: Any) -> Array:
            return jax.jvp(loss, (params,), (u,))[1]

        return jax.jvp(slope, (self.params,), (v,))[1]

    @cached_property
    def loss_gradients(self) -> tuple[Weights, list[Array]]:
        """Gradients of the first batch's loss: by weight, and by channel [..., N, channels] of outputs."""
        gates = self.view.gates(self.params, self.images.shape[1])
        by_weight, by_channel = jax.grad(self.loss, (0, 2))(self.params, 0, gates)
        return self.weights(by_weight), jax.tree.leaves(by_channel)

    def weight_gradients(self, batch: int) -> Weights:
        """Gradients of the loss of any batch, by weight."""
        if batch == 0:
            return self.loss_gradients[0]
        return self.weights(jax.grad(self.loss)(self.params, batch, {}))

    @cached_property
    def jacobian_correlations(self) -> Array:
        """Correlations between images of the gradient of their summed logits by the input: float32[N, N].

        Row n is d sum(logits) / d x_n: with batch statistics this includes what image n does to the others, as
        in the authors' code.
        """
        gradient = jax.grad(lambda x: jnp.sum(self.view.logits(self.params, x, {})))(self.images[0])
        rows = gradient.reshape(len(gradient), -1)
        centred = rows - jnp.mean(rows, axis=1, keepdims=True)
        length = jnp.linalg.norm(centred, axis=1, keepdims=True)
        # An image without any gradient correlates with none.
        unit = jnp.where(length > 0, centred / jnp.where(length > 0, length, 1), 0)
        return jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """-log softmax(logits)[label] of each image: [N, O], [N] -> [N]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
