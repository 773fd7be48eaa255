"""The size space: texts, neighbours, and sizes by a formula of one's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jnas.errors import InputError
from jnas.nets import own
from jnas.spaces import get

SPACE = get("size")


def parameters(a, b, c, d, e):
    """Of three colours and ten classes: each 3x3 convolution has a scale and an offset a channel."""

    def convolution(inputs, outputs, size=3):
        return size**2 * inputs * outputs + 2 * outputs

    def cell(inputs, outputs):
        skip = convolution(inputs, outputs, 1) if inputs != outputs else 0
        return 2 * convolution(inputs, outputs) + 3 * convolution(outputs, outputs) + skip

    def residual(inputs, outputs):
        return convolution(inputs, outputs) + convolution(outputs, outputs) + inputs * outputs

    blocks = cell(a, a) + residual(a, b) + cell(b, c) + residual(c, d) + cell(d, e)
    return convolution(3, a) + blocks + 2 * e + 10 * e + 10


@given(st.lists(st.integers(0, 7), min_size=5, max_size=5))
def test_texts_and_parameters(places):
    row = np.array(places, np.int32)
    assert SPACE.from_string(SPACE.to_string(row)).tolist() == places
    sizes = own.sizes(SPACE, SPACE.choices(row[None]), (32, 32, 3), 10)
    assert sizes.params.tolist() == [parameters(*(8 * (place + 1) for place in places))]


def test_there_are_35_neighbours():
    assert SPACE.neighbours([0, 1, 2, 3, 4]).shape == (35, 5)


@pytest.mark.parametrize("text", ["8:8:8:8", "8:8:8:8:9", "8:8:8:8:72", "a:b:c:d:e", ""])
def test_other_text_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="such as 64:16:24:8:48") as error:
        SPACE.from_string(text)
    assert "\n" not in str(error.value)
