"""Images in: the embedded digits, tensorflow-datasets, CIFAR batches, `.npz` files, folders of images."""

from pathlib import Path

from jnas.data import cifar, digits, folder, npz, tfds
from jnas.data.base import Dataset
from jnas.errors import InputError, unknown_name

DATA: dict[str, str] = {
    "digits": "1,797 handwritten digits, 8x8 gray, 10 classes; embedded",
    "cifar10": "60,000 photographs, 32x32 colour, 10 classes; tensorflow-datasets",
    "cifar100": "60,000 photographs, 32x32 colour, 100 classes; tensorflow-datasets",
    "mnist": "70,000 handwritten digits, 28x28 gray, 10 classes; tensorflow-datasets",
    "fashion_mnist": "70,000 articles of clothing, 28x28 gray, 10 classes; tensorflow-datasets",
}


def load(name_or_path: str | Path) -> Dataset:
    """Read the data set of that name (one of `DATA`, or `tfds:NAME`) or at that path.

    A path is a `.npz` file (`jnas.data.npz`), a folder of CIFAR batches (`jnas.data.cifar`) or a folder of
    images (`jnas.data.folder`). Nothing is downloaded. Raises `InputError` when there is no such name or
    path, and as the readers do.
    """
    name_or_path = str(name_or_path)
    if name_or_path == "digits":
        return digits.load()
    if name_or_path.startswith("tfds:") or name_or_path in DATA:
        return tfds.load(name_or_path.removeprefix("tfds:"))
    path = Path(name_or_path).expanduser()
    try:
        if path.is_dir():
            batches = cifar.find(path)
            return cifar.load(*batches) if batches else folder.load(path)
        if path.is_file():
            return npz.load(path)
    except OSError as error:
        raise InputError(
            f"data '{name_or_path}' cannot be read ({error}); correct the path or its rights"
        ) from error
    if path.suffix or path.name != name_or_path:
        raise InputError(
            f"data '{name_or_path}' does not exist: looked for '{path.absolute()}'; correct the path"
        )
    raise InputError(f"{unknown_name('data', name_or_path, DATA)}; or give tfds:NAME, or a path that exists")
