import hashlib

import numpy as np

from jnas.data import load


def test_digits_are_fixed():
    digits = load("digits")
    assert digits.name == "digits" and digits.classes == 10
    assert digits.x_train.shape == (1438, 8, 8, 1) and digits.x_test.shape == (359, 8, 8, 1)
    assert digits.x_train.dtype == np.float32
    assert digits.x_train.min() == 0 and digits.x_train.max() == 1
    # The split must not move between versions: scores measured on it would no longer compare.
    content = hashlib.sha256(digits.y_test.tobytes() + digits.x_test.tobytes()).hexdigest()
    assert content == "3f0fe76082bbb57030c58d3960ad29257b15cf7d8a2ffbfd10f0d7e54e17f98b"


def test_every_class_gives_a_fifth_to_the_test_part():
    digits = load("digits")
    share = np.bincount(digits.y_test) / (np.bincount(digits.y_train) + np.bincount(digits.y_test))
    assert np.abs(share - 0.2).max() < 0.01
