"""NAS-Bench-101: counts by brute force and by publication, isomorphism, texts, and the sizes of published cells."""

import ast
import csv
import gzip
from itertools import combinations, permutations, product
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jnas.errors import InputError
from jnas.nets import own
from jnas.spaces import distinct, get
from jnas.spaces.nasbench101 import EDGES, PAIRS, read, representatives, useful, valid, write

SPACE = get("nasbench101")
TABLE = Path(__file__).parents[3] / "shared" / "data" / "nb101_cells.csv.gz"
# The table's numbers of operations in ours: 2 is pooling, 3 the 1x1 and 4 the 3x3 convolution.
OPERATIONS = {2: 2, 3: 1, 4: 0}


def code(bits):
    matrix = np.array(bits[:49]).reshape(7, 7)
    return np.array(
        [*(matrix[pair] for pair in PAIRS), *(OPERATIONS[operation] for operation in bits[50:55])]
    )


def by_brute_force(vertices):
    """Classes of cells all of whose vertices are on a path, as sets of (edges, operations) under all renumberings."""
    pairs, inner, seen, count = list(combinations(range(vertices), 2)), range(1, vertices - 1), set(), 0
    for chosen in product((0, 1), repeat=len(pairs)):
        edges = [pair for pair, on in zip(pairs, chosen, strict=True) if on]
        sources, targets = {a for a, _ in edges}, {b for _, b in edges}
        if len(edges) > 9 or not {*inner, 0} <= sources or not {*inner, vertices - 1} <= targets:
            continue
        for labels in product(range(3), repeat=len(inner)):
            if (frozenset(edges), labels) in seen:
                continue
            count += 1
            for order in permutations(inner):
                new = (0, *order, vertices - 1)
                moved = frozenset((new[a], new[b]) for a, b in edges)
                renamed = tuple(labels[order.index(place)] for place in inner)
                seen.add((moved, renamed))
    return count


def test_distinct_cells_are_those_of_brute_force_and_of_the_paper():
    rows = representatives()
    by_vertices = np.bincount(useful(rows[:, :EDGES] > 0)[1].sum(1)).tolist()
    assert by_vertices == [0, 0, 1, 6, 84, 2441, 62010, 359082] and sum(by_vertices) == 423624
    assert [by_brute_force(vertices) for vertices in (2, 3, 4, 5)] == [1, 6, 84, 2441]
    assert len(np.unique(rows, axis=0)) == distinct.count(SPACE) == 423624


def test_representatives_are_canonical_and_valid():
    rows = np.asarray(distinct.sample(SPACE, jax.random.key(0), 5000))
    assert (np.asarray(SPACE.canonical(rows)) == rows).all() and np.asarray(valid(rows)).all()


@given(st.integers(0, 2**31 - 1))
def test_isomorphic_cells_have_one_form(seed):
    generator = np.random.default_rng(seed)
    row = representatives()[generator.integers(423624)].astype(int)
    while True:
        new = [0, *generator.permutation(range(1, 6)).tolist(), 6]
        edges = [(new[a], new[b]) for (a, b), on in zip(PAIRS, row[:EDGES], strict=True) if on]
        if all(a < b for a, b in edges):
            break
    labels = np.zeros(5, int)
    labels[np.array(new[1:-1]) - 1] = row[EDGES:]
    same = np.array([*((pair in edges) for pair in PAIRS), *labels]).astype(int)
    assert np.array_equal(np.asarray(SPACE.canonical(same)), row)


def test_what_does_nothing_is_left_out():
    small = read("0100/0010/0001/0000:conv1x1-bn-relu,maxpool3x3")
    # The same with a vertex that nobody reads, and one that reads nothing.
    large = small.copy()
    large[PAIRS.index((0, 3))] = large[PAIRS.index((4, 5))] = 1
    large[EDGES + 2 :] = 2
    assert np.array_equal(SPACE.canonical(small), SPACE.canonical(large))
    assert own.build(SPACE, SPACE.choices(small), (8, 8, 1), 10).module == own.build(
        SPACE, SPACE.choices(large), (8, 8, 1), 10
    ).module  # fmt: skip


def test_draws_and_mutants_are_cells():
    rows = np.asarray(SPACE.sample(jax.random.key(0), 500))
    mutants = np.asarray(SPACE.mutate(jax.random.key(1), rows))
    for found in (rows, mutants):
        assert np.asarray(valid(found)).all()
    assert ((rows != mutants).sum(1) == 1).mean() > 0.9
    assert all(np.array_equal(read(write(row)), row) for row in rows[:50])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0100/0010/0001/0000:conv3x3-bn-relu", "1 operations for 2 vertices"),
        ("0100/0010/0001/0000:conv3x3-bn-relu,conv5x5", "unknown operation"),
        ("0000/1000/0000/0000:maxpool3x3,maxpool3x3", "above the diagonal"),
        ("0010/0000/0000/0000:maxpool3x3,maxpool3x3", "no path"),
        ("011111/001111/000111/000011/000001/000000:" + ",".join(["maxpool3x3"] * 4), "15 edges"),
        ("01/0:", "none of 2 to 7 rows"),
        ("", "none of 2 to 7 rows"),
    ],
)
def test_what_is_no_cell_is_told_in_a_line(text, fault):
    with pytest.raises(InputError, match=fault) as error:
        SPACE.from_string(text)
    assert "\n" not in str(error.value)


def test_parameters_equal_the_published_ones():
    """Every tenth cell; `benchmarks/spaces.py` has them all."""
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is not there")
    with gzip.open(TABLE, "rt") as file:
        table = list(csv.DictReader(file))[::10]
    rows = np.array([code(ast.literal_eval(row["adjacency_and_operations"])) for row in table])
    sizes = own.sizes(SPACE, SPACE.choices(rows), (32, 32, 3), 10)
    assert sizes.params.tolist() == [round(float(row["params"]) * 1e6) for row in table]
