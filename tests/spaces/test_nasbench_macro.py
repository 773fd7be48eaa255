"""NAS-Bench-Macro: texts, distinct networks, and the sizes of the published table."""

import csv
import gzip
from pathlib import Path

import jax
import numpy as np
import pytest

from jnas.errors import InputError
from jnas.nets import own
from jnas.spaces import get

SPACE = get("nasbench_macro")
TABLE = Path(__file__).parents[3] / "shared" / "data" / "nb_macro_cifar10.csv.gz"


@pytest.fixture(scope="module")
def table():
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is not there")
    with gzip.open(TABLE, "rt") as file:
        return list(csv.DictReader(file))


def test_sizes_equal_the_published_ones(table):
    rows = np.stack([SPACE.from_string(row["architecture"]) for row in table])
    sizes = own.sizes(SPACE, SPACE.choices(rows), (32, 32, 3), 10)
    assert sizes.params.tolist() == [int(row["params"]) for row in table]
    assert sizes.flops.tolist() == [int(row["flops"]) for row in table]


def test_networks_of_one_class_have_one_accuracy(table):
    classes = {}
    for row in table:
        text = SPACE.to_string(np.asarray(SPACE.canonical(SPACE.from_string(row["architecture"]))))
        classes.setdefault(text, []).append(row["test_acc"])
    pairs = [values for values in classes.values() if len(values) > 1]
    assert len(pairs) > 600 and all(len(set(values)) == 1 for values in pairs)


def test_sizes_of_blocks_are_those_of_the_whole_network():
    rows = np.array([[0, 1, 2, 0, 1, 1, 2, 0], [2, 2, 0, 0, 1, 0, 0, 2]])
    blocks = own.sizes(SPACE, SPACE.choices(rows), (8, 8, 1), 10)
    for row, *expected in zip(rows, *blocks, strict=True):
        network = own.build(SPACE, SPACE.choices(row), (8, 8, 1), 10)
        assert list(own._counted(network, (1, 8, 8, 1))[0]) == expected


def test_canonical_networks_compute_the_same():
    """Layers of matched weights: the identity is no layer, wherever it stands."""
    networks = [
        own.build(SPACE, SPACE.choices(np.array(row)), (8, 8, 1), 10)
        for row in ([0, 0, 0, 1, 0, 0, 0, 2], [0, 0, 0, 0, 1, 0, 2, 0])
    ]
    assert networks[0].module == networks[1].module
    assert np.array_equal(
        *map(np.asarray, (SPACE.canonical([0, 0, 0, 1, 0, 0, 0, 2]), [0, 0, 0, 0, 1, 0, 0, 2]))
    )


@pytest.mark.parametrize("text", ["0122102", "01221023", "0122102a", "", "0|1|2"])
def test_other_text_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="8 digits") as error:
        SPACE.from_string(text)
    assert "\n" not in str(error.value)


def test_there_are_sixteen_neighbours():
    assert SPACE.neighbours(SPACE.sample(jax.random.key(0), 1)[0]).shape == (16, 8)
