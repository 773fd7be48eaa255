"""A folder of images by class."""

from pathlib import Path

import numpy as np

from jnas.data import base
from jnas.data.images import decode
from jnas.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".webp")


def load(path: Path) -> base.Dataset:
    """Read `train/CLASS/IMAGE` and `test/CLASS/IMAGE`, or `CLASS/IMAGE` without a split.

    Without one, a seeded stratified fifth of the images is the test part.
    Classes are numbered in the order of their names. Files with other suffixes and hidden entries are passed
    over.

    Raises `InputError` when there are no classes, a class has no image, the test part has a class of its own
    or is missing, an image is unreadable or differs in size, and as `base.dataset` does.
    """
    if not (path / "train").is_dir():
        names = classes(path)
        files, y = listed(path, names)
        train, test = base.stratified_split(y, seed=0)
    else:
        if not (path / "test").is_dir():
            raise InputError(f"data '{path}' has a folder train but no folder test; add test/CLASS/IMAGE")
        names = classes(path / "train")
        unknown = [name for name in classes(path / "test") if name not in names]
        if unknown:
            raise InputError(
                f"data '{path}': test has class '{unknown[0]}' that train lacks; "
                f"the classes are {', '.join(names)}"
            )
        files, y_train = listed(path / "train", names)
        more, y_test = listed(path / "test", names)
        files, y = files + more, np.concatenate([y_train, y_test])
        train, test = np.split(np.arange(len(y)), [len(y_train)])
    # Both parts in one call, so that gray images become colour when an image of the other part is in colour.
    x = decode((f"image '{file}'", file) for file in files)
    return base.dataset(path.name, x[train], y[train], x[test], y[test], classes=len(names))


def classes(path: Path) -> list[str]:
    """Names of the class folders, in order; `InputError` where there are none or one is empty."""
    names = sorted(
        entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    for name in names:
        if not _files(path / name):
            raise InputError(f"data '{path / name}' has no images; looked for files *{', *'.join(SUFFIXES)}")
    if not names:
        raise InputError(
            f"data '{path}' has no folders of images; "
            "needed are CLASS/IMAGE, or train/CLASS/IMAGE and test/CLASS/IMAGE"
        )
    return names


def _files(path: Path) -> list[Path]:
    return sorted(
        file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def listed(path: Path, names: list[str]) -> tuple[list[Path], np.ndarray]:
    """Image files in the class folders that exist, and their labels int64 [N]."""
    present = [(label, path / name) for label, name in enumerate(names) if (path / name).is_dir()]
    pairs = [(file, label) for label, folder in present for file in _files(folder)]
    return [file for file, _ in pairs], np.array([label for _, label in pairs])
