import pickle
import struct
import warnings

import numpy as np
import pytest

from jnas.data import load
from jnas.errors import InputError


def text(content: bytes) -> bytes:
    """A Python 2 string as protocol 2 writes it."""
    return (
        b"U" + bytes([len(content)]) + content
        if len(content) < 256
        else b"T" + struct.pack("<i", len(content)) + content
    )


def array(images: np.ndarray, dtype: bytes = b"u1") -> bytes:
    """A NumPy array as Python 2 wrote it into the published batches."""
    shape = b"".join(b"J" + struct.pack("<i", side) for side in images.shape) + b"\x86"
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n(" + text(dtype) + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNNJ" + b"\xff" * 4
    kind += b"J" + b"\xff" * 4 + b"K\x00tb"
    return reconstruct + b"(K\x01" + shape + kind + b"\x89" + text(images.tobytes()) + b"tb"


def batch(images: np.ndarray, labels: list[int], key: bytes = b"labels", dtype: bytes = b"u1") -> bytes:
    """A published batch: the channel planes of each image in a row, a list of labels, Python 2 strings."""
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    entries = text(b"batch_label") + text(b"training batch 1 of 5")
    entries += text(key) + numbers + text(b"data") + array(rows, dtype)
    return b"\x80\x02}(" + entries + b"u."


def images(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cifar-10-batches-py"
    path.mkdir()
    for i in range(1, 6):
        (path / f"data_batch_{i}").write_bytes(batch(images(4, i), [0, 9, 3, i]))
    (path / "test_batch").write_bytes(batch(images(3, 9), [1, 2, 3]))
    (path / "batches.meta").write_bytes(b"not needed")
    return path


def test_the_batches_of_this_file_are_real_pickles_of_arrays():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = pickle.loads(batch(images(4, 1), [0, 9, 3, 1]), encoding="bytes")
    assert isinstance(content[b"data"], np.ndarray) and content[b"labels"] == [0, 9, 3, 1]
    assert np.array_equal(content[b"data"].reshape(4, 3, 32, 32).transpose(0, 2, 3, 1), images(4, 1))


def refused(path, fault):
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert fault in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("above", [False, True])
def test_cifar10(folder, above):
    read = load(str(folder.parent if above else folder))
    assert read.name == "cifar10" and read.classes == 10
    assert np.array_equal(read.x_train, np.concatenate([images(4, i) for i in range(1, 6)]))
    assert read.y_train.tolist() == [label for i in range(1, 6) for label in (0, 9, 3, i)]
    assert np.array_equal(read.x_test, images(3, 9)) and read.y_test.tolist() == [1, 2, 3]


def test_cifar100(tmp_path):
    (tmp_path / "train").write_bytes(batch(images(5, 0), [0, 99, 3, 4, 5], b"fine_labels"))
    (tmp_path / "test").write_bytes(batch(images(2, 1), [98, 1], b"fine_labels"))
    read = load(str(tmp_path))
    assert read.name == "cifar100" and read.classes == 100
    assert np.array_equal(read.x_train, images(5, 0)) and read.y_train.tolist() == [0, 99, 3, 4, 5]


def test_a_missing_batch_is_named(folder):
    (folder / "data_batch_4").unlink()
    refused(folder, "data_batch_4' is missing")


def test_a_label_out_of_range(folder):
    (folder / "test_batch").write_bytes(batch(images(3, 9), [1, 2, 10]))
    refused(folder, "label 10 at position 2; allowed are 0..9")


@pytest.mark.parametrize("keep", [0, 10, 60, 3000, -1])
def test_a_truncated_batch(folder, keep):
    content = (folder / "data_batch_2").read_bytes()
    (folder / "data_batch_2").write_bytes(content[:keep])
    refused(folder, "data_batch_2' is not a CIFAR batch")


def test_another_array_type_is_refused(folder):
    (folder / "test_batch").write_bytes(batch(images(3, 9), [1, 2, 3], dtype=b"i8"))
    refused(folder, "not of unsigned bytes")


def test_another_key_is_refused(folder):
    (folder / "test_batch").write_bytes(batch(images(3, 9), [1, 2, 3], b"coarse_labels"))
    refused(folder, "KeyError")


class Exploding:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_not_executed(folder, tmp_path, protocol):
    marker = tmp_path / "executed"
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Exploding(marker)}, protocol))
    refused(folder, "which is not allowed")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(S'touch executed'\nios\nsystem\n.",
        b'cbuiltins\neval\n(S\'open("executed", "w")\'\ntR.',
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
        b"cnumpy\nndarray.__class__\n.",
        b"cnumpy.core.multiarray\nfrombuffer\n.",
        b"c_codecs\nencode\n.",
        b"P1\n.",
    ],
)
def test_other_ways_into_a_program_are_closed(folder, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "data_batch_1").write_bytes(content)
    refused(folder, "is not a CIFAR batch")
    assert not (tmp_path / "executed").exists()
