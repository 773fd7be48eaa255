import numpy as np
import pytest
from PIL import Image

from jnas.data import load
from jnas.errors import InputError

CLASSES = ("ant", "bee", "cow")


def write(path, seed=0, size=(7, 5), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def split(tmp_path):
    """Two splits, the test part without the last class."""
    root = tmp_path / "animals"
    for part, classes, number in (("train", CLASSES, 4), ("test", CLASSES[:2], 2)):
        for label, name in enumerate(classes):
            for i in range(number):
                write(root / part / name / f"{i}.png", seed=label * 10 + i)
    return root


def refused(path, *faults):
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert all(fault in str(caught.value) for fault in faults) and "\n" not in str(caught.value)


def test_train_and_test_folders(split):
    (split / "train" / "ant" / "notes.txt").write_text("passed over")
    (split / "train" / ".hidden").mkdir()
    read = load(str(split))
    assert read.name == "animals" and read.classes == 3
    assert read.x_train.shape == (12, 5, 7, 3) and read.x_test.shape == (4, 5, 7, 3)
    assert read.y_train.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and read.y_test.tolist() == [0, 0, 1, 1]
    assert np.array_equal(read.x_train[5], write(split / "again.png", seed=11))


def test_without_splits_a_fifth_is_the_test_part(tmp_path):
    for label, name in enumerate(CLASSES):
        for i in range(10):
            write(tmp_path / name / f"{i}.png", seed=label * 10 + i)
    read = load(str(tmp_path))
    assert np.bincount(read.y_train).tolist() == [8] * 3 and np.bincount(read.y_test).tolist() == [2] * 3
    everything = np.concatenate([read.x_train, read.x_test])
    assert len(np.unique(everything, axis=0)) == 30
    assert np.array_equal(load(str(tmp_path)).x_test, read.x_test)


def test_gray_images_stay_gray_unless_others_are_in_colour(split):
    for file in split.rglob("*.png"):
        write(file, mode="L")
    assert load(str(split)).x_train.shape == (12, 5, 7, 1)
    write(split / "train" / "bee" / "0.png")
    read = load(str(split))
    assert read.x_train.shape == (12, 5, 7, 3)
    assert read.x_test.shape == (4, 5, 7, 3)
    assert np.array_equal(read.x_train[0, ..., 0], read.x_train[0, ..., 2])


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_file_of_another_size_is_named(split, part):
    write(split / part / "bee" / "0.png", size=(8, 5))
    refused(split, f"{part}/bee/0.png' is 8x5 pixels but the first image is 7x5")


def test_splits_of_two_sizes(split):
    for file in (split / "test").rglob("*.png"):
        write(file, size=(9, 9))
    refused(split, "test/ant/0.png' is 9x9 pixels but the first image is 7x5")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\x00" * 30])
def test_the_unreadable_file_is_named(split, content):
    (split / "train" / "cow" / "2.png").write_bytes(content)
    refused(split, "cow/2.png' is not a readable image")


def test_a_truncated_image_is_named(split):
    file = split / "train" / "cow" / "2.png"
    file.write_bytes(file.read_bytes()[:-30])
    refused(split, "cow/2.png' is not a readable image")


def test_sixteen_bits_are_refused(split):
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(split / "train" / "ant" / "0.png")
    refused(split, "ant/0.png' has Pillow's mode I;16")


def test_empty_class_folder_is_named(split):
    (split / "train" / "dog").mkdir()
    refused(split, "train/dog' has no images; looked for files *.png")


def test_missing_parts(split, tmp_path):
    write(split / "test" / "eel" / "0.png")
    refused(split, "test has class 'eel' that train lacks", "ant, bee, cow")
    for file in sorted((split / "test").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    refused(split, "animals/test' has no folders of images")
    (split / "test").rmdir()
    refused(split, "has a folder train but no folder test")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no folders of images")


def test_one_class(tmp_path):
    for i in range(5):
        write(tmp_path / "ant" / f"{i}.png", seed=i)
    refused(tmp_path, "every label in y_train is 0; give images of two classes or more")
