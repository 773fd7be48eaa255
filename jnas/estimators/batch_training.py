"""Accuracies of many architectures after training: one compiled program for all of them.

Architectures are data (the operation of each edge), as for the proxies (`jnas.proxies.subjects`), so the program that
trains one trains any number: nothing compiles again, and nothing returns to the host between steps. The step is that of
`jnas.estimators.training`. With gradients g_t of the mean cross-entropy of batch t, theta all parameters, m = 0.9 and T
the number of steps of all epochs,

    d_t = g_t + weight_decay theta_t,                    v_t = m v_{t-1} + d_t,
    theta_{t+1} = theta_t - eta_t (d_t + m v_t),         eta_t = learning_rate (1 + cos(pi t / T)) / 2.

The recipe is that of NAS-Bench-201 (Dong and Yang, ICLR 2020, https://arxiv.org/abs/2001.00326). Departures:

- A test image is normalised by the statistics of the test images that it is evaluated with, up to 256 in random
  order, not by running averages: an accuracy is that of a batch, and says little for a handful of test images.
- Images are not augmented. The whole data set lies standardised in the memory of the device: for small ones.
- All architectures start from the weights of one supernet and see the same batches in the same order, so that they
  differ by the architecture alone. `key` stands for one seed; call again with another for its spread.

`trained` is the estimator of a search. It splits the training images by class: networks learn from four fifths, and a
candidate's accuracy is that on the last. Test images are not looked at, so that they can judge the result.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from msgspec.structs import replace as replace_settings

from jnas import spaces
from jnas.data import Dataset, transforms
from jnas.data.base import stratified_split
from jnas.errors import InputError
from jnas.estimators import inheritance
from jnas.estimators.settings import NASBENCH201
from jnas.estimators.training import EVALUATION_BATCH, trainer
from jnas.nets import networks, own
from jnas.nets.modules import Build, initial_parameters
from jnas.nets.sizes import Macro
from jnas.nets.trainable import Trainable
from jnas.parallel import Program, rows_at_once
from jnas.spaces.base import Space
from jnas.types import Candidates, Estimator, Key, Values, fidelities, with_status

# Architectures in one call for each device: few on a CPU, so that a kill loses little; on an accelerator, whose memory
# holds many small networks, side by side.
ON_CPU, ON_ACCELERATOR = 4, 64

# The share of the training images that `trained` holds out.
VALIDATION = 0.2

# (network, parameters, choices int32[cells, E] of one architecture) to arrays.
Observe = Callable[[Any, Any, Array], Any]


def at_once() -> int:
    """Architectures of one call on the local devices; calls with more are split."""
    return rows_at_once(ON_CPU, ON_ACCELERATOR)


def accuracies(
    key: Array,
    choices: ArrayLike,
    dataset: Dataset,
    *,
    evaluate_at: Sequence[int] | None = None,
    epochs: int,
    **settings: Any,
) -> np.ndarray:
    """Test accuracy in percent after training: float32[B, len(evaluate_at)], nan where training diverged.

    evaluate_at: numbers of epochs after which to evaluate, from 0, before training, to `epochs`; the last alone where
    None. key, choices and all else as for `observations`, which has also what is raised.
    """
    points = (epochs,) if evaluate_at is None else tuple(evaluate_at)
    return observations(key, choices, dataset, epochs=epochs, observe_at=points, **settings)[0]


def observations(
    key: Array,
    choices: ArrayLike,
    dataset: Dataset,
    *,
    space: str | Space = "nasbench201",
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    channels: int,
    cells_per_stage: int,
    stages: int = 3,
    observe_at: Sequence[int],
    observe: Observe | None = None,
    starts: Sequence[inheritance.Weights | None] | None = None,
) -> tuple[np.ndarray, Any]:
    """(test accuracy in percent float32[B, T], the arrays of `observe` [B, T, ...]) of networks while they train.

    Args:
      key: of the weights, of the order of the images and of the parts that the test images are evaluated in.
      choices: int32[B, cells, E], the operation of each edge.
      epochs, batch, learning_rate, weight_decay: of SGD; the images that do not fill a batch sit an epoch out.
      space, channels, cells_per_stage, stages: of the network.
      observe_at: T numbers of epochs after which to look, from 0, before training, to `epochs`. The
        learning rate falls towards `epochs` whatever they are.
      observe: (network, parameters, choices of one architecture) to arrays; one function, or each call compiles.
      starts: B weights that trainings begin with, beside fresh ones; None: fresh ones alone. Networks of one's own are
        trained from them one in a call.

    Accuracy is nan where training diverged. What is seen of an architecture does not depend on which others are in the
    batch. Raises `InputError` for epochs, a batch, choices or images that do not fit, `MemoryError` for a network that
    does not fit by itself.
    """
    points = tuple(observe_at)
    if not points or not all(0 <= number <= epochs for number in points):
        raise InputError(
            f"evaluate_at {points} does not fit: choose from 0 to {epochs}, the number of epochs"
        )
    choices = jnp.asarray(choices)
    if choices.ndim != 3 or 0 in choices.shape or not jnp.issubdtype(choices.dtype, jnp.integer):
        raise InputError(
            f"choices are {choices.dtype}{list(choices.shape)}: give integers [architectures, cells, edges]"
        )
    known = spaces.get(space)
    choices = choices.astype(jnp.int32)
    image = dataset.x_train.shape[1:]
    if own.is_own(known):
        # A program for each architecture; none is kept, as thousands alive are more than a process can map.
        parts = [
            (_Alone(own.build(known, row, image, dataset.classes)), row[None]) for row in np.asarray(choices)
        ]
        compiled = _compiled.__wrapped__
    else:
        networks.kind_of(known).check_images(dataset.x_train.shape, stages)
        sizes = Macro(channels, cells_per_stage, stages, classes=dataset.classes)
        parts = [(networks.build(known, sizes, Build(loops=True)), choices)]
        compiled = _compiled
    train, test = (
        (transforms.normalise(dataset, images), jnp.asarray(labels))
        for images, labels in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test))
    )
    rates = jnp.float32(learning_rate), jnp.float32(weight_decay)
    seen = []
    for network, rows in parts:
        plan, program = compiled(network, epochs, batch, points, observe)
        planned = plan(key, train[0], len(test[0]), rows[0])
        start = None if starts is None else inheritance.matched(planned[0], starts)
        seen.append(program.stacked(program.place((planned, train, test, rates)), (rows, start)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *seen) if len(seen) > 1 else seen[0]


class _Alone:
    """The network of one architecture in the place of one that reads an architecture: the row is not looked at."""

    def __init__(self, network: own.Own):
        self.network = network

    def initial(self, key: Array, images: Array, row: Array) -> Any:
        return self.network.init(key, images)[0]

    def apply(self, variables: Any, images: Array, row: Array) -> Array:
        # Statistics of training are not read: those before it will do.
        rest = self.network.init(jax.random.key(0), images[:1])[1]
        return self.network.train(variables["params"], rest, images)[0]


def trained(space: Space, dataset: Dataset, settings: Any) -> Estimator:
    """Percent of held-out images after training each architecture, objective `accuracy`.

    settings: epochs, batch, learning_rate, weight_decay, channels and cells_per_stage, as `settings.Training` has them.
    A candidate's fidelity is its share of the epochs. One with ancestors begins with its parent's weights, and trains
    as long as one without (`jnas.estimators.inheritance`). A training that diverges has the status `not_finite`. Raises
    `InputError` where a batch does not fit, and for a space whose architectures are not built alone.
    """
    if not own.is_own(space):
        networks.kind_of(space)
    learn, held = stratified_split(dataset.y_train, 0, VALIDATION)
    if settings.batch > len(learn):
        raise InputError(
            f"batch {settings.batch} does not fit: {len(learn)} images are left to train on; lower it"
        )
    split = replace(
        dataset, x_train=dataset.x_train[learn], y_train=dataset.y_train[learn], x_test=dataset.x_train[held],
        y_test=dataset.y_train[held],
    )  # fmt: skip

    def train(key: Key, architectures: np.ndarray, epochs: int, **more: Any) -> tuple[np.ndarray, Any]:
        choices = np.asarray(space.choices(architectures), np.int32)
        value, seen = observations(
            key, choices, split, space=space, epochs=epochs, batch=settings.batch,
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, channels=settings.channels,
            cells_per_stage=settings.cells_per_stage, observe_at=(epochs,), **more,
        )  # fmt: skip
        return value[:, 0], seen

    def train_from(
        key: Key, architectures: np.ndarray, starts: list[inheritance.Weights | None]
    ) -> tuple[np.ndarray, list[inheritance.Weights]]:
        observe = inheritance.observer(split.x_train.shape[1:])
        size = 1 if own.is_own(space) else len(architectures)
        values, after = [], []
        for first in range(0, len(architectures), size):
            rows = slice(first, first + size)
            value, seen = train(
                key, architectures[rows], settings.epochs, observe=observe, starts=starts[rows]
            )
            values.append(value)
            after += [
                jax.tree.map(lambda leaf, row=row: np.asarray(leaf)[row, 0], seen) for row in range(size)
            ]
        return np.concatenate(values), after

    from_parents = inheritance.inheriting(train_from)

    def evaluate(key: Key, candidates: Candidates) -> Values:
        start = time.perf_counter()
        architectures = np.asarray(candidates.architectures)
        epochs = np.maximum(1, np.rint(np.asarray(fidelities(candidates)) * settings.epochs).astype(int))
        if candidates.ancestors is not None:
            if (epochs != settings.epochs).any():
                raise InputError(
                    "parents' weights are those of whole trainings: choose a strategy that inherits, or one that "
                    "shortens trainings"
                )
            value = from_parents(key, candidates)
        else:
            value = np.zeros(len(architectures))
            # Trainings of one length run in one program.
            for count in np.unique(epochs):
                rows = np.flatnonzero(epochs == count)
                value[rows] = train(key, architectures[rows], int(count))[0]
        return with_status(value[:, None], (time.perf_counter() - start) * epochs / epochs.sum())

    return Estimator(("accuracy",), evaluate, ("architectures", "trainings"), batch=at_once())


@cache
def _compiled(
    network: Any, epochs: int, batch: int, points: tuple[int, ...], observe: Observe | None
) -> tuple[Callable[..., Any], Program]:
    """The parts that all trainings share, as a function, and the program that trains and observes one architecture."""

    def plan(key, x_train, count, choice):
        """Weights, the images of each step int32[epochs, steps, batch], and parts of the `count` test images."""
        weights_key, order_key, parts_key = jax.random.split(key, 3)
        initial = getattr(network, "initial", None) or partial(initial_parameters, network)
        params = initial(weights_key, x_train[:1], choice)
        order = jax.vmap(lambda number: transforms.batches(order_key, number, len(x_train), batch))(
            jnp.arange(epochs)
        )
        # In random order: a part of images that are sorted by class would have the statistics of that class. The
        # last part reaches back, so that all are of one size, and counts what is new alone.
        size = min(EVALUATION_BATCH, count)
        new = jnp.arange(0, count, size)[:, None]
        places = jnp.minimum(new, count - size) + jnp.arange(size)
        return params, order, (jax.random.permutation(parts_key, count)[places], places >= new)

    def train_one(shared, row):
        choice, start = row
        (params, order, parts), (x_train, y_train), (x_test, y_test), (learning_rate, weight_decay) = shared

        params = inheritance.joined(params, start)

        def forward(params, batch_stats, x, drop, key):
            return network.apply({"params": params}, x, choice), None, batch_stats

        def predict(params, batch_stats, x):
            return network.apply({"params": params}, x, choice)

        # Nothing is drawn in a training: weights come from `plan`, and images are as they are.
        no_key = jax.random.key(0)
        one = trainer(
            Trainable(lambda key: (params, {}), forward, predict),
            replace_settings(
                NASBENCH201, learning_rate=learning_rate, weight_decay=weight_decay, augment=False
            ),
            steps=order.shape[0] * order.shape[1],
            normalise=lambda images: images,
        )

        def step(state, indices):
            return one.step(state, no_key, (x_train[indices], y_train[indices]), None)[0], None

        def look(params):
            def right(part):
                indices, counted = part
                logits = network.apply({"params": params}, x_test[indices], choice)
                hits = counted & (jnp.argmax(logits, axis=-1) == y_test[indices])
                return jnp.where(jnp.isfinite(logits).all(), jnp.sum(hits), jnp.nan)

            accuracy = 100.0 * jnp.sum(jax.lax.map(right, parts)) / len(x_test)
            return accuracy, () if observe is None else observe(network, params, choice)

        def unseen(params):
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(look, params))

        def epoch(state, now):
            order, evaluated = now
            state, _ = jax.lax.scan(step, state, order)
            return state, jax.lax.cond(evaluated, look, unseen, state.params)

        evaluated = jnp.isin(jnp.arange(epochs) + 1, jnp.array(points))
        seen = jax.lax.scan(epoch, one.init(no_key), (order, evaluated))[1]
        if 0 not in points:
            return jax.tree.map(lambda leaf: leaf[jnp.array(points) - 1], seen)
        return jax.tree.map(
            lambda first, leaf: jnp.concatenate([first[None], leaf])[jnp.array(points)], look(params), seen
        )

    program = Program("training", train_one, rows=at_once() // jax.local_device_count())
    return jax.jit(plan, static_argnums=2), program
