"""Several processes, of one machine or of many, that do one work together by `jax.distributed`.

They tell each other what they found through the key-value store of JAX's coordination service: unlike a collective it
waits for a slow process, and can be interrupted (JAX's collectives of CPUs give up after 30 seconds). The first process
has the files, and reports.
"""

import contextlib
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax

# Not public, but where Orbax and JAX's own modules find the client of the coordination service.
from jax._src import distributed

from jnas.errors import InputError, RunError, one_line
from jnas.run import interruption

# How often a waiting process looks whether it was interrupted or another one failed.
POLL_MILLISECONDS = 300
# Each call of `together` has keys of its own, so that one that failed leaves nothing to the next.
_meetings = itertools.count()
# From what this process says to what each of the processes said, in their order: `together`.
Everyone = Callable[[Any], list[Any]]


def join(coordinator: str, processes: str | None, process: str | None) -> None:
    """Make this process one of several that work together, before anything asks JAX for its devices.

    `coordinator` is HOST:PORT of the first, with how many there are and which, from 0, this one is; or "auto"
    where JAX knows the cluster. Raises `InputError` for what is no such thing, `RunError` when the others do not
    come.
    """
    arguments: dict[str, Any] = {}
    if coordinator != "auto":
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(f"--coordinator is '{coordinator}': give HOST:PORT of process 0, or auto")
        for option, text in (("processes", processes), ("process", process)):
            if text is None or not text.isdecimal():
                given = "missing" if text is None else f"'{text}'"
                raise InputError(
                    f"--{option} is {given}: with --coordinator HOST:PORT give --processes N and --process 0 to N-1"
                )
        count, number = int(processes or 0), int(process or 0)
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
            f"the processes did not meet at {coordinator} ({one_line(error)}): "
            "start all of them with the same --coordinator and --processes"
        ) from error
    # JAX takes SIGTERM for a notice to write a checkpoint; here it is an interruption, as before.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def leave() -> None:
    """Take leave of the other processes, where there are any: those of one that is gone without it are ended."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


class _FailedElsewhere(RunError):
    pass


@contextlib.contextmanager
def together() -> Iterator[Everyone | None]:
    """Agreement of the processes of `jax.distributed`: `everyone(said)` gives what each of them said, to all.

    What is said is plain values, as in JSON. An exception that leaves the block in one process ends it in all,
    with `RunError` where it was not raised. None, and nothing of this, for a process by itself.
    """
    if jax.process_count() == 1:
        yield None
        return
    # Each step is a folder of keys, in which every process writes one and reads all.
    folder, steps, own = f"jnas/{next(_meetings)}", itertools.count(), jax.process_index()
    client: Any = distributed.global_state.client

    def everyone(said: Any) -> list[Any]:
        step = next(steps)
        client.key_value_set(f"{folder}/{step}/{own}", json.dumps(said))
        answers = [json.loads(read(f"{folder}/{step}/{other}")) for other in range(jax.process_count())]
        # All have written into this step, so all have read the one before.
        if step:
            client.key_value_delete(f"{folder}/{step - 1}/{own}")
        return answers

    def read(key: str) -> str:
        while True:
            interruption.check()
            try:
                return str(client.blocking_key_value_get(key, POLL_MILLISECONDS))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise RunError(
                        f"the other processes cannot be reached ({one_line(error)}): "
                        "run the same command again in all of them"
                    ) from error
            for failed, text in client.key_value_dir_get(f"{folder}/failed/"):
                raise _FailedElsewhere(
                    f"process {failed.rpartition('/')[2]} of {jax.process_count()} {text}; nothing finished is "
                    "lost, to resume run the same command again in all of them"
                )

    try:
        yield everyone
        # Nobody goes before all are done: the last failure is told as well.
        everyone(None)
    except _FailedElsewhere:
        raise
    except BaseException as error:
        text = "was interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {one_line(error)}"
        # Where the others are gone as well nobody is left to be told.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            client.key_value_set(f"{folder}/failed/{own}", text)
        raise
