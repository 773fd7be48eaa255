"""Data sets that tensorflow-datasets has prepared on this machine, read without a network.

Source: https://www.tensorflow.org/datasets. Data in the array_record format are read through
`as_data_source`, without importing TensorFlow; data in other formats need TensorFlow, which is then imported.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jnas.data import base
from jnas.errors import InputError


def load(name: str) -> base.Dataset:
    """Read data set `NAME` or `NAME/CONFIG`, either with `:VERSION`, from tensorflow-datasets' folder.

    That folder is `TFDS_DATA_DIR`, or `tensorflow_datasets` in the home folder. Without a version the newest
    is read. The images and labels are the features that the data set declares as its supervised pair; the
    test split is `test`, else `validation`.

    Raises `InputError` when the data are not there (with the command that gets them), tensorflow-datasets is
    not installed, the data are not images with one label each, and as `base.dataset` does.
    """
    folder = _find(name)
    try:
        import tensorflow_datasets
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"data '{name}' needs tensorflow-datasets ({reason}); install it with: pip install 'jnas[tfds]'"
        ) from error

    try:
        builder = tensorflow_datasets.builder_from_directory(folder)
        info = builder.info
        image, label = info.supervised_keys or ("image", "label")
        kinds = {key: type(feature).__name__ for key, feature in info.features.items()}
        if kinds.get(image) != "Image" or kinds.get(label) != "ClassLabel":
            listed = ", ".join(f"{key} ({kind})" for key, kind in kinds.items())
            raise InputError(
                f"data '{name}' is not made of images with one label each; its features are {listed}"
            )
        test = next((split for split in ("test", "validation") if split in info.splits), None)
        if "train" not in info.splits or test is None:
            raise InputError(
                f"data '{name}' has the splits {', '.join(info.splits)}; "
                "needed are train and test (or validation)"
            )
        x_train, y_train = _read(builder, "train", image, label)
        x_test, y_test = _read(builder, test, image, label)
    except InputError:
        raise
    # Damaged files raise nearly anything from the readers of tensorflow-datasets.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"data '{name}' in '{folder}' cannot be read ({reason}); remove the folder and prepare it again"
        ) from error
    classes = info.features[label].num_classes
    return base.dataset(info.name, x_train, y_train, x_test, y_test, classes=classes)


def _find(name: str) -> Path:
    """Folder of one version of a prepared data set."""
    root = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    stem, _, version = name.partition(":")
    versions = [file.parent for file in (root / stem).glob(f"{version or '*.*.*'}/dataset_info.json")]
    if versions:
        return max(
            versions, key=lambda folder: [int(part) for part in folder.name.split(".") if part.isdigit()]
        )
    configurations = sorted({file.parts[-3] for file in (root / stem).glob("*/*.*.*/dataset_info.json")})
    if configurations and not version:
        raise InputError(
            f"data '{name}' has configurations in '{root / stem}': choose one of "
            f"{', '.join(f'{stem}/{each}' for each in configurations)}"
        )
    expected = root / stem / (version or "VERSION") / "dataset_info.json"
    raise InputError(
        f"data '{name}' is not on this machine: looked for '{expected}' (TFDS_DATA_DIR names another folder); "
        "get it with: "
        f"python -c \"import tensorflow_datasets; tensorflow_datasets.data_source('{name}')\"; "
        "or give the path of a .npz file, of the CIFAR batches or of a folder of images"
    )


def _read(builder: Any, split: str, image: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C] and labels int64 [N] of one split."""
    try:
        examples = builder.as_data_source(split=split)
        pairs = [(example[image], example[label]) for example in (examples[i] for i in range(len(examples)))]
    except NotImplementedError:
        import tensorflow
        import tensorflow_datasets

        # TensorFlow would otherwise take the whole memory of the accelerator that JAX computes on.
        tensorflow.config.set_visible_devices([], "GPU")
        examples = tensorflow_datasets.as_numpy(builder.as_dataset(split=split))
        pairs = [(example[image], example[label]) for example in examples]
    images, labels = zip(*pairs, strict=True) if pairs else ((), ())
    sizes = {np.shape(pixels) for pixels in images}
    if len(sizes) > 1:
        raise InputError(
            f"data '{builder.info.name}': images of split {split} have {len(sizes)} sizes; "
            "resize them to one and store them as .npz"
        )
    return np.array(images), np.array(labels)
