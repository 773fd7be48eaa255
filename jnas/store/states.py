"""States of strategies as files: the arrays of a state, without pickles.

A file is an `.npz` with one array for each leaf of the state, and the name of the strategy. It is read against a fresh
state of the strategy: places, shapes and dtypes must agree. A leaf that is empty or absent in a fresh state grows in a
search and may be of any length; keys of JAX are stored as their bits. What is no array, such as a space, must be that
of a fresh state, and is not stored.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnas.errors import InputError
from jnas.store.folder import write_file
from jnas.types import State, Strategy

FORMAT = "jnas state 1"


def save_state(path: str | Path, strategy: Strategy, state: State) -> None:
    """Write the state of a strategy into the file `path`, in place of one that is there.

    Raises `InputError` for a state that is not made of arrays and numbers, `RunError` when the disk is full.
    """
    arrays: dict[str, Any] = {}
    for name, leaf in _leaves(state):
        if _is_data(leaf):
            arrays[name] = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        elif leaf is not None and dict(_leaves(strategy.init(jax.random.key(0)))).get(name) != leaf:
            raise InputError(
                f"the state of {strategy.name} has {type(leaf).__name__} at {name}: keep arrays and numbers in it"
            )
    with io.BytesIO() as stream:
        header = json.dumps({"format": FORMAT, "strategy": strategy.name})
        np.savez_compressed(stream, **arrays, header=np.array(header))
        write_file(Path(path), stream.getvalue())


def load_state(path: str | Path, strategy: Strategy) -> State:
    """The state in a file that `save_state` wrote, for the same strategy with the same settings.

    Raises `InputError` where there is no such file, it is damaged, or it is of another strategy, space, budget or
    settings.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}")
    except FileNotFoundError:
        raise InputError(f"no state '{path}': write one with jnas.save_state") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).split())
        raise InputError(f"'{path}' is damaged or no state of a strategy ({text}): begin anew") from None
    if header["strategy"] != strategy.name:
        raise InputError(
            f"'{path}' is a state of {header['strategy']}, not of {strategy.name}: make that strategy, or begin anew"
        )

    # Every array has its place in a fresh state, and every place its array.
    fresh = strategy.init(jax.random.key(0))
    places = _leaves(fresh)
    if unknown := sorted(arrays.keys() - {name for name, _ in places}):
        raise _other(path, strategy, f"{unknown[0]} is not in its state")
    leaves = []
    for name, leaf in places:
        if name not in arrays and _is_data(leaf):
            raise _other(path, strategy, f"it lacks {name}")
        leaves.append(_restored(path, strategy, name, leaf, arrays[name]) if name in arrays else leaf)
    return jax.tree.unflatten(jax.tree.structure(fresh, is_leaf=_is_none), leaves)


def _restored(path: str | Path, strategy: Strategy, name: str, fresh: Any, array: np.ndarray) -> Any:
    """An array as the kind of leaf that a fresh state has in its place."""
    if fresh is None:
        return array
    like = np.asarray(jax.random.key_data(fresh) if _is_key(fresh) else fresh)
    # Empty at first: it grows.
    first = 1 if like.ndim and not len(like) else 0
    alike = like.ndim == array.ndim and like.shape[first:] == array.shape[first:]
    if not alike or like.dtype != array.dtype:
        raise _other(
            path, strategy, f"{name} is {array.dtype}{list(array.shape)}, not {like.dtype}{list(like.shape)}"
        )
    if _is_key(fresh):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(fresh))
    if isinstance(fresh, bool | int | float):
        return type(fresh)(array)
    return jnp.asarray(array) if isinstance(fresh, jax.Array) else array


def _leaves(state: State) -> list[tuple[str, Any]]:
    """Leaves with their places, such as `.archive.values`; None counts as one."""
    flat = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_none)[0]
    return [(jax.tree_util.keystr(place) or "state", leaf) for place, leaf in flat]


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _is_data(leaf: Any) -> bool:
    return _is_key(leaf) or (leaf is not None and np.asarray(leaf).dtype.kind in "biufc")


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _other(path: str | Path, strategy: Strategy, why: str) -> InputError:
    return InputError(
        f"'{path}' is of {strategy.name} with another space, budget or settings ({why}): make it as it was made then"
    )
