"""Training of one network by a recipe: SGD with all that papers on architecture search train their cells with.

    loss = CE(logits, y) + auxiliary CE(auxiliary logits, y),    CE with smoothed labels
    gradient, clipped by its global norm, plus weight_decay times the weights; momentum; a cosine to zero

(DARTS: Liu, Simonyan and Yang, ICLR 2019, https://arxiv.org/abs/1806.09055; NAS-Bench-201: Dong and Yang, ICLR 2020,
https://arxiv.org/abs/2001.00326.) Images are shifted and mirrored, then squares are cut out of them (DeVries and
Taylor, 2017, https://arxiv.org/abs/1708.04552). The probability of dropping a path grows linearly over training.
Optionally weights are averaged exponentially, and the average is what is evaluated.

`make` returns pure functions. A step depends on the state and its batch alone: all randomness is folded in from the
number of the step. So a training that goes on from a stored state ends as it would have ended.

Departure: the learning rate and the dropping follow the step, where the authors' codes change them once an epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jnas.data import transforms
from jnas.nets.trainable import Trainable


@dataclass(frozen=True)
class Recipe:
    """epochs to precision: see `jnas.config.train.RecipeConfig`, which has the same fields."""

    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    clip: float
    label_smoothing: float
    auxiliary: float
    drop_path: float
    cutout: int
    average: float
    augment: bool
    precision: Literal["float32", "bfloat16"]


class State(NamedTuple):
    """params, batch_stats; optimizer: optax's state; average: of params, or an empty tuple; step: int32[], how many
    are done; loss, hits: sums over the images of the epoch so far."""

    params: Any
    batch_stats: Any
    optimizer: Any
    average: Any
    step: Array
    loss: Array
    hits: Array


class Trainer(NamedTuple):
    """init: key -> state. step: (state, images, labels) -> state, images as they are stored.
    begin_epoch: state -> state with its sums at zero. right: (state, images, labels) -> how many are right."""

    init: Callable[[Array], State]
    step: Callable[[State, Array, Array], State]
    begin_epoch: Callable[[State], State]
    right: Callable[[State, Array, Array], Array]


def make(
    network: Trainable,
    recipe: Recipe,
    key: Array,
    *,
    steps: int,
    normalise: Callable[[Array], Array],
) -> Trainer:
    """Functions that train `network` for `steps` steps.

    key: of augmentation and dropped paths. normalise: images as stored to standardised float32.
    """
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, max(1, steps))
    optimizer = optax.chain(
        optax.clip_by_global_norm(recipe.clip) if recipe.clip else optax.identity(),
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(schedule, momentum=recipe.momentum, nesterov=recipe.nesterov),
    )
    dtype = jnp.dtype(recipe.precision)

    def narrow(params: Any) -> Any:
        # Scales and offsets stay: normalisation is computed in float32.
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params)

    def init(key: Array) -> State:
        params, batch_stats = network.init(key)
        average = params if recipe.average else ()
        zero = jnp.zeros(())
        return State(
            params, batch_stats, optimizer.init(params), average, jnp.zeros((), jnp.int32), zero, zero
        )

    def cross_entropy(logits: Array, labels: Array) -> Array:
        logits = logits.astype(jnp.float32)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), recipe.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    @jax.jit
    def step(state: State, images: Array, labels: Array) -> State:
        augment_key, cutout_key, drop_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        x = transforms.augment(augment_key, images) if recipe.augment else images
        x = normalise(x)
        x = transforms.cutout(cutout_key, x, recipe.cutout) if recipe.cutout else x
        drop = recipe.drop_path * state.step / steps

        def loss_of(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
            logits, extra, batch_stats = network.train(
                narrow(params), state.batch_stats, x.astype(dtype), drop, drop_key
            )
            own = cross_entropy(logits, labels)
            loss = own if extra is None else own + recipe.auxiliary * cross_entropy(extra, labels)
            return loss, (own, logits, batch_stats)

        gradients, (own, logits, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = (
            optax.incremental_update(params, state.average, 1 - recipe.average) if recipe.average else ()
        )
        hits = jnp.sum(jnp.argmax(logits, axis=-1) == labels)
        return State(
            params, batch_stats, optimizer_state, average, state.step + 1,
            state.loss + own * len(labels), state.hits + hits,
        )  # fmt: skip

    def begin_epoch(state: State) -> State:
        return state._replace(loss=jnp.zeros_like(state.loss), hits=jnp.zeros_like(state.hits))

    @jax.jit
    def right(state: State, images: Array, labels: Array) -> Array:
        params = state.average if recipe.average else state.params
        logits = network.evaluate(narrow(params), state.batch_stats, normalise(images).astype(dtype))
        return jnp.sum(jnp.argmax(logits, axis=-1) == labels)

    return Trainer(init, step, begin_epoch, right)
