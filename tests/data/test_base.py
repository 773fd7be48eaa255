import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jnas.data import DATA, load
from jnas.data.base import dataset, stratified_split
from jnas.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3))
LABELS = np.arange(12) % 3


def make(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:6], y_test=LABELS[:6], **options):
    return dataset("made", x_train, y_train, x_test, y_test, **options)


def test_types_and_moments():
    made = make()
    assert made.x_train.dtype == made.x_test.dtype == np.uint8
    assert made.y_train.dtype == made.y_test.dtype == np.int32
    assert made.classes == 3
    assert made.mean.dtype == made.std.dtype == np.float32
    assert np.allclose(made.mean, (IMAGES / 255).mean(axis=(0, 1, 2)))
    assert np.allclose(made.std, (IMAGES / 255).std(axis=(0, 1, 2)))


def test_gray_images_get_a_channel_and_floats_stay():
    gray = make(x_train=IMAGES[..., 0] / 7, x_test=IMAGES[:6, ..., 0] / 7)
    assert gray.x_train.shape == (12, 4, 5, 1) and gray.x_train.dtype == np.float32
    assert np.allclose(gray.mean, (IMAGES[..., 0] / 7).mean())


def test_a_constant_channel_does_not_divide_by_zero():
    constant = IMAGES.copy()
    constant[..., 1] = 9
    assert make(x_train=constant).std[1] == 1


def test_the_test_part_may_lack_classes():
    assert make(y_test=np.zeros(6, int)).classes == 3
    assert make(classes=10).classes == 10


def with_value(value, dtype=float):
    images = IMAGES.astype(dtype)
    images[3, 0, 0, 0] = value
    return images


FLOAT_TEST = IMAGES[:6].astype(float)
WRONG = {
    "NaN": ({"x_train": with_value(np.nan), "x_test": FLOAT_TEST}, "in 1 of 12 images, first in image 3"),
    "infinity": ({"x_train": with_value(np.inf), "x_test": FLOAT_TEST}, "x_train holds NaN or infinity"),
    "too large for float32": ({"x_train": with_value(1e300), "x_test": FLOAT_TEST}, "NaN or infinity"),
    "integers above 255": ({"x_train": with_value(256, int)}, "integers from 0 to 256; allowed are 0..255"),
    "negative integers": ({"x_train": with_value(-1, int)}, "integers from -1 to 255"),
    "booleans": ({"x_train": IMAGES > 9}, "x_train holds bool"),
    "text": ({"x_train": IMAGES.astype(str)}, "x_train holds <U"),
    "rank 2": ({"x_train": IMAGES[:, :, 0, 0]}, "x_train has shape (12, 4)"),
    "channels first": ({"x_train": np.zeros((12, 3, 8, 8), np.uint8)}, "channels first; transpose"),
    "empty train": ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "x_train is empty"),
    "empty test": ({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, "x_test is empty"),
    "sizes differ": ({"x_test": IMAGES[:6, :3]}, "x_train are 4x5x3 but those of x_test 3x5x3"),
    "types differ": ({"x_test": FLOAT_TEST}, "x_train holds uint8 but x_test float32"),
    "float labels": ({"y_train": LABELS / 1}, "y_train holds float64; labels are integers"),
    "negative label": ({"y_train": LABELS - 1}, "label -1 at position 0"),
    "label gap": ({"y_train": LABELS * 1000}, "y_train holds label 2000 but only 12 images"),
    "label beyond int32": ({"y_train": LABELS * 2**40}, "label 1099511627776 at position 1"),
    "label beyond classes": ({"classes": 2}, "label 2 at position 2; allowed are 0..1"),
    "test label unknown": ({"y_test": LABELS[:6] + 1}, "label 3 at position 2; allowed are 0..2"),
    "one-hot labels": ({"y_train": np.eye(3)[LABELS]}, "y_train has shape (12, 3)"),
    "lengths differ": ({"y_train": LABELS[:11]}, "y_train has 11 labels for 12 images"),
    "one class": ({"y_train": LABELS * 0 + 1}, "every label in y_train is 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused_in_one_line(case):
    arguments, fault = WRONG[case]
    with pytest.raises(InputError) as caught:
        make(**arguments)
    assert fault in str(caught.value) and "data 'made'" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 99))
def test_a_stratified_split_keeps_every_class_on_both_sides(labels, seed):
    labels = np.array(labels)
    train, test = stratified_split(labels, seed)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(labels)))
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        part = np.sum(labels[test] == label)
        assert part == (0 if count == 1 else max(1, round(count / 5)))
    again = stratified_split(labels, seed)
    assert np.array_equal(train, again[0]) and np.array_equal(test, again[1])


def test_names_are_described_in_one_line():
    assert "digits" in DATA
    assert all(text and "\n" not in text for text in DATA.values())


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("digit", "did you mean 'digits'?"),
        ("tfds:", "is not on this machine"),
        ("missing/folder", "looked for '"),
        ("missing.npz", "does not exist"),
        ("", "has no folders of images"),
        ("a" * 5000, "a" * 50),
    ],
)
def test_unknown_data(name, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load(name)
    assert fault in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    file = tmp_path / "images.csv"
    file.write_text("1,2,3\n")
    with pytest.raises(InputError, match="cannot be read"):
        load(str(file))
