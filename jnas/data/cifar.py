"""CIFAR-10 and CIFAR-100 in the folders of Python batches in which they are published.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. The batches are pickles; a pickle can run any program when it is
loaded. So the unpickler here knows nothing but plain containers and byte arrays.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from jnas.data import base
from jnas.errors import InputError

# folder as published -> training files, test file, key of the labels, number of classes
LAYOUTS = {
    "cifar-10-batches-py": (tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", b"labels", 10),
    "cifar-100-python": (("train",), "test", b"fine_labels", 100),
}


def find(path: Path) -> tuple[Path, str] | None:
    """Find a folder of batches, `path` or a folder in it, and its key in `LAYOUTS`; None if there is none."""
    for layout, (train, *_) in LAYOUTS.items():
        for folder in (path, path / layout):
            if (folder / train[0]).is_file():
                return folder, layout
    return None


def load(folder: Path, layout: str) -> base.Dataset:
    """Read a folder of batches: uint8 [N, 32, 32, 3].

    Raises `InputError` when a batch is missing, damaged or of another layout, and as `base.dataset`
    does.
    """
    train, test, key, classes = LAYOUTS[layout]
    parts = [_batch(folder / name, key) for name in train]
    x_test, y_test = _batch(folder / test, key)
    x_train, y_train = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return base.dataset(f"cifar{classes}", x_train, y_train, x_test, y_test, classes=classes)


def _batch(path: Path, key: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
        images = np.asarray(content[b"data"].array).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.array(content[key])
    except FileNotFoundError as error:
        raise InputError(
            f"data '{path}' is missing; the folder must hold every batch of the archive from "
            "https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error
    # A damaged pickle can raise nearly anything from the unpickler.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"data '{path}' is not a CIFAR batch ({reason}); fetch it again from "
            "https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error
    return images, labels


class _Array:
    """Stand-in for a NumPy array while a batch is read; accepts bytes and nothing else."""

    array: np.ndarray

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, content = state
        if dtype.name not in (b"u1", "u1") or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array is not of unsigned bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if column_major else "C")


class _DType:
    """Stand-in for a NumPy data type: its name."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Resolves the names in a published batch to the harmless classes above and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _DType,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return known[module, name]
