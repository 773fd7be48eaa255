"""States of trainings on disk, by Orbax: the last one that can be read, and errors that say the mend."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jnas.errors import RunError

log = logging.getLogger("jnas")


def restore(checkpoints: Any, state: Any, path: Path) -> tuple[int, Any]:
    """(number, state) of the last stored state that can be read; 0 and `state` itself where none was stored.

    checkpoints: Orbax' manager of the folder `path`. Raises `RunError` where states were stored and none of them can
    be read, or they are of another shape than `state`.
    """
    import orbax.checkpoint as ocp

    steps = sorted(checkpoints.all_steps(), reverse=True)
    for place, step in enumerate(steps):
        try:
            restored = checkpoints.restore(step, args=ocp.args.StandardRestore(state))
            # Orbax gives what it finds, whatever was asked for.
            jax.tree.map(_require_same_shape, state, restored)
        except Exception as error:
            log.warning("the state of step %d cannot be read (%s)", step, type(error).__name__)
            continue
        for unreadable in steps[:place]:
            # In the way of the one that will be stored in its place.
            checkpoints.delete(unreadable)
        return step, restored
    if steps:
        raise RunError(
            f"no state in '{path}' can be read, or they are of another network: remove that folder to begin anew, or "
            "give another --out"
        )
    return 0, state


def store(checkpoints: Any, step: int, state: Any, path: Path) -> None:
    """Store `state` under the number `step`. Raises `RunError` when that fails."""
    import orbax.checkpoint as ocp

    try:
        checkpoints.save(step, args=ocp.args.StandardSave(state), force=True)
    except Exception as error:
        raise RunError(
            f"cannot store the state in '{path}' ({type(error).__name__}): make room there, then run the same command "
            "again"
        ) from error


def _require_same_shape(wanted: Any, found: Any) -> None:
    if np.shape(wanted) != np.shape(found):
        raise ValueError(f"an array of shape {np.shape(found)} in place of {np.shape(wanted)}")
