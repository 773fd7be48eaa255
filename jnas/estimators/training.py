"""What an architecture is worth when it is trained: SGD on the specialised network.

The recipe of NAS-Bench-201 (Dong and Yang, ICLR 2020, https://arxiv.org/abs/2001.00326): Nesterov momentum
0.9, a cosine from the first learning rate to zero over all steps, L2 penalty on every parameter, shifted and
mirrored images where the images allow it. `trainer` returns pure functions: one for the first state, one for
an epoch, one for the accuracy; the caller loops, so that it can show progress, store states and go on later.
An epoch is a function of the state and of its number alone: going on from a stored state equals not stopping.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jnas import data as datasets
from jnas import spaces
from jnas.data import transforms
from jnas.errors import InputError
from jnas.nets import trainable

MOMENTUM = 0.9
# Test images go through the network in parts of this many: memory stays bounded, one program serves all.
EVALUATION_BATCH = 256


class TrainState(NamedTuple):
    """params, batch_stats: of the network; optimizer: optax's state. Pytrees of arrays."""

    params: Any
    batch_stats: Any
    optimizer: Any


class Trainer(NamedTuple):
    """init: key -> state; epoch: (state, number) -> (state, mean loss); accuracy: state -> percent."""

    init: Callable[[Array], TrainState]
    epoch: Callable[[TrainState, int], tuple[TrainState, Array]]
    accuracy: Callable[[TrainState], float]


def trainer(
    dataset: datasets.Dataset,
    architecture: tuple[int, ...],
    key: Array,
    *,
    space: str = "nasbench201",
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    channels: int,
    cells_per_stage: int,
    augment: bool,
) -> Trainer:
    """Functions that train one architecture of `space`, int[D], on `dataset`.

    key: of the order of the images and of the augmentation. augment: applied where `augmentable(dataset)`.
    Raises `InputError` when a batch does not fit the data or the images do not fit the network.
    """
    images = dataset.x_train
    if batch > len(images):
        raise InputError(f"training.batch {batch} does not fit: there are {len(images)} training images")
    shape = dataset.x_train.shape[1:]
    text = spaces.get(space).to_string(np.asarray(architecture))
    network = trainable.of_architecture(space, text, shape, dataset.classes, channels, cells_per_stage)
    augmented = augment and transforms.augmentable(dataset)
    steps = len(images) // batch
    schedule = optax.cosine_decay_schedule(learning_rate, max(1, epochs * steps))
    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=MOMENTUM, nesterov=True)
    )
    order_key, augment_key = jax.random.split(key)

    @jax.jit
    def init(key: Array) -> TrainState:
        params, batch_stats = network.init(key)
        return TrainState(params, batch_stats, optimizer.init(params))

    def loss_of(params, batch_stats, x, y):
        logits, _, batch_stats = network.train(params, batch_stats, x, 0.0, None)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), batch_stats

    @jax.jit
    def step(state: TrainState, x: Array, y: Array, step_key: Array) -> tuple[TrainState, Array]:
        x = transforms.augment(step_key, x) if augmented else x
        x = transforms.normalise(dataset, x)
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, batch_stats), grads = gradient(state.params, state.batch_stats, x, y)
        updates, opt_state = optimizer.update(grads, state.optimizer, state.params)
        return TrainState(optax.apply_updates(state.params, updates), batch_stats, opt_state), loss

    def epoch(state: TrainState, number: int) -> tuple[TrainState, Array]:
        # One call a step rather than a scan over steps: in a loop XLA evaluates convolutions on one core of a
        # CPU, ten times slower.
        order = np.asarray(transforms.batches(order_key, number, len(images), batch))
        keys = jax.random.split(jax.random.fold_in(augment_key, number), steps)
        losses = []
        for indices, step_key in zip(order, keys, strict=True):
            state, loss = step(state, dataset.x_train[indices], dataset.y_train[indices], step_key)
            losses.append(loss)
        return state, jnp.stack(losses).mean()

    @jax.jit
    def correct(state: TrainState, x: Array, y: Array) -> Array:
        logits = network.evaluate(state.params, state.batch_stats, transforms.normalise(dataset, x))
        return jnp.sum(jnp.argmax(logits, axis=-1) == y)

    def accuracy(state: TrainState) -> float:
        """Percent of the test images."""
        parts = transforms.parts(dataset.x_test, dataset.y_test, min(EVALUATION_BATCH, len(dataset.x_test)))
        return 100.0 * sum(int(correct(state, x, y)) for x, y in parts) / len(dataset.x_test)

    return Trainer(init, epoch, accuracy)
