"""Where chunks of architectures are scored: in this process, in several together, or on the workers of Ray.

A chunk is a function of the configuration alone, so a chunk whose worker died is computed again elsewhere with
the same result. Only the caller writes; of several processes (`jax.distributed`) the first. These go through the
chunks in step, and tell each other what they found through the key-value store of JAX's coordination service:
unlike a collective it waits for a slow process, and can be interrupted (JAX's collectives of CPUs give up after
30 seconds).
"""

import contextlib
import itertools
import json
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

# Not public, but where Orbax and JAX's own modules find the client of the coordination service.
from jax._src import distributed

from jnas import data as datasets
from jnas.errors import InputError
from jnas.study import interruption, scoring
from jnas.study.compilation_cache import enable_compilation_cache
from jnas.study.records import RunError

EXECUTORS = {
    "local": "this process, on all its devices; or several together, on all of theirs",
    "ray": "the workers of a Ray cluster (extra 'ray'; RAY_ADDRESS says which, else one is started here)",
}
# A chunk that fails so often with its worker is not the victim but the cause.
ATTEMPTS = 4
# How often a waiting process looks whether it was interrupted or another one failed.
POLL_MILLISECONDS = 300
# Each call of `together` has keys of its own, so that one that failed leaves nothing to the next.
_meetings = itertools.count()


def run_chunks(
    executor: str,
    config: scoring.ScoreConfig,
    proxies: Sequence[str],
    dataset: datasets.Dataset,
    chunks: Sequence[np.ndarray],
    everyone: scoring.Everyone | None = None,
) -> Iterator[tuple[int, scoring.SCORES]]:
    """(number of the chunk, its scores) as they are finished; `chunks` are architectures int32[B, D] each.

    Several processes call this alike, with what `together` gave them.
    """
    if executor == "ray":
        yield from _on_ray(config, proxies, dataset, chunks)
        return
    if everyone is None:
        score = scoring.chunk_scorer(config, proxies, dataset)
    else:
        score = scoring.chunk_scorer(config, proxies, dataset, everyone)
    for index, chunk in enumerate(chunks):
        yield index, score(chunk)


def worker_count(executor: str, chunks: int) -> int:
    """How many workers share so many chunks; to be asked once the first chunk is there."""
    if executor != "ray" or chunks == 1:
        return 1
    import ray

    return _ray_worker_count(ray, chunks)


def join(coordinator: str, processes: str | None, process: str | None) -> None:
    """Make this process one of several that score together, before anything asks JAX for its devices.

    `coordinator` is HOST:PORT of the first, with how many there are and which, from 0, this one is; or "auto"
    where JAX knows the cluster. Raises `InputError` for what is no such thing, `RunError` when the others do not
    come.
    """
    arguments: dict[str, Any] = {}
    if coordinator != "auto":
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(f"--coordinator is '{coordinator}': give HOST:PORT of process 0, or auto")
        count, number = _number("processes", processes), _number("process", process)
        if number >= count:
            raise InputError(f"--process is {number}: with --processes {count} give a smaller number")
        # Not detected: Slurm would choose the devices of a process that was told all the rest.
        arguments = {
            "coordinator_address": coordinator, "num_processes": count, "process_id": number,
            "cluster_detection_method": "deactivate",
        }  # fmt: skip
    try:
        jax.distributed.initialize(**arguments)
    except ValueError as error:
        raise InputError(
            f"--coordinator auto finds no cluster that JAX knows ({error}): "
            "give --coordinator HOST:PORT, --processes and --process"
        ) from None
    except jax.errors.JaxRuntimeError as error:
        raise RunError(
            f"the processes did not meet at {coordinator} ({_line(error)}): "
            "start all of them with the same --coordinator and --processes"
        ) from error
    # JAX takes SIGTERM for a notice to write a checkpoint; here it is an interruption, as before.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


@contextlib.contextmanager
def together() -> Iterator[scoring.Everyone | None]:
    """What the processes of `jax.distributed` do alike: `everyone(said)` gives what each of them said, to all.

    What is said is plain values, as in JSON. An exception that leaves the block in one process ends it in all,
    with `RunError` where it was not raised. None, and nothing of this, for a process by itself.
    """
    if jax.process_count() == 1:
        yield None
        return
    meeting = _Meeting(f"jnas/{next(_meetings)}")
    try:
        yield meeting.everyone
        # Nobody goes before all are done: what fails last is told as well.
        meeting.everyone(None)
    except _FailedElsewhere:
        raise
    except BaseException as error:
        meeting.fail(error)
        raise


class _FailedElsewhere(RunError):
    pass


class _Meeting:
    """Each step is a folder of keys, in which every process writes one and reads all."""

    def __init__(self, folder: str):
        self._folder, self._step = folder, 0
        self._client: Any = distributed.global_state.client

    def everyone(self, said: Any) -> list[Any]:
        self._client.key_value_set(self._key(self._step), json.dumps(said))
        answers = [
            json.loads(self._read(f"{self._folder}/{self._step}/{process}"))
            for process in range(jax.process_count())
        ]
        # All have written into this step, so all have read the one before.
        if self._step:
            self._client.key_value_delete(self._key(self._step - 1))
        self._step += 1
        return answers

    def fail(self, error: BaseException) -> None:
        text = "was interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {_line(error)}"
        # Where the others are gone as well nobody is left to be told.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(self._key("failed"), text)

    def _key(self, step: int | str) -> str:
        return f"{self._folder}/{step}/{jax.process_index()}"

    def _read(self, key: str) -> str:
        while True:
            interruption.check()
            try:
                return self._client.blocking_key_value_get(key, POLL_MILLISECONDS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise RunError(
                        f"the other processes cannot be reached ({_line(error)}): "
                        "run the same command again in all of them"
                    ) from error
            for failed, text in self._client.key_value_dir_get(f"{self._folder}/failed/"):
                raise _FailedElsewhere(
                    f"process {failed.rpartition('/')[2]} of {jax.process_count()} {text}; nothing finished is "
                    "lost, to resume run the same command again in all of them"
                )


def _number(option: str, text: str | None) -> int:
    if text is None or not text.isdecimal():
        given = "missing" if text is None else f"'{text}'"
        raise InputError(
            f"--{option} is {given}: with --coordinator HOST:PORT give --processes N and --process 0 to N-1"
        )
    return int(text)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, InputError | RunError) else f"{type(error).__name__}: {text}"


class _Worker:
    """Compiles once, then scores chunk after chunk."""

    def __init__(self, config: scoring.ScoreConfig, proxies: tuple[str, ...], dataset: datasets.Dataset):
        self._arguments = config, proxies, dataset
        self._score: Any = None

    def score(self, chunk: np.ndarray) -> scoring.SCORES:
        if self._score is None:
            # Made here: what goes wrong in a constructor looks to the caller as if the worker had died.
            enable_compilation_cache()
            self._score = scoring.chunk_scorer(*self._arguments)
        return self._score(chunk)


def _on_ray(
    config: scoring.ScoreConfig,
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
        return remote.remote(config, tuple(proxies), shared)

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
