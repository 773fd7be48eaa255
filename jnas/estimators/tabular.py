"""Accuracies that were measured before, looked up: a table as an estimator.

An evaluation shows one of the trainings of an architecture, drawn by the key and the architecture: as a search that
trains would see it. Architectures that the table does not hold are `missing`; `known` says which it holds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas import spaces
from jnas.estimators.compact_table import Table
from jnas.spaces import base
from jnas.types import STATUSES, Candidates, Estimator, Key, Values, fidelities

MISSING = STATUSES.index("missing")


def on_space(table: Table, values: np.ndarray) -> np.ndarray:
    """values [..., A] of the table's architectures at each number of its space, nan where it has none: [..., size]."""
    rows = table.rows(spaces.get(table.space).all())
    return np.where(rows >= 0, values[..., rows], np.nan).astype(np.float32)


def known(table: Table, epoch: int = 0) -> np.ndarray:
    """True for architectures of the space with an accuracy after `epoch` epochs, 0 for the last: bool[size]."""
    return np.isfinite(on_space(table, table.accuracy[:, :, table.place(epoch)].T)).any(axis=0)


def shown_at(table: Table, share: Array, epoch: int = 0) -> Array:
    """Places of the last epochs that were measured within shares float32[...] of `epoch`: int32[...].

    0 stands for the last epoch. A share below the first that was measured gives the first.
    """
    last = table.place(epoch)
    shares = jnp.asarray(table.epochs / table.epochs[last], jnp.float32)
    # A share that is an epoch is not to miss it by the rounding of float32.
    return jnp.clip(jnp.searchsorted(shares, share * (1 + 1e-6), side="right") - 1, 0, last)


def tabular(table: Table, *, epoch: int = 0) -> Estimator:
    """Test accuracy in percent, objective `accuracy`, after `epoch` epochs, 0 for the last.

    A candidate's fidelity is a share of these epochs: the last measured epoch within it is shown (`shown_at`). A table
    without a shorter one takes no trainings. Cost: the seconds that the table took to train so far, 0 where it does not
    say. Raises `InputError` for an epoch that was not measured, and for a space that is too large to list.
    """
    last, decisions = table.place(epoch), spaces.get(table.space).decisions
    accuracy = jnp.asarray(on_space(table, np.moveaxis(table.accuracy, 0, -1)))  # [S, T, size]
    seconds = jnp.asarray(np.nan_to_num(on_space(table, table.seconds)))
    shares = jnp.asarray(table.epochs / table.epochs[-1], jnp.float32)

    def look_up(key: Key, architecture: Array, place: Array) -> tuple[Array, Array]:
        number = base.index(decisions, architecture)
        trainings = accuracy[:, place, number]
        chances = jnp.where(jnp.isfinite(trainings), 0.0, -jnp.inf)
        shown = trainings[jax.random.categorical(jax.random.fold_in(key, number), chances)]
        return shown, seconds[number] * shares[place]

    @jax.jit
    def evaluate(key: Key, candidates: Candidates) -> Values:
        architectures = jnp.asarray(candidates.architectures, jnp.int32)
        found = shown_at(table, jnp.asarray(fidelities(candidates)), epoch)
        shown, cost = jax.vmap(look_up, (None, 0, 0))(key, architectures, found)
        missing = ~jnp.isfinite(shown)
        value = jnp.where(missing, -jnp.inf, shown)[:, None]
        return Values(value, jnp.where(missing, MISSING, 0).astype(jnp.int8)[:, None], cost)

    return Estimator(
        ("accuracy",),
        evaluate,
        ("architectures", "trainings") if last else ("architectures",),
        batch=1024,
        members=lambda: known(table, epoch),
        jittable=True,
    )
