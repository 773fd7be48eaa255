"""Training of one network: SGD with all that papers on architecture search train their cells with.

    loss = CE(logits, y) + auxiliary CE(auxiliary logits, y),    CE with smoothed labels
    gradient, clipped by its global norm, plus weight_decay times the weights; momentum; a cosine to zero

Sources: DARTS (Liu, Simonyan and Yang, ICLR 2019, https://arxiv.org/abs/1806.09055); NAS-Bench-201 (Dong and Yang, ICLR
2020, https://arxiv.org/abs/2001.00326), `NASBENCH201` in the settings; cutout (DeVries and Taylor, 2017,
https://arxiv.org/abs/1708.04552). Images are shifted and mirrored, then squares are cut out of them. The probability of
dropping a path grows linearly over training. Weights can be averaged exponentially; the average is then evaluated.

`trainer` returns pure functions. A step depends on the state, a key and its batch alone. `jnas.run.fit` calls the step
from the host, `jnas.estimators.batch_training` scans it for many architectures in one program.

Departure: the learning rate and the dropping follow the step, where the authors' codes change them once an epoch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jnas.data import transforms
from jnas.estimators.settings import Recipe
from jnas.nets.modules import PER_CHANNEL
from jnas.nets.trainable import Trainable
from jnas.types import Info, Key

MOMENTUM = 0.9
# Test images go through the network in parts of this many: memory stays bounded, one program serves all.
EVALUATION_BATCH = 256

# (images as they are stored [N, H, W, C], labels int32[N])
Batch: TypeAlias = tuple[Array, Array]


class State(NamedTuple):
    """The state of a training.

    params, batch_stats: variables of the network.
    optimizer: state of optax.
    average: of params, or an empty tuple.
    step: int32[], how many are done.
    """

    params: Any
    batch_stats: Any
    optimizer: Any
    average: Any
    step: Array


class Trainer(NamedTuple):
    """Functions that train one network.

    init: key -> state.
    step: (state, key, batch, held-out batch) -> (state, info); the held-out batch is not looked at.
    right: (state, images, labels) -> int32[], how many images are classified correctly.
    """

    init: Callable[[Key], State]
    step: Callable[[State, Key, Batch, Any], tuple[State, Info]]
    right: Callable[[State, Array, Array], Array]


def sgd(
    learning_rate: float | Array, steps: int, *, momentum: float = MOMENTUM, nesterov: bool = True
) -> optax.GradientTransformation:
    """SGD with momentum whose learning rate falls along a cosine to zero over `steps` steps."""
    schedule = optax.cosine_decay_schedule(learning_rate, max(1, steps))
    return optax.sgd(schedule, momentum=momentum, nesterov=nesterov)


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """Mean cross-entropy of logits [N, O], at least in float32; `smoothing`: the share of a label spread over all."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def percent_right(logits: Array, labels: Array) -> Array:
    """Share of images [N] whose largest logit is that of the label, in percent."""
    return 100.0 * jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def trainer(
    network: Trainable, recipe: Recipe, *, steps: int, normalise: Callable[[Array], Array]
) -> Trainer:
    """Functions that train `network` for `steps` steps; normalise: images as stored -> standardised float32."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(recipe.clip) if recipe.clip else optax.identity(),
        optax.add_decayed_weights(recipe.weight_decay),
        sgd(recipe.learning_rate, steps, momentum=recipe.momentum, nesterov=recipe.nesterov),
    )
    dtype = jnp.dtype(recipe.precision)

    def narrow(params: Any) -> Any:
        # Scales and offsets stay: normalisation is computed in float32.
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if path[-1].key in PER_CHANNEL else leaf.astype(dtype), params
        )

    def init(key: Key) -> State:
        params, batch_stats = network.init(key)
        average = params if recipe.average else ()
        return State(params, batch_stats, optimizer.init(params), average, jnp.zeros((), jnp.int32))

    def step(state: State, key: Key, batch: Batch, held_out: Any = None) -> tuple[State, Info]:
        images, labels = batch
        augment_key, cutout_key, drop_key = jax.random.split(key, 3)
        x = transforms.augment(augment_key, images) if recipe.augment else images
        x = normalise(x)
        x = transforms.cutout(cutout_key, x, recipe.cutout) if recipe.cutout else x
        drop = recipe.drop_path * state.step / steps

        def loss_of(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
            logits, extra, batch_stats = network.train(
                narrow(params), state.batch_stats, x.astype(dtype), drop, drop_key
            )
            loss = cross_entropy(logits, labels, recipe.label_smoothing)
            total = loss
            if extra is not None:
                total += recipe.auxiliary * cross_entropy(extra, labels, recipe.label_smoothing)
            return total, (loss, logits, batch_stats)

        gradients, (loss, logits, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = (
            optax.incremental_update(params, state.average, 1 - recipe.average) if recipe.average else ()
        )
        info = {"train_loss": loss, "train_accuracy": percent_right(logits, labels)}
        return State(params, batch_stats, optimizer_state, average, state.step + 1), info

    def right(state: State, images: Array, labels: Array) -> Array:
        params = state.average if recipe.average else state.params
        logits = network.evaluate(narrow(params), state.batch_stats, normalise(images).astype(dtype))
        return jnp.sum(jnp.argmax(logits, axis=-1) == labels)

    return Trainer(init, step, right)
