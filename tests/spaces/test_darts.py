import itertools

import jax
import numpy as np
import pytest
from genotypes import DARTS_V2
from hypothesis import given, settings
from hypothesis import strategies as st

from jnas.errors import InputError
from jnas.spaces import darts
from jnas.spaces.genotype import Genotype, parse, render

# Published, as their authors print them.
SNAS = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 1), "
    "('skip_connect', 1), ('skip_connect', 0), ('skip_connect', 0), ('skip_connect', 1)], "
    "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2)], "
    "reduce_concat=range(2, 6))"
)
# Of another number of nodes, with both edges of a node from one source and other concatenations.
ENAS_LIKE = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 1), ('sep_conv_5x5', 1), ('skip_connect', 0), "
    "('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('avg_pool_3x3', 1), ('sep_conv_5x5', 1), "
    "('avg_pool_3x3', 0)], normal_concat=[2, 3, 4, 5, 6], reduce=[('sep_conv_5x5', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('avg_pool_3x3', 1), ('sep_conv_3x3', 1), ('avg_pool_3x3', 1), ('avg_pool_3x3', 1), "
    "('sep_conv_5x5', 4), ('sep_conv_3x3', 5), ('sep_conv_5x5', 0)], reduce_concat=[2, 3, 6])"
)
SEEDS = st.integers(0, 2**31 - 1)


def swapped(edges):
    """Both edges of every node the other way round."""
    return tuple(edge for pair in range(0, len(edges), 2) for edge in (edges[pair + 1], edges[pair]))


def renumbered(edges, new):
    """Nodes 2 to 5 renumbered, `new[node]`; None where an edge would lead down."""
    if any(new[source] >= new[2 + place // 2] for place, (_, source) in enumerate(edges)):
        return None
    nodes = {new[2 + place]: edges[2 * place : 2 * place + 2] for place in range(4)}
    return tuple((name, new[source]) for node in range(2, 6) for name, source in nodes[node])


def test_the_size():
    # 7 operations on each of 8 edges, and 1 * 3 * 6 * 10 pairs of sources; twice.
    assert darts.SPACE.size == (7**8 * 180) ** 2
    assert len(darts.DECISIONS) == 22 and len(darts.EDGES) == 14


@pytest.mark.parametrize("text", [DARTS_V2, SNAS], ids=["darts_v2", "snas"])
def test_published_genotypes(text):
    architecture = darts.from_string(text)
    found, given = darts.genotype(architecture), parse(text)
    for cell in ("normal", "reduce"):
        pairs = [
            [{*edges[2 * node : 2 * node + 2]} for node in range(4)]
            for edges in (getattr(found, cell), getattr(given, cell))
        ]
        assert pairs[0] == pairs[1]
    assert np.array_equal(darts.from_string(darts.to_string(architecture)), architecture)
    assert parse(render(given)) == given


def test_what_the_space_does_not_hold_is_still_read():
    genotype = parse(ENAS_LIKE)
    assert len(genotype.normal) == 10 and genotype.reduce_concat == (2, 3, 6)
    with pytest.raises(InputError, match="normal has 5 nodes"):
        darts.of_genotype(genotype)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_order_of_edges_into_a_node_does_not_matter(seed):
    architecture = np.asarray(darts.SPACE.sample(jax.random.key(seed), 1)[0])
    genotype = darts.genotype(architecture)
    other = genotype._replace(normal=swapped(genotype.normal), reduce=swapped(genotype.reduce))
    assert np.array_equal(darts.of_genotype(other), architecture)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_the_canonical_form_is_the_smallest_of_all_renumberings(seed):
    architecture = np.asarray(darts.SPACE.sample(jax.random.key(seed), 1)[0])
    genotype = darts.genotype(architecture)
    smallest = []
    for edges in (genotype.normal, genotype.reduce):
        cells = []
        for order in itertools.permutations(range(2, 6)):
            own = renumbered(edges, (0, 1, *order))
            if own is not None:
                whole = Genotype(own, (2, 3, 4, 5), own, (2, 3, 4, 5))
                cells.append(darts.of_genotype(whole)[:11].tolist())
        smallest += min(cells)
        for cell in cells:
            assert darts.canonical(np.array([*cell, *cell]))[:11].tolist() == min(cells)
    assert darts.canonical(architecture).tolist() == smallest


def test_gates_of_one_architecture():
    gates = np.asarray(darts.gates(darts.from_string(DARTS_V2)))
    assert gates.shape == (2, 14, 8)
    carried = {
        (darts.EDGES[edge], darts.OPERATIONS[operation])
        for edge, operation in np.argwhere(gates[0])
        if operation
    }
    assert carried == {
        ((0, 2), "sep_conv_3x3"), ((1, 2), "sep_conv_3x3"), ((0, 3), "sep_conv_3x3"), ((1, 3), "sep_conv_3x3"),
        ((1, 4), "sep_conv_3x3"), ((0, 4), "skip_connect"), ((0, 5), "skip_connect"), ((2, 5), "dil_conv_3x3"),
    }  # fmt: skip
    with pytest.raises(InputError, match="node 2 has 1 operations"):
        darts.from_gates(gates * (np.arange(14) > 0)[:, None])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("__import__('os').system('true')", r"does not read Genotype"),
        ("Genotype(", "cannot be parsed"),
        (DARTS_V2.replace("'sep_conv_3x3', 0", "'sep_conv_3x3', 2", 1), "its source must be 0 to 1"),
        (DARTS_V2.replace("sep_conv_3x3", "sep_conv_3X3", 1), "did you mean 'sep_conv_3x3'"),
        (DARTS_V2.replace("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)", 1), "both edges from node 0"),
        (DARTS_V2.replace("normal_concat=[2, 3, 4, 5], ", ""), "must have the fields"),
        (DARTS_V2.replace("[2, 3, 4, 5]", "[2, 3]", 1), "concatenates nodes 2 to 5"),
        (DARTS_V2.replace("[2, 3, 4, 5]", "range(5000)", 1), "list of nodes or range"),
        (DARTS_V2.replace("[2, 3, 4, 5]", "[2, 3, 4, 9]", 1), "nodes are 0 to 5"),
        (DARTS_V2.replace("('sep_conv_3x3', 0)", "'sep_conv_3x3'", 1), r"is not \('operation', node\)"),
    ],
)
def test_wrong_genotypes(text, fault):
    with pytest.raises(InputError, match=fault) as error:
        darts.from_string(text)
    assert "\n" not in str(error.value)


def test_wrong_arrays():
    with pytest.raises(InputError, match="give 22 integers"):
        darts.to_string(np.zeros(6, int))
    with pytest.raises(InputError, match="integers below"):
        darts.to_string(np.full(22, 7))
