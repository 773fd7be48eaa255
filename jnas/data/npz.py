"""Data sets in NumPy's `.npz` format, as arrays or as JPEG bytes."""

import io
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from jnas.data import base
from jnas.data.images import decode
from jnas.errors import InputError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
JPEG = ("jpeg_train", "offset_train", "y_train", "jpeg_test", "offset_test", "y_test")


def load(path: Path) -> base.Dataset:
    """Read a `.npz` file; other keys than those named here are ignored and nothing is unpickled.

    Arrays: `x_train`, `x_test` images [N, H, W, C] or [N, H, W], integers 0..255 or floats; `y_train`,
    `y_test` integers [N].

    Compact form: `jpeg_train`, `jpeg_test` uint8, the files of all images one after the other (JPEG or any
    other format that Pillow reads); `offset_train`, `offset_test` integers [N + 1], image i is
    `jpeg_train[offset_train[i]:offset_train[i + 1]]`; `y_train`, `y_test` as above.

    Raises `InputError` when the file is no such archive, is damaged, or lacks a key, and as `base.dataset`
    does.
    """
    wanted = f"needed is a .npz file with {', '.join(ARRAYS)}, as numpy.savez writes it"
    try:
        # NumPy leaves a file that it opened itself open when the content is damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise InputError(f"data '{path}' is a single array; {wanted}")
            keys = JPEG if "jpeg_train" in archive and "x_train" not in archive else ARRAYS
            missing = [key for key in keys if key not in archive]
            if missing:
                raise InputError(
                    f"data '{path}' has no {', '.join(missing)}, only {', '.join(archive) or 'nothing'}; {wanted}"
                )
            arrays = {key: archive[key] for key in keys}
    except InputError:
        raise
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"data '{path}' cannot be read ({reason}); {wanted}") from error
    if keys is JPEG:
        x_train = _unpack(path, "train", arrays["jpeg_train"], arrays["offset_train"])
        x_test = _unpack(path, "test", arrays["jpeg_test"], arrays["offset_test"])
    else:
        x_train, x_test = arrays["x_train"], arrays["x_test"]
    return base.dataset(path.stem, x_train, arrays["y_train"], x_test, arrays["y_test"])


def _unpack(path: Path, split: str, data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    if data.ndim != 1 or data.dtype != np.uint8:
        raise InputError(
            f"data '{path}': jpeg_{split} is {data.dtype} {data.shape}; it must be uint8, one axis"
        )
    positions = offsets.ndim == 1 and np.issubdtype(offsets.dtype, np.integer) and len(offsets) > 1
    if not positions or (offsets[1:] <= offsets[:-1]).any() or offsets[0] < 0 or offsets[-1] > len(data):
        raise InputError(
            f"data '{path}': offset_{split} does not cut jpeg_{split} into images; "
            f"it needs N + 1 rising positions from 0 to {len(data)}"
        )
    content = data.tobytes()
    files = (io.BytesIO(content[low:high]) for low, high in pairwise(offsets.tolist()))
    return decode((f"image {i} of jpeg_{split} in '{path}'", file) for i, file in enumerate(files))
