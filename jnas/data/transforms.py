"""Changes of images on their way into a network: pure functions of keys and arrays.

Letters: N images, H and W their sides, C channels.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jnas.data.base import Dataset
from jnas.errors import InputError

PADDING = 4


def normalise(dataset: Dataset, images: ArrayLike) -> jax.Array:
    """Standardise each channel by the training images: uint8 or float32 [..., C] -> float32 [..., C].

    (x - mean) / std, where uint8 is divided by 255 first, as it was when `mean` and `std` were measured.
    """
    return standardise(images, dataset.mean, dataset.std)


def standardise(images: ArrayLike, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """`normalise` by a mean and a deviation [C] from wherever they are."""
    images = jnp.asarray(images)
    scaled = images.astype(jnp.float32) / (255 if images.dtype == jnp.uint8 else 1)
    return (scaled - mean) / std


def batches(key: jax.Array, epoch: ArrayLike, images: int, batch: int) -> jax.Array:
    """Order in which an epoch visits the images: int32 [images // batch, batch], without repetition.

    A function of `key` and the number `epoch` alone, so a resumed training sees the same batches. The images
    that do not fill a batch sit this epoch out. Raises `InputError` when there are fewer images than one
    batch.
    """
    if not 0 < batch <= images:
        raise InputError(f"batch {batch} does not fit: there are {images} images; choose from 1 to {images}")
    order = jax.random.permutation(jax.random.fold_in(key, epoch), images)
    return order[: images // batch * batch].reshape(-1, batch).astype(jnp.int32)


def parts(images: np.ndarray, labels: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels in parts of `size`; the last is filled up with images whose label -1 matches nothing."""
    for start in range(0, len(images), size):
        x, y = images[start : start + size], labels[start : start + size]
        fill = size - len(x)
        yield np.pad(x, [(0, fill), (0, 0), (0, 0), (0, 0)]), np.pad(y, (0, fill), constant_values=-1)


def augmentable(dataset: Dataset) -> bool:
    """True where `augment` keeps the labels of this data set.

    Colour images of at least 24 x 24 pixels, but for the street view house numbers: mirrored digits and
    letters are other symbols, which is what gray images mostly show, and four pixels are too much of a
    smaller image.
    """
    height, width, channels = dataset.x_train.shape[1:]
    return channels == 3 and min(height, width) >= 24 and not dataset.name.startswith("svhn")


def augment(key: jax.Array, images: ArrayLike) -> jax.Array:
    """Shift and mirror each image at random: [N, H, W, C] -> [N, H, W, C] of the same type.

    A crop of H x W from the image padded by 4 zeros on every side, mirrored left to right with probability
    1/2: the standard augmentation of CIFAR (He et al., "Deep Residual Learning for Image Recognition", 2015,
    https://arxiv.org/abs/1512.03385). Zeros are black before `normalise`, so augment first.
    """
    images = jnp.asarray(images)
    number, height, width, channels = images.shape
    shift_key, mirror_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (number, 2), 0, 2 * PADDING + 1)
    mirrored = jax.random.bernoulli(mirror_key, shape=(number, 1, 1, 1))
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))

    def crop(image: jax.Array, shift: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (shift[0], shift[1], 0), (height, width, channels))

    cropped = jax.vmap(crop)(padded, shifts)
    return jnp.where(mirrored, cropped[:, :, ::-1], cropped)


def preparation(dataset: Dataset, augmented: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(key, images as they are stored) -> standardised images, shifted and mirrored where `augmented` and in place."""
    augmented = augmented and augmentable(dataset)

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        return normalise(dataset, augment(key, images) if augmented else images)

    return prepare


def cutout(key: jax.Array, images: ArrayLike, size: int) -> jax.Array:
    """Zero in a square of each image: [N, H, W, C] -> [N, H, W, C], standardised images, whose mean is zero.

    The square of `size` pixels is centred anywhere in the image, and may reach beyond it. Source: DeVries and
    Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
    https://arxiv.org/abs/1708.04552.
    """
    images = jnp.asarray(images)
    number, height, width, _ = images.shape
    inside = []
    for side, part in zip((height, width), jax.random.split(key), strict=True):
        centre = jax.random.randint(part, (number, 1), 0, side)
        place = jnp.arange(side)
        inside.append((place >= centre - size // 2) & (place < centre + (size + 1) // 2))
    hidden = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(hidden, 0, images)


def crops(key: jax.Array, images: ArrayLike, n: int, size: int = 3) -> jax.Array:
    """Random one-channel crops, the inputs on which TE-NAS counts linear regions: float32 [n, size, size, 1].

    Each crop comes from a uniform position and channel of a random image of `images` [N, H, W, C]; no image
    serves twice before every other has served. Source: Chen, Gong and Wang, "Neural Architecture Search on
    ImageNet in Four GPU Hours", ICLR 2021, https://arxiv.org/abs/2102.11535.

    Raises `InputError` when `size` exceeds the images.
    """
    images = jnp.asarray(images)
    number, height, width, channels = images.shape
    if not 0 < size <= min(height, width):
        raise InputError(f"crop size {size} does not fit into images of {height}x{width}")
    image_key, place_key = jax.random.split(key)
    chosen = jax.random.permutation(image_key, number)[jnp.arange(n) % number]
    limits = jnp.array([height - size + 1, width - size + 1, channels])
    places = jax.random.randint(place_key, (n, 3), 0, limits)

    def crop(image: jax.Array, place: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(images, (image, *place), (1, size, size, 1))[0]

    return jax.vmap(crop)(chosen, places).astype(jnp.float32)
