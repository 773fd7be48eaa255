"""States of trainings on disk, by Orbax: the last one that can be read, and errors that say the mend."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jnas.errors import RunError

log = logging.getLogger("jnas")


class Checkpoints(NamedTuple):
    """The states in a folder; made by `open_checkpoints`. manager: of Orbax."""

    path: Path
    manager: Any

    def latest(self) -> int | None:
        """The number of the last stored state."""
        step: int | None = self.manager.latest_step()
        return step

    def restore(self, like: Any) -> Any:
        """The last stored state that can be read, in the form of `like`; `like` itself where none was stored.

        Raises `RunError` where states were stored and none of them can be read, or they are of another shape.
        """
        import orbax.checkpoint as ocp

        target = jax.tree.map(np.asarray, like)
        steps = sorted(self.manager.all_steps(), reverse=True)
        for place, step in enumerate(steps):
            try:
                restored = self.manager.restore(step, args=ocp.args.StandardRestore(target))
                # Orbax gives what it finds, whatever the target.
                jax.tree.map(_require_same_shape, target, restored)
            except Exception as error:
                log.warning("the state of step %d cannot be read (%s)", step, type(error).__name__)
                continue
            for unreadable in steps[:place]:
                # Another state will be stored under this number.
                self.manager.delete(unreadable)
            return restored
        if steps:
            raise RunError(
                f"no state in '{self.path}' can be read, or they are of another network: remove that folder to begin "
                "anew, or give another --out"
            )
        return like

    def store(self, step: int, state: Any) -> None:
        """Store `state` under the number `step`. Raises `RunError` when that fails."""
        import orbax.checkpoint as ocp

        try:
            self.manager.save(step, args=ocp.args.StandardSave(state), force=True)
        except Exception as error:
            raise RunError(
                f"cannot store the state in '{self.path}' ({type(error).__name__}): make room there, then run the same "
                "command again"
            ) from error


@contextlib.contextmanager
def open_checkpoints(path: Path) -> Iterator[Checkpoints]:
    """The states in the folder `path`, of which the last two are kept."""
    import orbax.checkpoint as ocp

    options: dict[str, Any] = {"max_to_keep": 2, "enable_async_checkpointing": False}
    if jax.process_count() > 1:
        # The first process stores what all have: nobody else need see its disk.
        options["create"] = False
        options["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="jnas"
        )
    path = path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    with ocp.CheckpointManager(path, options=ocp.CheckpointManagerOptions(**options)) as manager:
        yield Checkpoints(path, manager)


def last_state(path: Path) -> Any:
    """The last state in the folder `path` as nested mappings of arrays. Raises `RunError` where none can be read."""
    import orbax.checkpoint as ocp

    try:
        with ocp.CheckpointManager(path.absolute()) as manager:
            return manager.restore(manager.latest_step(), args=ocp.args.StandardRestore())
    except Exception as error:
        raise RunError(
            f"the state in '{path}' cannot be read ({type(error).__name__}): run the training again"
        ) from error


def _require_same_shape(expected: Any, restored: Any) -> None:
    if np.shape(expected) != np.shape(restored):
        raise ValueError(f"an array of shape {np.shape(restored)} in place of {np.shape(expected)}")
