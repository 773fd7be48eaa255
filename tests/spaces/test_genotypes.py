"""Genotypes as tables publish them: both edges of a node from one source, edges with none; texts, classes, sizes."""

import csv
import gzip
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_sizes import of_darts

from jnas.errors import InputError
from jnas.nets import networks, trainable
from jnas.nets.sizes import Macro
from jnas.report.drawing import cell_edges, cell_svg, cell_text
from jnas.spaces import genotype, get

CANONICAL = jax.jit(get("genotypes").canonical)
SPACE, DARTS = get("genotypes"), get("darts")
TABLE = Path(__file__).parents[3] / "shared" / "data" / "nb301_cells.csv.gz"
CELL = (
    "[('sep_conv_3x3', 1), ('none', 0), ('max_pool_3x3', 0), ('avg_pool_3x3', 0), ('none', 0), ('none', 0), "
    "('sep_conv_3x3', 4), ('sep_conv_3x3', 4)]"
)
TEXT = f"Genotype(normal={CELL}, normal_concat=[2, 3, 4, 5], reduce={CELL}, reduce_concat=[2, 3, 4, 5])"
SEEDS = st.integers(0, 2**31 - 1)


def test_it_is_read_and_written():
    row = SPACE.from_string(TEXT)
    assert SPACE.to_string(row) == TEXT
    assert SPACE.size == 8**16 * 120**4
    # What DARTS draws is read as well, and has the operations there.
    drawn = DARTS.to_string(np.asarray(DARTS.sample(jax.random.key(0), 1)[0]))
    assert SPACE.to_string(SPACE.from_string(drawn)) == drawn


@pytest.mark.parametrize("edge", ["('none', 1)", "('sep_conv_3x3', 0)"])
def test_darts_says_which_space_takes_it(edge):
    cell = f"[('sep_conv_3x3', 0), {edge}" + ", ('skip_connect', 0), ('skip_connect', 1)" * 3 + "]"
    text = f"Genotype(normal={cell}, normal_concat=[2, 3, 4, 5], reduce={cell}, reduce_concat=[2, 3, 4, 5])"
    with pytest.raises(InputError, match="the space genotypes takes this one") as error:
        DARTS.from_string(text)
    assert "\n" not in str(error.value)
    assert SPACE.to_string(SPACE.from_string(text)).count("none") == 2 * edge.count("none")


@settings(max_examples=20)
@given(SEEDS)
def test_order_of_edges_and_of_nodes_does_not_matter(seed):
    generator = np.random.default_rng(seed)
    row = np.asarray(SPACE.sample(jax.random.key(seed), 1)[0]).reshape(2, 4, 2, 2)
    # Exchange edges.
    turned = np.where(generator.random((2, 4, 1, 1)) < 0.5, row[:, :, ::-1], row)
    # Renumber the nodes of each cell by an order in which edges lead upwards.
    cells = []
    for cell in turned:
        while True:
            new = np.concatenate([[0, 1], 2 + generator.permutation(4)])
            sources = np.where(cell[..., 0] > 0, new[cell[..., 1]], 0)
            if (sources < new[2:, None]).all():
                break
        cells.append(np.stack([cell[..., 0], sources], -1)[np.argsort(new[2:])])
    same = np.stack(cells).reshape(-1)
    assert np.array_equal(CANONICAL(same), CANONICAL(row.reshape(-1)))


def test_sizes_are_those_of_the_network_that_is_trained():
    rows = SPACE.from_string(TEXT)[None]
    counted = networks.sizes_of(SPACE, Macro(4, 1, 3, (8, 8, 1)), SPACE.choices(rows)).params
    for row, count in zip(rows, counted, strict=True):
        params, _ = trainable.shapes(
            trainable.of_architecture("genotypes", SPACE.to_string(row), (8, 8, 1), 10, 4, 1)
        )
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_published_genotypes_have_the_published_sizes():
    """Networks of 8 cells and 32 channels whose operations normalise without scale and offset."""
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is not there")
    with gzip.open(TABLE, "rt") as file:
        table = list(csv.DictReader(file))
    rows = np.stack([SPACE.from_string(row["architecture"]) for row in table])
    sizes = networks.sizes_of(SPACE, Macro(32, 2), SPACE.choices(rows))
    theirs = np.array([of_darts(genotype.parse(row["architecture"]), 32, 2, 32) for row in table])
    lacking, adding = theirs.T
    assert (sizes.params - lacking).tolist() == [round(float(row["params"]) * 1e6) for row in table]
    assert (sizes.flops + adding).tolist() == [round(float(row["flops"]) * 1e6) for row in table]


def test_both_edges_are_drawn():
    edges = cell_edges(SPACE, TEXT)[0]
    assert "max_pool_3x3 + avg_pool_3x3" in cell_text(edges, SPACE.nodes)
    picture = cell_svg(edges, dict.fromkeys(SPACE.operations, "#336699"), SPACE.nodes)
    assert picture.count(">sep_conv_3x3<") == 3
    nothing = SPACE.to_string(np.zeros(32, int))
    assert "node 5 (zero)" in cell_text(cell_edges(SPACE, nothing)[0], SPACE.nodes)
    assert cell_svg(cell_edges(SPACE, nothing)[0], {}, SPACE.nodes).endswith("</svg>")
