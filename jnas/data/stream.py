"""Batches of training images in a fixed order, from memory or from a disk that holds more than memory does.

A `Stream` is what a training sees of its data. Its batches are a function of a key and the number of the step, so
that a training that goes on reads what it would have read. Images on disk are read by grain (extra `train`), a few
batches ahead in worker threads: never more than those are in memory.

For images of unequal size, those of ImageNet: a random part of 8 to 100 % of the area with sides in a ratio of 3/4
to 4/3, resized, in training; the middle 7/8 in evaluation (Szegedy et al., 2015,
https://arxiv.org/abs/1409.4842), standardised by ImageNet's mean and deviation.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jnas.data import folder, transforms
from jnas.data.base import Dataset
from jnas.errors import InputError

Batches = Iterator[tuple[np.ndarray, np.ndarray]]
# Of the channels of ImageNet's training images, divided by 255.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AREA, RATIO, MIDDLE = (0.08, 1.0), (3 / 4, 4 / 3), 7 / 8


class Stream(NamedTuple):
    """name; image: (H, W, C); classes; images: how many there are to train on; augmentable: whether shifting and
    mirroring on the device is in place. mean, std: float32[C] of images from 0 to 1 (of floats as they are).

    train: (key, batch, first step, rows) -> endless batches uint8 or float32 [B, H, W, C], int32[B]; images that do
    not fill a batch sit an epoch out. test: (batch, rows) -> all test images, the last batch filled up with label -1.
    rows: those of each batch that are wanted, where several processes share it.
    """

    name: str
    image: tuple[int, int, int]
    classes: int
    images: int
    tests: int
    augmentable: bool
    mean: np.ndarray
    std: np.ndarray
    train: Callable[[jax.Array, int, int, slice], Batches]
    test: Callable[[int, slice], Batches]


def of_dataset(dataset: Dataset) -> Stream:
    """The stream of a data set in memory."""

    def train(key: jax.Array, batch: int, first: int, rows: slice) -> Batches:
        count = len(dataset.x_train)
        epoch, within = divmod(first, count // batch)
        while True:
            for chosen in np.asarray(transforms.batches(key, epoch, count, batch))[within:, rows]:
                yield dataset.x_train[chosen], dataset.y_train[chosen]
            epoch, within = epoch + 1, 0

    def test(batch: int, rows: slice) -> Batches:
        for x, y in transforms.parts(dataset.x_test, dataset.y_test, batch):
            yield x[rows], y[rows]

    return Stream(
        dataset.name, dataset.x_train.shape[1:], dataset.classes, len(dataset.x_train), len(dataset.x_test),
        transforms.augmentable(dataset), dataset.mean, dataset.std, train, test,
    )  # fmt: skip


def of_folder(path: str | Path, side: int, threads: int = 16) -> Stream:
    """The stream of `train/CLASS/IMAGE` and `val/CLASS/IMAGE` (or `test`), cut and resized to side x side.

    Raises `InputError` where the folders are missing or hold no images, a class stands in one alone, an image cannot be
    read (when its turn comes), and where grain or pillow is not installed.
    """
    try:
        import grain
    except ImportError as error:
        raise InputError(
            "reading images as they are needed takes grain: pip install 'jnas[train]'"
        ) from error
    path = Path(path)
    held = next((name for name in ("val", "test") if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or held is None:
        raise InputError(f"data '{path}' needs folders train/CLASS/IMAGE and val/CLASS/IMAGE")
    names = folder.classes(path / "train")
    unknown = sorted(set(folder.classes(path / held)) - set(names))
    if unknown:
        raise InputError(f"data '{path}': {held} has class '{unknown[0]}' that train lacks")
    (files, labels), (tests, test_labels) = (folder.listed(path / part, names) for part in ("train", held))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)

    def batches_of(items: np.ndarray, read: Callable[..., Any]) -> Batches:
        """`read` of each of items [batches, B], a batch at a time."""
        source = grain.MapDataset.source(items.reshape(-1)).map(read)
        for x, y in source.batch(items.shape[1]).to_iter_dataset(options):
            yield x, y.astype(np.int32)

    def train(key: jax.Array, batch: int, first: int, rows: slice) -> Batches:
        batches, seed = len(files) // batch, int(jax.random.key_data(key)[-1])
        # An epoch at a time: a shuffle over the repeated set would mix epochs.
        epoch, within = divmod(first, batches)
        while True:
            order = np.random.default_rng((seed, epoch)).permutation(len(files))

            def read(place: int, epoch: int = epoch, order: np.ndarray = order) -> tuple[np.ndarray, Any]:
                # By its place, so that whoever reads an image cuts the same part of it.
                generator = np.random.default_rng((seed, epoch, int(place)))
                index = order[place]
                return random_part(_open(files[index]), side, generator), labels[index]

            yield from batches_of(np.arange(batches * batch).reshape(batches, batch)[within:, rows], read)
            epoch, within = epoch + 1, 0

    def test(batch: int, rows: slice) -> Batches:
        def read(index: int) -> tuple[np.ndarray, Any]:
            if index < 0:
                return np.zeros((side, side, 3), np.uint8), np.int32(-1)
            return middle_part(_open(tests[index]), side), test_labels[index]

        batches = -(-len(tests) // batch)
        filled = np.pad(np.arange(len(tests)), (0, batches * batch - len(tests)), constant_values=-1)
        yield from batches_of(filled.reshape(batches, batch)[:, rows], read)

    mean, std = (np.array(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return Stream(
        path.name, (side, side, 3), len(names), len(files), len(tests), False, mean, std, train, test
    )


def _open(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"image '{path}' cannot be read ({error}): remove or replace it") from error


def random_part(image: Any, side: int, generator: np.random.Generator) -> np.ndarray:
    """A random part of a PIL image, mirrored half of the time: uint8[side, side, 3]."""
    from PIL import Image

    width, height = image.size
    # As everywhere: ten tries, then the middle.
    for _ in range(10):
        area = width * height * generator.uniform(*AREA)
        ratio = np.exp(generator.uniform(*np.log(RATIO)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = generator.integers(0, width - w + 1), generator.integers(0, height - h + 1)
            box = (left, top, left + w, top + h)
            break
    else:
        return middle_part(image, side)
    resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box), np.uint8)
    return resized[:, ::-1] if generator.random() < 0.5 else resized


def middle_part(image: Any, side: int) -> np.ndarray:
    """The middle square of 7/8 of a PIL image's shorter side: uint8[side, side, 3]."""
    from PIL import Image

    width, height = image.size
    square = MIDDLE * min(width, height)
    left, top = (width - square) / 2, (height - square) / 2
    box = (left, top, left + square, top + square)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box), np.uint8)
