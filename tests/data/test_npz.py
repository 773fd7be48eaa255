import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jnas.data import load
from jnas.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, (20, 6, 6, 3), np.uint8),
        "y_train": np.arange(20) % 2,
        "x_test": generator.integers(0, 256, (8, 6, 6, 3), np.uint8),
        "y_test": np.arange(8) % 2,
    }


def refused(path, fault):
    with pytest.raises(InputError) as caught:
        load(str(path))
    message = str(caught.value)
    assert fault in message and str(path.name).removesuffix(".npz") in message and "\n" not in message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, arrays, save):
    path = tmp_path / "mine.npz"
    save(path, index=np.arange(3), **arrays)
    read = load(str(path))
    assert read.name == "mine"
    for key, array in arrays.items():
        assert np.array_equal(getattr(read, key), array)


def test_missing_keys_are_named(tmp_path, arrays):
    path = tmp_path / "mine.npz"
    del arrays["y_test"]
    np.savez(path, **arrays)
    refused(path, "has no y_test, only x_train, y_train, x_test;")


def test_an_empty_archive(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path)
    refused(path, "has no x_train, y_train, x_test, y_test, only nothing")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 broken", b"text", b"\x93NUMPY\x01\x00"])
def test_a_broken_file(tmp_path, content):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    refused(path, "cannot be read")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file(tmp_path, arrays, keep, save):
    path = tmp_path / "mine.npz"
    save(path, **arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    refused(path, "cannot be read")


def test_a_flipped_byte_is_noticed(tmp_path, arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    refused(path, "cannot be read")


def test_a_single_array(tmp_path):
    path = tmp_path / "mine.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    refused(path, "is a single array")


class Exploding:
    def __reduce__(self):
        return exit, (3,)


def test_pickles_are_not_executed(tmp_path, arrays):
    path = tmp_path / "mine.npz"
    arrays["y_train"] = np.array([Exploding()] * 20, object)
    np.savez(path, **arrays)
    refused(path, "cannot be read")


def compact(images, format="png"):
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format)
        files.append(file.getvalue())
    return np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *(len(file) for file in files)])


@pytest.fixture
def packed(arrays):
    train, test = compact(arrays["x_train"]), compact(arrays["x_test"])
    return {
        "jpeg_train": train[0], "offset_train": train[1], "y_train": arrays["y_train"],
        "jpeg_test": test[0], "offset_test": test[1], "y_test": arrays["y_test"],
    }  # fmt: skip


def test_the_compact_form(tmp_path, arrays, packed):
    path = tmp_path / "mine.npz"
    np.savez(path, **packed)
    read = load(str(path))
    for key, array in arrays.items():
        assert np.array_equal(getattr(read, key), array)


def test_the_compact_form_damaged(tmp_path, packed):
    path = tmp_path / "mine.npz"
    np.savez(path, **{**packed, "offset_train": packed["offset_train"][::-1]})
    refused(path, "offset_train does not cut jpeg_train into images")
    np.savez(path, **{**packed, "jpeg_test": packed["jpeg_test"] * 0})
    refused(path, "image 0 of jpeg_test")
    np.savez(path, **{**packed, "jpeg_test": packed["jpeg_test"].astype(int)})
    refused(path, "jpeg_test is int64")
    np.savez(path, **{key: value for key, value in packed.items() if key != "offset_test"})
    refused(path, "has no offset_test")


@pytest.mark.skipif(not SHARED.exists(), reason=f"no data at {SHARED}")
def test_cifar10_subset():
    read = load(str(SHARED / "cifar10_subset.npz"))
    assert read.x_train.shape == (5085, 32, 32, 3) and read.x_test.shape == (1017, 32, 32, 3)
    assert read.classes == 10 and read.x_train.dtype == np.uint8
    # The published statistics of CIFAR-10, of which this is a sample.
    assert np.allclose(read.mean, [0.4914, 0.4822, 0.4465], atol=0.01)
    assert np.allclose(read.std, [0.2470, 0.2435, 0.2616], atol=0.01)
