"""Training a supernet: by variational dropout (the posterior), or with masks drawn blindly (the baseline).

`supernet_trainer` returns pure functions, as `jnas.estimators.training` does: one for the first state, one for an
epoch. Weights and logits are trained jointly, by one optax chain: Nesterov momentum 0.9, a cosine from the first
learning rate to zero, and no weight decay but what the posterior's loss has. An epoch is a function of the state and
of its number alone: going on from a stored state equals not stopping.

With `draw` the logits stay as they are and masks are what it draws: one path a batch, as Single Path One-Shot trains
(Guo et al., ECCV 2020, https://arxiv.org/abs/1904.00420), or channels kept with equal probability. Weights then have
plain L2 of the same strength.

Departures: one cosine for every supernet, where the paper has restarts for ENAS's cell and steps for the networks of
ImageNet; no cutout; logits may learn faster than weights, because the paper's trainings are thirty times longer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jnas import data as datasets
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators.training import MOMENTUM
from jnas.oneshot import posterior
from jnas.oneshot.posterior import Gating
from jnas.oneshot.supernets import Supernet


class SupernetState(NamedTuple):
    """params, batch_stats: of the network; logits: float[G], of dropping; optimizer: optax's state."""

    params: Any
    batch_stats: Any
    logits: Array
    optimizer: Any


class EpochRecord(NamedTuple):
    """Means over the steps of an epoch, scalars: cross-entropy, regulariser, percent of images right."""

    cross_entropy: Array
    regulariser: Array
    accuracy: Array


class SupernetTrainer(NamedTuple):
    """init: key -> state; epoch: (state, number) -> (state, record); steps: of an epoch."""

    init: Callable[[Array], SupernetState]
    epoch: Callable[[SupernetState, int], tuple[SupernetState, EpochRecord]]
    steps: int


class Objective(NamedTuple):
    """What a supernet is trained on: the arguments of `posterior.regulariser` and of the relaxed masks.

    inclusion: float[G], the prior's u; examples: N of the loss; the rest as in `jnas.oneshot.posterior`.
    """

    gating: Gating
    inclusion: np.ndarray
    examples: float
    temperature: float
    weight_penalty: float
    entropy: float
    penalty: str


def loss(
    trained: dict[str, Any],
    batch_stats: Any,
    images: Array,
    labels: Array,
    key: Array,
    *,
    supernet: Supernet,
    objective: Objective,
    draw: Callable[[Array, int], Array] | None = None,
) -> tuple[Array, tuple[Any, EpochRecord]]:
    """The loss of a batch, with the running statistics and the record that it leaves.

    trained: `{"params", "logits" [G]}`; images float[N, H, W, C], standardised; key: of the masks; draw: see
    `supernet_trainer`.
    """
    params, logits = trained["params"], trained["logits"]
    gating, norms = objective.gating, supernet.squared_norms(params)
    if draw is None:
        per_mask = logits[jnp.asarray(gating.group)]
        masks = posterior.relaxed_masks(key, per_mask, len(images), objective.temperature)
        extra = posterior.regulariser(
            logits, norms, gating.counts, objective.inclusion, objective.examples,
            weight_penalty=objective.weight_penalty, entropy=objective.entropy, penalty=objective.penalty,
        )  # fmt: skip
    else:
        drawn = draw(key, len(images)).astype(images.dtype)
        masks = jnp.broadcast_to(drawn, (len(images), len(gating.group)))
        extra = objective.weight_penalty * jnp.sum(norms) / objective.examples
    outputs, batch_stats = supernet.train(params, batch_stats, masks[:, jnp.asarray(gating.expand)], images)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()
    right = 100.0 * jnp.mean(jnp.argmax(outputs, axis=-1) == labels)
    return cross_entropy + extra, (batch_stats, EpochRecord(cross_entropy, extra, right))


def supernet_trainer(
    supernet: Supernet,
    dataset: datasets.Dataset,
    key: Array,
    *,
    objective: Objective,
    logits: Array,
    epochs: int,
    batch: int,
    learning_rate: float,
    logits_rate: float,
    augment: bool,
    draw: Callable[[Array, int], Array] | None = None,
) -> SupernetTrainer:
    """Functions that train `supernet` on the training images of `dataset`.

    Args:
      key: of the order of the images, of the augmentation and of the masks.
      objective: what is minimised; logits: float[G], the first, of dropping.
      logits_rate: how many times faster logits learn than weights; 1 in the paper, whose trainings are long.
      draw: (key, images) -> masks [images or 1, D] in place of the posterior's, whose logits then do not learn.

    Raises `InputError` when a batch does not fit the data.
    """
    images = dataset.x_train
    if batch > len(images):
        raise InputError(f"posterior.batch {batch} does not fit: there are {len(images)} training images")
    augmented = augment and transforms.augmentable(dataset)
    steps = len(images) // batch
    schedule = optax.cosine_decay_schedule(learning_rate, max(1, epochs * steps))
    optimizer = optax.chain(
        optax.sgd(schedule, momentum=MOMENTUM, nesterov=True),
        optax.masked(optax.scale(logits_rate if draw is None else 0.0), {"params": False, "logits": True}),
    )
    order_key, augment_key, mask_key = jax.random.split(key, 3)
    objective_of = partial(loss, supernet=supernet, objective=objective, draw=draw)

    @jax.jit
    def init(key: Array) -> SupernetState:
        params, batch_stats = supernet.init(key)
        return SupernetState(
            params, batch_stats, logits, optimizer.init({"params": params, "logits": logits})
        )

    @jax.jit
    def step(
        state: SupernetState, x: Array, y: Array, keys: tuple[Array, Array]
    ) -> tuple[SupernetState, EpochRecord]:
        x = transforms.augment(keys[0], x) if augmented else x
        x = transforms.normalise(dataset, x)
        trained = {"params": state.params, "logits": state.logits}
        gradient, (batch_stats, record) = jax.grad(objective_of, has_aux=True)(
            trained, state.batch_stats, x, y, keys[1]
        )
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, trained)
        trained = optax.apply_updates(trained, updates)
        return SupernetState(trained["params"], batch_stats, trained["logits"], optimizer_state), record

    def epoch(state: SupernetState, number: int) -> tuple[SupernetState, EpochRecord]:
        order = np.asarray(transforms.batches(order_key, number, len(images), batch))
        augment_keys, mask_keys = (
            jax.random.split(jax.random.fold_in(own, number), steps) for own in (augment_key, mask_key)
        )
        records = []
        for index, indices in enumerate(order):
            keys = augment_keys[index], mask_keys[index]
            state, record = step(state, images[indices], dataset.y_train[indices], keys)
            records.append(record)
        return state, jax.tree.map(lambda *values: jnp.stack(values).mean(), *records)

    return SupernetTrainer(init, epoch, steps)
