"""The host loop of every training: batches, checkpoints, epochs, going on after an interruption.

A step is a function of the state, the run's key, the number of the step and its batch alone. So a training that goes on
from a stored state ends, bit for bit on the same devices, as it would have ended. All devices share each batch. Of
several processes (`jnas.run.processes`) each reads its own rows of it; the first has the folder, and tells the others
where to go on.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnas.errors import RunError
from jnas.parallel import devices_of_images
from jnas.proxies.base import status_of
from jnas.run.progress import Advance
from jnas.store.checkpoints import Checkpoints
from jnas.store.records import Evaluation
from jnas.types import Info, Key, State

# Steps between two looks at the loss. Each waits for the device.
CHECK_STEPS = 50


# (state, key, training batch, held-out batch) -> (state, info)
Step: TypeAlias = Callable[[State, Key, Any, Any], tuple[State, Info]]


class Carry(NamedTuple):
    """The stored state: that of the method, sums of its info over the steps of the epoch, int32[] steps done."""

    state: Any
    sums: Any
    step: Array


class Epoch(NamedTuple):
    """A finished epoch.

    number: from 0.
    means: of the method's info, over its steps.
    seconds, waited: that it took, and those of them in which no batch was ready.
    """

    number: int
    means: dict[str, float]
    seconds: float
    waited: float

    def evaluations(
        self, stage: str, subject: str, values: Mapping[str, float], place: int = 0
    ) -> list[Evaluation]:
        """`values` of the epoch by name, as the records keep them; they share its seconds."""
        each = self.seconds / len(values)
        return [
            Evaluation(stage, subject, name, self.number, place, value, status_of(value), each)
            for name, value in values.items()
        ]


def fit(
    step: Step,
    state: State,
    key: Key,
    batches: Callable[[int], Iterator[tuple[Any, Any]]],
    *,
    epochs: int,
    steps: int,
    advance: Advance,
    end_epoch: Callable[[Epoch, State], None],
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float = 15.0,
    diverged: str = "",
    sharding: NamedSharding | None = None,
) -> State:
    """The state after `epochs` epochs of `steps` steps, from its checkpoint where there is one.

    Args:
      step: of a `jnas.estimators.training.Trainer` or a `jnas.types.OneShot`; state: the first one; key: of the steps.
      batches: number of the first step -> endless (training batch, held-out batch or None).
      end_epoch: called with each finished epoch and the state. It is called again with an epoch that was not stored.
      checkpoints: where states are stored, every so many seconds and at the end; None stores nothing.
      diverged: beginning and mend of the error, as `"the loss is not finite at step {step}: lower x"`; a training goes
        on without a finite loss where empty.
      sharding: of the images of a batch over devices; the state is on all of them.

    Raises `RunError` where a loss or a state to be stored is not finite; the last stored state stays.
    """

    def require_finite(tree: Any, number: int) -> None:
        if diverged and not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(tree))):
            stored = None if checkpoints is None else checkpoints.latest()
            good = (
                f"the last good state, of step {stored}, is kept" if stored else "no state was stored before"
            )
            raise RunError(f"{diverged.format(step=number)} and give another --out ({good})")

    # Where to begin: a stored state, or the first one.
    source = batches(0)
    first = next(source)
    info = jax.eval_shape(jax.jit(step), state, key, *first)[1]
    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info)
    carry = Carry(state, sums, jnp.zeros((), jnp.int32))
    if checkpoints is not None:
        carry = checkpoints.restore(carry)
    if jax.process_count() > 1:
        carry = multihost_utils.broadcast_one_to_all(carry)
    carry = jax.device_put(carry, None if sharding is None else NamedSharding(sharding.mesh, PartitionSpec()))
    done, total = int(carry.step), epochs * steps
    source = batches(done) if done else itertools.chain([first], source)
    if done:
        advance(done, preparing=True)
    stored, began, waited = time.monotonic(), time.perf_counter(), 0.0
    for number in range(done + 1, total + 1):
        # One call a step rather than a scan over steps: in a loop XLA evaluates convolutions on one core of a CPU.
        before = time.perf_counter()
        batch, held_out = next(source)
        waited += time.perf_counter() - before
        carry = _step(step, key, carry, batch, held_out, steps)
        end, last = number % steps == 0, number == total
        if end or number % CHECK_STEPS == 0:
            require_finite(carry.sums, number)
        if end:
            means = {name: float(value) / steps for name, value in carry.sums.items()}
            seconds = time.perf_counter() - began
            end_epoch(Epoch(number // steps - 1, means, seconds, waited), carry.state)
            began, waited = time.perf_counter(), 0.0
        if checkpoints is not None and (last or time.monotonic() - stored > checkpoint_seconds):
            host = jax.device_get(carry)
            require_finite(host, number)
            checkpoints.store(number, host)
            stored = time.monotonic()
        advance(1, preparing=number == done + 1)
    return carry.state


@partial(jax.jit, static_argnames="step")
def _step(step: Step, key: Key, carry: Carry, batch: Any, held_out: Any, steps: int) -> Carry:
    """One step. The sums begin anew with every epoch, of `steps` steps."""
    # Jitted as when its shapes were asked for, so that it is traced once.
    state, info = jax.jit(step)(carry.state, jax.random.fold_in(key, carry.step), batch, held_out)
    begins = carry.step % steps == 0
    sums = jax.tree.map(lambda old, new: jnp.where(begins, 0, old) + new, carry.sums, info)
    return Carry(state, sums, carry.step + 1)


def data_sharding(batch: int) -> NamedSharding:
    """The batch shared by as many devices of each process as divide it: B images along the axis `images`."""
    processes = jax.process_count()
    each = math.gcd(batch // processes, len(devices_of_images()))
    devices = [
        device
        for process in range(processes)
        for device in sorted(jax.local_devices(process), key=lambda device: device.id)[:each]
    ]
    return NamedSharding(Mesh(np.array(devices), ("images",)), PartitionSpec("images"))


def rows_here(batch: int) -> slice:
    """The rows of a batch that lie on devices of this process."""
    count = batch // jax.process_count()
    return slice(jax.process_index() * count, (jax.process_index() + 1) * count)
