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
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike
from msgspec.structs import replace

from jnas import data as datasets
from jnas import spaces
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators.settings import NASBENCH201
from jnas.estimators.training import EVALUATION_BATCH, trainer
from jnas.nets import networks
from jnas.nets.modules import Build, initial_parameters
from jnas.nets.sizes import Macro
from jnas.nets.trainable import Trainable
from jnas.parallel import filled, local_mesh, over_architectures
from jnas.spaces.base import Space

# Architectures in one call for each device: few on a CPU, so that a kill loses little; on an accelerator, whose memory
# holds many small networks, side by side.
ON_CPU, ON_ACCELERATOR = 4, 64


class Room(NamedTuple):
    """Architectures of one call on this machine: `size`, of which each device of `mesh` takes `width` side by side."""

    size: int
    width: int
    mesh: Mesh | None


def room() -> Room:
    """The room on the local devices."""
    on_cpu = jax.default_backend() == "cpu"
    each = ON_CPU if on_cpu else ON_ACCELERATOR
    return Room(each * jax.local_device_count(), 1 if on_cpu else each, local_mesh())


# (network, parameters, choices int32[cells, E] of one architecture) to arrays.
Observe = Callable[[Any, Any, Array], Any]


def accuracies(
    key: Array,
    choices: ArrayLike,
    dataset: datasets.Dataset,
    *,
    evaluate_at: Sequence[int] | None = None,
    epochs: int,
    **settings: Any,
) -> Array:
    """Test accuracy in percent after training: float32[B, len(evaluate_at)], nan where training diverged.

    evaluate_at: numbers of epochs after which to evaluate, from 0, before training, to `epochs`; the last alone where
    None. key, choices and all else as for `observations`, which has also what is raised.
    """
    points = (epochs,) if evaluate_at is None else tuple(evaluate_at)
    return observations(key, choices, dataset, epochs=epochs, observe_at=points, **settings)[0]


def observations(
    key: Array,
    choices: ArrayLike,
    dataset: datasets.Dataset,
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
    width: int = 1,
    mesh: Mesh | None = None,
) -> tuple[Array, Any]:
    """(test accuracy in percent float32[B, T], the arrays of `observe` [B, T, ...]) of networks while they train.

    Args:
      key: of the weights, of the order of the images and of the parts that the test images are evaluated in.
      choices: int32[B, cells, E], the operation of each edge.
      epochs, batch, learning_rate, weight_decay: of SGD; the images that do not fill a batch sit an epoch out.
      space, channels, cells_per_stage, stages: of the network.
      observe_at: T numbers of epochs after which to look, from 0, before training, to `epochs`. The
        learning rate falls towards `epochs` whatever they are.
      observe: (network, parameters, choices of one architecture) to arrays; one function, or each call compiles.
      width: architectures side by side on each device: 1 on a CPU, where an architecture then runs only the
        operations that it has; mesh: devices that share B, along `jnas.parallel.AXIS`.

    Accuracy is nan where training diverged. What is seen of an architecture does not depend on which others are in the
    batch. Raises `InputError` for epochs, a batch, choices or images that do not fit.
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
    networks.kind_of(known).check_images(dataset.x_train.shape, stages)
    sizes = Macro(channels, cells_per_stage, stages, classes=dataset.classes)
    count, together = len(choices), width * (1 if mesh is None else mesh.size)
    measured = _observations(
        key,
        filled(choices.astype(jnp.int32), together),
        (transforms.normalise(dataset, dataset.x_train), jnp.asarray(dataset.y_train)),
        (transforms.normalise(dataset, dataset.x_test), jnp.asarray(dataset.y_test)),
        (jnp.float32(learning_rate), jnp.float32(weight_decay)),
        network=networks.build(known, sizes, Build(loops=True)),
        epochs=epochs,
        batch=batch,
        points=points,
        observe=observe,
        width=width,
        mesh=mesh,
    )
    return jax.tree.map(lambda leaf: leaf[:count], measured)


@partial(jax.jit, static_argnames=("network", "epochs", "batch", "points", "observe", "width", "mesh"))
def _observations(key, choices, train, test, rates, *, network, epochs, batch, points, observe, width, mesh):
    """`observations` after the checks; train, test: (standardised images, labels)."""
    weights_key, order_key, parts_key = jax.random.split(key, 3)
    images, count = len(train[0]), len(test[0])
    params = initial_parameters(network, weights_key, train[0][:1], choices[0])
    numbers = jnp.arange(epochs)
    order = jax.vmap(lambda number: transforms.batches(order_key, number, images, batch))(numbers)
    # In random order: a part of images that are sorted by class would have the statistics of that class. The
    # last part reaches back, so that all are of one size, and counts what is new alone.
    size = min(EVALUATION_BATCH, count)
    new = jnp.arange(0, count, size)[:, None]
    places = jnp.minimum(new, count - size) + jnp.arange(size)
    parts = jax.random.permutation(parts_key, count)[places], places >= new

    def train_one(shared, choice):
        params, (x_train, y_train), (x_test, y_test), (learning_rate, weight_decay), *plan = shared
        order, evaluated, parts = plan

        def forward(params, batch_stats, x, drop, key):
            return network.apply({"params": params}, x, choice), None, batch_stats

        def predict(params, batch_stats, x):
            return network.apply({"params": params}, x, choice)

        one = trainer(
            Trainable(lambda key: (params, {}), forward, predict),
            replace(NASBENCH201, learning_rate=learning_rate, weight_decay=weight_decay, augment=False),
            steps=order.shape[0] * order.shape[1],
            normalise=lambda images: images,
        )

        def step(state, indices):
            # Nothing is drawn in a step: images are as they are.
            return one.step(state, order_key, (x_train[indices], y_train[indices]), None)[0], None

        def accuracy(params):
            def right(part):
                indices, counted = part
                logits = network.apply({"params": params}, x_test[indices], choice)
                hits = counted & (jnp.argmax(logits, axis=-1) == y_test[indices])
                return jnp.where(jnp.isfinite(logits).all(), jnp.sum(hits), jnp.nan)

            return 100.0 * jnp.sum(jax.lax.map(right, parts)) / len(x_test)

        def look(params):
            return accuracy(params), () if observe is None else observe(network, params, choice)

        def unseen(params):
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(look, params))

        def epoch(state, now):
            order, evaluated = now
            state, _ = jax.lax.scan(step, state, order)
            return state, jax.lax.cond(evaluated, look, unseen, state.params)

        seen = jax.lax.scan(epoch, one.init(order_key), (order, evaluated))[1]
        if 0 not in points:
            return jax.tree.map(lambda leaf: leaf[jnp.array(points) - 1], seen)
        before = look(params)
        return jax.tree.map(
            lambda first, leaf: jnp.concatenate([first[None], leaf])[jnp.array(points)], before, seen
        )

    shared = (params, train, test, rates, order, jnp.isin(numbers + 1, jnp.array(points)), parts)
    return over_architectures(train_one, shared, choices, width, mesh)
