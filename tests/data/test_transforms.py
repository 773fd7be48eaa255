import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas.data import load
from jnas.data.base import dataset
from jnas.data.transforms import augment, augmentable, batches, crops, normalise, parts
from jnas.errors import InputError

IMAGES = np.random.default_rng(0).integers(1, 256, (40, 12, 10, 3), np.uint8)
LABELS = np.arange(40) % 2
DATASET = dataset("made", IMAGES, LABELS, IMAGES, LABELS)


@pytest.mark.parametrize("scale", [1, 0.01])
def test_normalised_training_images_have_mean_0_and_deviation_1(scale):
    images = IMAGES if scale == 1 else IMAGES * scale
    normalised = jax.jit(lambda x: normalise(dataset("made", images, LABELS, images, LABELS), x))(
        jnp.asarray(images, images.dtype if scale == 1 else jnp.float32)
    )
    assert normalised.dtype == jnp.float32 and normalised.shape == IMAGES.shape
    assert np.abs(normalised.mean(axis=(0, 1, 2))).max() < 1e-5
    assert np.abs(normalised.std(axis=(0, 1, 2)) - 1).max() < 1e-5


def test_the_embedded_digits_normalise_too():
    digits = load("digits")
    assert abs(float(normalise(digits, digits.x_train).std()) - 1) < 1e-5


@pytest.mark.parametrize(("seed", "epoch", "batch"), [(0, 0, 1), (7, 3, 8), (1, 999, 50)])
def test_an_epoch_visits_no_image_twice_and_depends_on_key_and_epoch_alone(seed, epoch, batch):
    key = jax.random.key(seed)
    order = batches(key, epoch, 50, batch)
    assert order.shape == (50 // batch, batch) and order.dtype == jnp.int32
    assert len(np.unique(order)) == order.size and order.min() >= 0 and order.max() < 50
    assert jnp.array_equal(order, jax.jit(batches, static_argnums=(2, 3))(key, epoch, 50, batch))


def test_epochs_differ():
    key = jax.random.key(0)
    assert not jnp.array_equal(batches(key, 0, 50, 5), batches(key, 1, 50, 5))


@pytest.mark.parametrize("batch", [0, -1, 51])
def test_a_batch_that_does_not_fit(batch):
    with pytest.raises(InputError, match=f"batch {batch} does not fit: there are 50 images"):
        batches(jax.random.key(0), 0, 50, batch)


def test_only_photographs_are_augmented():
    def of(name, *shape):
        images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
        return dataset(name, images, np.arange(4) % 2, images, np.arange(4) % 2)

    assert augmentable(of("cifar10", 32, 32, 3))
    assert not augmentable(of("mnist", 28, 28, 1))
    assert not augmentable(of("small", 16, 32, 3))
    assert not augmentable(of("svhn_cropped", 32, 32, 3))
    assert not augmentable(load("digits"))


def test_augmented_images_are_shifted_and_mirrored_originals():
    augmented = np.asarray(jax.jit(augment)(jax.random.key(0), IMAGES))
    assert augmented.shape == IMAGES.shape and augmented.dtype == np.uint8
    places, mirrors = set(), 0
    for image, changed in zip(IMAGES, augmented, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        found = [
            (top, left, mirrored)
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            if np.array_equal(padded[top : top + 12, left : left + 10][:, :: -1 if mirrored else 1], changed)
        ]
        assert len(found) == 1
        places.add(found[0][:2])
        mirrors += found[0][2]
    assert len(places) > 20 and 8 < mirrors < 32
    assert not np.array_equal(augmented, augment(jax.random.key(1), IMAGES))


def test_crops_are_pieces_of_one_channel():
    found = jax.jit(crops, static_argnums=2)(jax.random.key(0), normalise(DATASET, IMAGES), 40)
    assert found.shape == (40, 3, 3, 1) and found.dtype == jnp.float32
    windows = np.lib.stride_tricks.sliding_window_view(
        np.asarray(normalise(DATASET, IMAGES)), (3, 3), axis=(1, 2)
    )
    sources, corners, channels = [], set(), set()
    for crop in np.asarray(found)[..., 0]:
        image, top, left, channel = np.argwhere((windows == crop).all(axis=(-1, -2)))[0]
        sources.append(image)
        corners.add((top, left))
        channels.add(channel)
    # As many crops as images: each image serves once.
    assert sorted(sources) == list(range(40))
    assert len(corners) > 20 and channels == {0, 1, 2}


def test_more_crops_than_images_and_other_sizes():
    assert crops(jax.random.key(0), IMAGES, 100).shape == (100, 3, 3, 1)
    whole = crops(jax.random.key(0), IMAGES, 7, size=10)
    assert whole.shape == (7, 10, 10, 1) and whole.dtype == jnp.float32
    with pytest.raises(InputError, match="crop size 11 does not fit into images of 12x10"):
        crops(jax.random.key(0), IMAGES, 7, size=11)


def test_parts_are_of_the_size_asked_for():
    """Devices share a part of a training's test images as they share a batch: by its size."""
    images, labels = np.arange(70.0).reshape(70, 1, 1, 1), np.arange(70)
    found = list(parts(images, labels, 32))
    assert [len(x) for x, _ in found] == [len(y) for _, y in found] == [32, 32, 32]
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), [*range(70), *[-1] * 26])
    ((few, own),) = parts(images[:5], labels[:5], 32)
    assert len(few) == len(own) == 32 and (own[5:] == -1).all()
