"""Where chunks of architectures are scored: in this process, in several together, or on the workers of Ray.

A chunk is a function of the configuration alone, so a chunk whose worker died is computed again elsewhere with
the same result. Only the caller writes; of several processes (`jnas.run.processes`) the first. These go through the
chunks in step, and tell each other what they found.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jnas import data as datasets
from jnas.errors import InputError, RunError
from jnas.run import scoring
from jnas.run.compilation_cache import enable_compilation_cache
from jnas.run.processes import Everyone

EXECUTORS = {
    "local": "this process, on all its devices; or several together, on all of theirs",
    "ray": "the workers of a Ray cluster (extra 'ray'; RAY_ADDRESS says which, else one is started here)",
}
Make = Callable[..., Callable[[np.ndarray], scoring.SCORES]]
# A chunk that fails so often with its worker is not the victim but the cause.
ATTEMPTS = 4


def run_chunks(
    executor: str,
    config: Any,
    proxies: Sequence[str],
    dataset: datasets.Dataset,
    chunks: Sequence[np.ndarray],
    everyone: Everyone | None = None,
    make: Make | None = None,
) -> Iterator[tuple[int, scoring.SCORES]]:
    """(number of the chunk, its scores) as they are finished; `chunks` are architectures int32[B, D] each.

    Several processes call this alike, with what `together` gave them. make: what makes of the configuration, names
    and data a function from a chunk to its scores; by default `scoring.chunk_scorer`.
    """
    make = make or scoring.chunk_scorer
    if executor == "ray":
        yield from _on_ray(make, config, proxies, dataset, chunks)
        return
    score = make(config, proxies, dataset, *(() if everyone is None else (everyone,)))
    for index, chunk in enumerate(chunks):
        yield index, score(chunk)


def worker_count(executor: str, chunks: int) -> int:
    """How many workers share so many chunks; to be asked once the first chunk is there."""
    if executor != "ray" or chunks == 1:
        return 1
    import ray

    return _ray_worker_count(ray, chunks)


class _Worker:
    """Compiles once, then scores chunk after chunk."""

    def __init__(self, make: Make, config: Any, proxies: tuple[str, ...], dataset: datasets.Dataset):
        self._make, self._arguments = make, (config, proxies, dataset)
        self._score: Any = None

    def score(self, chunk: np.ndarray) -> scoring.SCORES:
        if self._score is None:
            # Made here: what goes wrong in a constructor looks to the caller as if the worker had died.
            enable_compilation_cache()
            self._score = self._make(*self._arguments)
        return self._score(chunk)


def _on_ray(
    make: Make,
    config: Any,
    proxies: Sequence[str],
    dataset: datasets.Dataset,
    chunks: Sequence[np.ndarray],
) -> Iterator[tuple[int, scoring.SCORES]]:
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray needs Ray: pip install 'jnas[ray]'") from None
    if not ray.is_initialized():
        # A cluster that once was may still be noted on this machine: only the variable names one.
        address = os.environ.get("RAY_ADDRESS", "local")
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)

    # Ray hides the GPUs from whatever does not ask for one, and fills one node before the next unless told to spread.
    options: dict[str, Any] = {"scheduling_strategy": "SPREAD"} | ({"num_gpus": 1} if _gpus(ray) else {})
    remote: Any = ray.remote(**options)(_Worker)
    shared = ray.put(dataset)

    def hire() -> Any:
        return remote.remote(make, config, tuple(proxies), shared)

    workers = [hire() for _ in range(_ray_worker_count(ray, len(chunks)))]
    waiting = list(range(len(chunks)))[::-1]
    attempts = [0] * len(chunks)
    running: dict = {}

    def give(worker: Any) -> None:
        if waiting:
            index = waiting.pop()
            attempts[index] += 1
            running[worker.score.remote(chunks[index])] = (index, worker)

    try:
        for worker in workers:
            give(worker)
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            index, worker = running.pop(done)
            try:
                scores = ray.get(done)
            except ray.exceptions.RayActorError as error:
                if attempts[index] >= ATTEMPTS:
                    raise RunError(
                        f"the Ray worker died {ATTEMPTS} times on the same batch: give its nodes more memory, "
                        "then run the same command again"
                    ) from error
                # Its node may be gone for good: another worker, wherever Ray has room.
                waiting.append(index)
                give(hire())
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            give(worker)
            yield index, scores
    finally:
        for worker in {worker for _, worker in running.values()}:
            ray.kill(worker)


def _ray_worker_count(ray: Any, chunks: int) -> int:
    """One worker for each GPU or, without any, for each node: a worker fills its machine."""
    nodes = sum(node["Alive"] for node in ray.nodes())
    return max(1, min(chunks, _gpus(ray) or nodes))


def _gpus(ray: Any) -> int:
    return int(ray.cluster_resources().get("GPU", 0))
