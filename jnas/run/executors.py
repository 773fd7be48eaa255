"""Evaluate chunks of candidates: in this process, or on the workers of a Ray cluster."""

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnas.errors import InputError, RunError, unknown_name
from jnas.run.compilation_cache import enable_compilation_cache
from jnas.run.evaluate import Runner, in_this_process
from jnas.types import Candidates, Estimator, Key, Values

EXECUTORS = ("local", "ray")
# A chunk that fails so often with its worker is not the victim but the cause.
ATTEMPTS = 4


def runner(executor: str, make: Callable[[], Estimator]) -> Runner:
    """The function that evaluates chunks: on this process's devices, or on the workers of a Ray cluster.

    Workers make their estimator themselves. Raises `InputError` for another name.
    """
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    return in_this_process if executor == "local" else partial(_on_ray, make)


class _Worker:
    """Makes the estimator once, then evaluates chunk after chunk."""

    def __init__(self, make: Callable[[], Estimator]):
        self._make = make
        self._estimator: Estimator | None = None

    def evaluate(self, number: int, key: np.ndarray, chunk: Candidates) -> tuple[int, Values]:
        if self._estimator is None:
            # Not in the constructor, whose errors look to the caller as if the worker had died.
            enable_compilation_cache()
            self._estimator = self._make()
        return number, self._estimator.evaluate(jax.random.wrap_key_data(jnp.asarray(key)), chunk)


def _on_ray(
    make: Callable[[], Estimator], estimator: Estimator, key: Key, chunks: list[Candidates]
) -> Iterator[tuple[int, Values]]:
    """Ray starts a dead worker again, elsewhere where its node is gone, and repeats its chunk: same values.

    estimator: of this process, which workers do not share.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError:
        raise InputError("--executor ray needs Ray: pip install 'jnas[ray]'") from None
    if not ray.is_initialized():
        # A cluster that once was may still be noted on this machine: only the variable names one.
        address = os.environ.get("RAY_ADDRESS", "local")
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    # Ray hides the GPUs from workers that ask for none, and fills one node before the next unless told to spread.
    options: dict[str, Any] = {"num_gpus": 1} if gpus else {}
    remote: Any = ray.remote(
        scheduling_strategy="SPREAD", max_restarts=ATTEMPTS - 1, max_task_retries=ATTEMPTS - 1, **options
    )(_Worker)
    # A worker fills its machine: one for each GPU or, without any, for each node.
    count = min(len(chunks), gpus or sum(node["Alive"] for node in ray.nodes()))
    shared, data = ray.put(make), np.asarray(jax.random.key_data(key))
    workers = [remote.remote(shared) for _ in range(max(1, count))]
    try:
        yield from ActorPool(workers).map_unordered(
            lambda worker, item: worker.evaluate.remote(item[0], data, item[1]), list(enumerate(chunks))
        )
    except ray.exceptions.RayActorError as error:
        raise RunError(
            f"the Ray worker died {ATTEMPTS} times on the same batch: give its nodes more memory, then run the same "
            "command again"
        ) from error
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        for worker in workers:
            ray.kill(worker)
