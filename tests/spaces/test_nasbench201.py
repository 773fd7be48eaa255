import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasbench201_networks import sizes

from jnas.errors import InputError
from jnas.nets.sizes import Macro
from jnas.spaces import get
from jnas.spaces.nasbench201 import EXAMPLE, OPERATIONS, expression, from_string, to_string

SPACE = get("nasbench201")
TABLE = Path(__file__).parents[3] / "shared" / "data" / "nb201_cifar10.csv.gz"
CELLS = st.lists(st.integers(0, 4), min_size=6, max_size=6)


def test_official_order():
    assert OPERATIONS == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert SPACE.edges == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert SPACE.size == 15625
    assert from_string(EXAMPLE).tolist() == [3, 3, 4, 1, 3, 1]
    assert to_string(np.array([3, 3, 4, 1, 3, 1])) == EXAMPLE


@given(CELLS)
def test_every_string_round_trips(cell):
    assert from_string(to_string(np.array(cell))).tolist() == cell


@given(st.text(alphabet="|~+0123 noneskip_connect", max_size=60))
def test_other_text_is_refused_in_one_line(text):
    with pytest.raises(InputError) as caught:
        from_string(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it has 1 nodes separated by '+', a cell has 3"),
        (EXAMPLE + "+|none~0|", "it has 4 nodes"),
        (EXAMPLE.replace("nor_conv_1x1", "nor_conv_3x3").removesuffix("|"), "node 3 reads"),
        (EXAMPLE.replace("nor_conv_3x3~0|avg", "nor_conv3x3~0|avg"), "did you mean 'nor_conv_3x3'?"),
        (EXAMPLE.replace("avg_pool_3x3", "max_pool_5x5"), "unknown operation 'max_pool_5x5'"),
        (EXAMPLE.replace("|avg_pool_3x3~1", ""), "node 2 has 1 edges, it needs 2"),
        (EXAMPLE.replace("avg_pool_3x3~1", "avg_pool_3x3~0"), "must come from node 1, not '0'"),
        (EXAMPLE.replace("avg_pool_3x3~1", "avg_pool_3x3"), "has no '~'"),
        (EXAMPLE + "\n", "node 3 reads"),
    ],
)
def test_the_parser_says_what_is_wrong(text, fault):
    with pytest.raises(InputError) as caught:
        from_string(text)
    assert fault in str(caught.value) and EXAMPLE in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", [[0] * 5, [[0] * 6], [0.0] * 6, [0, 0, 0, 0, 0, 5], [-1, 0, 0, 0, 0, 0]])
def test_to_string_refuses_what_is_no_cell(cell):
    with pytest.raises(InputError):
        to_string(np.array(cell))


def test_exactly_6466_cells_are_distinct():
    cells = SPACE.all()
    canonical = np.asarray(SPACE.canonical(cells))
    classes = np.unique(canonical, axis=0)
    assert len(classes) == 6466
    # The representative is the lexicographically first member of its class.
    assert np.array_equal(np.asarray(SPACE.canonical(classes)), classes)
    assert all(
        tuple(low) <= tuple(cell) for low, cell in zip(canonical.tolist(), cells.tolist(), strict=True)
    )
    assert len({expression(cell) for cell in cells}) == 6466


def values(cells: np.ndarray) -> np.ndarray:
    """Output of each cell when an operation is a fixed function of a number that keeps 0."""
    operations = [
        np.zeros_like,
        lambda x: x,
        lambda x: np.tanh(1.3 * x),
        lambda x: np.sinh(0.7 * x),
        lambda x: np.arctan(1.9 * x),
    ]
    nodes = [np.full(len(cells), 0.61803)]
    for node in range(1, 4):
        total = np.zeros(len(cells))
        for edge, (source, target) in enumerate(SPACE.edges):
            if target == node:
                outputs = np.stack([operation(nodes[source]) for operation in operations])
                total = total + outputs[cells[:, edge], np.arange(len(cells))]
        nodes.append(total)
    return nodes[-1]


def test_cells_of_one_class_compute_the_same_function():
    cells = SPACE.all()
    outputs = values(cells)
    assert np.allclose(outputs, values(np.asarray(SPACE.canonical(cells))), rtol=0, atol=1e-12)
    # The coarser count that the module's head gives for complete simplification.
    assert len(np.unique(outputs.round(11))) == 4930


def test_edges_without_effect_can_differ_in_cost():
    # Nothing reads node 1 in the first cell, and it carries zero in the second.
    reading = from_string("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|")
    carrying = from_string("|none~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|nor_conv_3x3~1|none~2|")
    for cell in (reading, carrying):
        twin = np.asarray(SPACE.canonical(cell))
        assert twin.tolist() != cell.tolist()
        assert sizes(twin, Macro()).params < sizes(cell, Macro()).params


def test_a_convolution_before_or_after_a_skip_is_one_class_of_one_cost():
    cells = np.stack(
        [
            from_string("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"),
            from_string("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"),
            from_string("|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|"),
        ]
    )
    canonical = np.asarray(SPACE.canonical(cells))
    assert (canonical == canonical[0]).all()
    assert len(set(sizes(cells, Macro()).params)) == 1


@pytest.mark.skipif(not TABLE.exists(), reason=f"no table at {TABLE}")
def test_table_strings_are_exactly_the_space():
    with gzip.open(TABLE, "rt") as file:
        strings = [row["architecture"] for row in csv.DictReader(file)]
    cells = np.stack([from_string(text) for text in strings])
    assert [to_string(cell) for cell in cells] == strings
    assert np.array_equal(np.unique(cells, axis=0), SPACE.all())
