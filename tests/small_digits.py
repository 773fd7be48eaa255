"""A file of a few digits, on which trainings take seconds."""

from pathlib import Path

import numpy as np

from jnas import data


def write(path: Path, train: int, test: int) -> str:
    """The first `train` training and `test` test images, as an .npz; returns its path as text."""
    digits = data.load("digits")
    np.savez(
        path, x_train=digits.x_train[:train], y_train=digits.y_train[:train],
        x_test=digits.x_test[:test], y_test=digits.y_test[:test],
    )  # fmt: skip
    return str(path)
