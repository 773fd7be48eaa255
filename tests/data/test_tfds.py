"""tensorflow-datasets, on a data set that is built here in its own format, without a network."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jnas.data import load
from jnas.errors import InputError

ROOT = Path(__file__).parents[2]

BUILDER = """
import io, sys
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {"id": tfds.features.Text(), "picture": tfds.features.Image(shape=(6, 5, 3))}
        features["kind"] = tfds.features.ClassLabel(num_classes=4)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features),
                                     supervised_keys=("picture", "kind"))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(30, 0), "test": self._generate_examples(12, 1)}

    def _generate_examples(self, number, seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (number, 6, 5, 3), np.uint8)
        for i in range(number):
            file = io.BytesIO()
            Image.fromarray(pixels[i]).save(file, "png")
            file.seek(0)
            yield i, {"id": str(i), "picture": file, "kind": i % 3}

Tiny(data_dir=sys.argv[1], file_format=sys.argv[2]).download_and_prepare()
"""


def prepare(folder, file_format):
    script = folder / "build.py"
    script.write_text(BUILDER)
    command = [sys.executable, str(script), str(folder / "data"), file_format]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / "data"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("tfds"), "array_record")


def check(read):
    assert read.name == "tiny" and read.classes == 4
    for split, number, seed in (("train", 30, 0), ("test", 12, 1)):
        images, labels = getattr(read, f"x_{split}"), getattr(read, f"y_{split}")
        expected = np.random.default_rng(seed).integers(0, 256, (number, 6, 5, 3), np.uint8)
        assert images.dtype == np.uint8 and images.shape == expected.shape
        # tensorflow-datasets shuffles what it writes.
        order = [int(np.argmax((expected == image).all(axis=(1, 2, 3)))) for image in images]
        assert sorted(order) == list(range(number))
        assert labels.tolist() == [i % 3 for i in order]


@pytest.mark.parametrize("name", ["tfds:tiny", "tfds:tiny:1.2.0"])
def test_array_records(prepared, monkeypatch, name):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    check(load(name))


def test_array_records_are_read_without_tensorflow_and_network(prepared):
    program = """
        import socket, sys
        socket.socket.connect = lambda *_: sys.exit("a connection was tried")
        from jnas.data import load
        print(load("tfds:tiny").x_train.shape, "tensorflow" in sys.modules)
    """
    environment = {"TFDS_DATA_DIR": str(prepared), "HOME": str(prepared), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert result.stdout.strip() == "(30, 6, 5, 3) False", result.stderr


@pytest.fixture
def copy(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared / "tiny", tmp_path / "tiny")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path / "tiny" / "1.2.0"


def refused(name, *faults):
    with pytest.raises(InputError) as caught:
        load(name)
    assert all(fault in str(caught.value) for fault in faults) and "\n" not in str(caught.value)


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_the_newest_version_is_read(copy):
    older = copy.parent / "1.1.10"
    shutil.copytree(copy, older)
    (older / "features.json").write_text("{}")
    check(load("tfds:tiny"))


def test_validation_stands_in_for_a_missing_test_split(copy):
    def rename(to):
        def change(content):
            for split in content["splits"]:
                split["name"] = to if split["name"] != "train" else "train"

        return change

    (copy / "tiny-test.array_record-00000-of-00001").rename(
        copy / "tiny-validation.array_record-00000-of-00001"
    )
    edit(copy / "dataset_info.json", rename("validation"))
    check(load("tfds:tiny"))
    edit(copy / "dataset_info.json", rename("extra"))
    refused("tfds:tiny", "has the splits", "extra", "needed are train and test")


def test_data_without_images_and_labels_are_refused(copy):
    edit(copy / "dataset_info.json", lambda content: content.pop("supervisedKeys"))
    refused("tfds:tiny", "not made of images with one label each; its features are", "picture")


@pytest.mark.parametrize(
    "file", ["dataset_info.json", "features.json", "tiny-train.array_record-00000-of-00001"]
)
def test_damaged_files_are_refused(copy, file):
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: len(content) // 2])
    refused("tfds:tiny", "cannot be read", str(copy))


def test_missing_data_say_where_they_belong_and_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    refused(
        "cifar10",
        f"'{tmp_path}/cifar10/VERSION/dataset_info.json'",
        "tensorflow_datasets.data_source('cifar10')",
    )
    refused("tfds:a/b:2.0.0", f"'{tmp_path}/a/b/2.0.0/dataset_info.json'")
    (tmp_path / "a" / "b" / "2.0.0").mkdir(parents=True)
    (tmp_path / "a" / "b" / "2.0.0" / "dataset_info.json").write_text("{}")
    refused("tfds:a", "has configurations", "choose one of a/b")


def test_without_the_package_the_extra_is_named(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused("tfds:tiny", "pip install 'jnas[tfds]'")


def test_other_formats_are_read_through_tensorflow(tmp_path):
    # One process, because importing TensorFlow takes most of the time.
    script = tmp_path / "build_and_read.py"
    script.write_text(
        BUILDER + "import pickle\nfrom jnas.data import load\n"
        "open(sys.argv[3], 'wb').write(pickle.dumps(load('tfds:tiny')))\n"
    )
    command = [sys.executable, str(script), str(tmp_path), "tfrecord", str(tmp_path / "read.pickle")]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path), "PYTHONPATH": path}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    check(pickle.loads((tmp_path / "read.pickle").read_bytes()))
