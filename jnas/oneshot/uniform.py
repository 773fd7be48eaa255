"""Single path: the weights of a supernet, trained with one uniform architecture a batch.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
https://arxiv.org/abs/1904.00420. Weights w that can be dropped have the penalty (l / N) ||w||^2, of the same strength
as the posterior's, with which it is compared (`jnas.oneshot.posterior`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jnas.estimators.training import Batch, sgd
from jnas.oneshot.settings import Uniform
from jnas.oneshot.supernets import Prepare, Supernet, objective
from jnas.types import Info, Key, OneShot


class State(NamedTuple):
    """params, batch_stats: of the supernet; optimizer: state of optax."""

    params: Any
    batch_stats: Any
    optimizer: Any


def uniform(
    supernet: Supernet,
    settings: Uniform,
    *,
    steps: int,
    images: int,
    prepare: Prepare,
    draw: Callable[[Key, int], Array] | None = None,
) -> OneShot:
    """The method, for `steps` steps on `images` training images.

    prepare: (key, images as stored) -> standardised images.
    draw: (key, N) -> masks float32[N or 1, M] of a batch, in place of one uniform architecture.
    """
    space, optimizer = supernet.space, sgd(settings.learning_rate, steps)

    def one_path(key: Key, count: int) -> Array:
        return supernet.masks_of(space.sample(key, 1))

    def init(key: Key) -> State:
        params, batch_stats = supernet.init(key)
        return State(params, batch_stats, optimizer.init(params))

    def step(state: State, key: Key, batch: Batch, held_out: Any = None) -> tuple[State, Info]:
        augment_key, mask_key = jax.random.split(key)
        x, labels = prepare(augment_key, batch[0]), batch[1]
        drawn = (draw or one_path)(mask_key, len(x)).astype(x.dtype)
        masks = jnp.broadcast_to(drawn, (len(x), supernet.masks))

        def loss(params: Any) -> tuple[Array, tuple[Any, Info]]:
            norms = jnp.sum(supernet.squared_norms(params))
            penalty = settings.weight_penalty * norms / (settings.examples * images)
            return objective(supernet, params, state.batch_stats, masks, (x, labels), penalty)

        gradient, (batch_stats, info) = jax.grad(loss, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), batch_stats, optimizer_state), info

    return OneShot(
        init,
        step,
        gates=lambda state, key, n: space.gates(space.sample(key, n)),
        sample=lambda state, key, n: space.sample(key, n),
        params=lambda state: (state.params, state.batch_stats),
    )
