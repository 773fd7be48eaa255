"""Masks of channels as a space."""

import jax
import numpy as np
import pytest

from jnas.errors import InputError
from jnas.spaces.masks import masks

SPACE = masks("net", 11)


def test_it_is_a_space_of_binary_decisions():
    assert SPACE.decisions == (2,) * 11 and SPACE.size == 2**11 and len(SPACE.all()) == 2**11
    rows = np.asarray(SPACE.sample(jax.random.key(0), 5))
    gates = np.asarray(SPACE.gates(rows))
    assert gates.shape == (5, 1, 11, 2) and gates.dtype == np.float32
    np.testing.assert_array_equal(gates[:, 0, :, 1], rows)
    for row in rows:
        np.testing.assert_array_equal(SPACE.from_gates(SPACE.gates(row)), row)
        np.testing.assert_array_equal(SPACE.from_string(SPACE.to_string(row)), row)


def test_its_text_is_hexadecimal_with_the_first_mask_first():
    assert SPACE.to_string(np.array([1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1])) == "net:8f20"


@pytest.mark.parametrize("text", ["other:8f20", "net:8f", "net:8f2000", "net:zz", "8f20", ""])
def test_other_texts(text):
    with pytest.raises(InputError, match="is no candidate of net with 11 masks: give net: and 4 hexadecimal"):
        SPACE.from_string(text)
