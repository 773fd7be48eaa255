"""A data set in memory, and the checks that every source goes through.

Letters: N images, H and W their sides, C channels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jnas.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """Images with integer labels, in two splits that do not overlap.

    | field | meaning |
    |---|---|
    | `name` | name of the data set, or of the file or folder it was read from |
    | `x_train`, `x_test` | images, uint8 or float32 [N, H, W, C] |
    | `y_train`, `y_test` | labels, int32 [N], from 0 to `classes` - 1 |
    | `classes` | number of classes |
    | `mean`, `std` | float32 [C], of each channel of `x_train`; uint8 divided by 255, float32 as it is |
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    mean: np.ndarray
    std: np.ndarray


def dataset(
    name: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any, classes: int | None = None
) -> Dataset:
    """Check arrays, bring them to the types of `Dataset`, and measure the training images.

    Images are [N, H, W, C] or, when gray, [N, H, W]; integers from 0 to 255, or finite floats. Without
    `classes` there is one more class than the largest training label. A constant channel gets `std` 1.

    Raises `InputError` for images of another rank, type or range, with NaN or infinity, an empty split,
    labels that are not integers of the allowed range, splits or labels that do not fit one another, and a
    single class.
    """
    data = f"data '{name}':"
    x_train, x_test = _images(f"{data} x_train", x_train), _images(f"{data} x_test", x_test)
    if x_train.shape[1:] != x_test.shape[1:]:
        train, test = ("x".join(map(str, images.shape[1:])) for images in (x_train, x_test))
        raise InputError(
            f"{data} images of x_train are {train} but those of x_test {test} (height x width x channels); "
            "make them equal"
        )
    if x_train.dtype != x_test.dtype:
        raise InputError(f"{data} x_train holds {x_train.dtype} but x_test {x_test.dtype}; store both alike")
    y_train = _labels(f"{data} y_train", y_train, len(x_train), classes)
    if len(np.unique(y_train)) < 2:
        raise InputError(f"{data} every label in y_train is {y_train[0]}; give images of two classes or more")
    counted = int(y_train.max()) + 1
    if classes is None and counted > len(y_train):
        raise InputError(
            f"{data} y_train holds label {counted - 1} but only {len(y_train)} images; "
            "number the classes 0, 1, 2, ..."
        )
    classes = classes or counted
    y_test = _labels(f"{data} y_test", y_test, len(x_test), classes)
    if first := min(int(y_train.min()), int(y_test.min())):
        raise InputError(f"{data} labels begin with {first}; number the classes 0, 1, 2, ...")
    mean, std = _moments(x_train)
    return Dataset(name, x_train, y_train, x_test, y_test, classes, mean, std)


def stratified_split(labels: np.ndarray, seed: int, fraction: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Indices int64 of a training and a test part; the test part takes `fraction` of each class.

    A class of two images or more gives at least one and keeps at least one. Equal seeds give equal splits.
    """
    generator = np.random.default_rng(seed)
    test = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        share = max(1, round(fraction * len(members)))
        test.append(members[: min(share, len(members) - 1)])
    chosen = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _images(key: str, images: Any) -> np.ndarray:
    """Images as `Dataset` holds them; errors begin with `key`."""
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise InputError(
            f"{key} has shape {images.shape}; images are [N, height, width, channels], or "
            "[N, height, width] when gray"
        )
    if 0 in images.shape:
        raise InputError(f"{key} is empty, its shape is {images.shape}; give at least one image")
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise InputError(
            f"{key} has shape {images.shape}, channels first; transpose it to [N, height, width, channels]"
        )
    if np.issubdtype(images.dtype, np.integer):
        low, high = images.min(), images.max()
        if low < 0 or high > 255:
            raise InputError(f"{key} holds integers from {low} to {high}; allowed are 0..255, or floats")
        return images.astype(np.uint8, copy=False)
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"{key} holds {images.dtype}; store integers from 0 to 255, or floats")
    with np.errstate(over="ignore"):
        images = images.astype(np.float32, copy=False)
    bad = ~np.isfinite(images).all(axis=(1, 2, 3))
    if bad.any():
        raise InputError(
            f"{key} holds NaN or infinity in {bad.sum()} of {len(bad)} images, first in image "
            f"{bad.argmax()}; remove or repair them"
        )
    return images


def _labels(key: str, labels: Any, images: int, classes: int | None) -> np.ndarray:
    """Labels as `Dataset` holds them; errors begin with `key`."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise InputError(f"{key} has shape {labels.shape}; give an integer for each image, ({images},)")
    if len(labels) != images:
        raise InputError(f"{key} has {len(labels)} labels for {images} images; give one for each image")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{key} holds {labels.dtype}; labels are integers 0, 1, 2, ...")
    highest = np.iinfo(np.int32).max - 1 if classes is None else classes - 1
    wrong = (labels < 0) | (labels > highest)
    if wrong.any():
        allowed = "0, 1, 2, ..." if classes is None else f"0..{highest}"
        raise InputError(
            f"{key} holds label {labels[wrong.argmax()]} at position {wrong.argmax()}; allowed are {allowed}"
        )
    return labels.astype(np.int32)


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float32[C]; float64 sums over blocks, to save memory."""
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    step = max(1, 2**22 // images[0].size)
    blocks = [images[start : start + step] for start in range(0, len(images), step)]
    pixels = images[..., 0].size
    sums = [np.sum(block, axis=(0, 1, 2), dtype=np.float64) for block in blocks]
    mean = np.sum(sums, axis=0) / pixels
    variance = np.sum([np.sum((block - mean) ** 2, axis=(0, 1, 2)) for block in blocks], axis=0) / pixels
    std = np.where(variance > 0, np.sqrt(variance), scale)
    return (mean / scale).astype(np.float32), (std / scale).astype(np.float32)
