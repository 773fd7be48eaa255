"""The embedded data set: 1,797 handwritten digits of 8x8 gray pixels.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998, https://doi.org/10.24432/C50P49; the copy that scikit-learn carries.
"""

import numpy as np

from jnas.data import base


def load() -> base.Dataset:
    """Digits in a fixed stratified split, 1,438 to train and 359 to test: float32 [N, 8, 8, 1] in [0, 1].

    The source does not split these images. Its pixels count from 0 to 16.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    train, test = base.stratified_split(digits.target, seed=0)
    return base.dataset(
        "digits", images[train], digits.target[train], images[test], digits.target[test], classes=10
    )
