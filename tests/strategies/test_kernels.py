"""Kernels and encodings against counts written out, and positive semi-definite in every space of cells."""

from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jnas import spaces
from jnas.errors import InputError
from jnas.spaces.masks import masks
from jnas.strategies import kernels
from jnas.strategies.encodings import path_encoding

SPACES = {name: spaces.get(name) for name in ("nasbench201", "darts")}
MADE = {
    (name, kernel): make(space) for name, space in SPACES.items() for kernel, make in kernels.KERNELS.items()
}
GRAMS = {
    pair: jax.jit(lambda first, second, parameter, kernel=kernel: kernel.gram(
        kernel.features(first), kernel.features(second), parameter
    ))
    for pair, kernel in MADE.items()
}  # fmt: skip


@pytest.mark.parametrize("pair", MADE, ids="-".join)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_kernel_is_positive_semi_definite_with_ones_on_the_diagonal(pair, seed):
    rows = np.array(SPACES[pair[0]].sample(jax.random.key(seed), 30))
    # Equal ones too.
    rows[-3:] = rows[:3]
    for parameter in MADE[pair].parameters:
        gram = np.asarray(GRAMS[pair](rows, rows, parameter), np.float64)
        np.testing.assert_allclose(gram, gram.T, atol=1e-6)
        # Squared distances of features that are no bits are rounded.
        np.testing.assert_allclose(np.diag(gram), 1, atol=1e-5)
        assert np.linalg.eigvalsh(gram).min() > -1e-4
        np.testing.assert_allclose(gram[:3, -3:].diagonal(), 1, atol=1e-5)


def test_the_hamming_kernel_by_its_definition():
    rows = np.asarray(SPACES["nasbench201"].sample(jax.random.key(0), 20))
    differ = rows[:, None] != rows[None]
    np.testing.assert_allclose(
        GRAMS["nasbench201", "hamming"](rows, rows, 2.5), np.exp(-differ.sum(-1) / 2.5), rtol=1e-5
    )
    weights = (1.0, 2.0, 0.5, 0.0, 3.0, 1.0)
    weighted = kernels.hamming(SPACES["nasbench201"], weights)
    features = weighted.features(rows)
    np.testing.assert_allclose(
        weighted.gram(features, features, 2.5), np.exp(-(differ @ np.array(weights)) / 2.5), rtol=1e-4
    )


def test_samples_of_all_architectures_have_the_covariance_of_the_kernel():
    graph = SPACES["nasbench201"].graphs[0].restricted([(1,), (1, 3), (1, 2, 3), (1, 3), (1,), (1,)])
    space = spaces.Space("twelve", (graph,))
    kernel = kernels.hamming(space, (1.0, 2.0, 0.5))
    count, features = 20_000, kernel.features(space.all())
    keys = jax.random.split(jax.random.key(0), count)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: kernel.sample(key, 1.5)))(keys), np.float64)
    # The deviation of a mean of products is at most sqrt(2 / count).
    np.testing.assert_allclose(
        drawn.T @ drawn / count, kernel.gram(features, features, 1.5), atol=5 * np.sqrt(2 / count)
    )


def walks(space, row):
    """Sets of the named paths of a cell with at most three edges, by kind: (kind, input, names)."""
    operations, graph = np.asarray(space.choices(row)), space.graphs[0]
    outputs = graph.outputs or (graph.nodes - 1,)
    named = set()

    def follow(kind, start, node, names):
        if node in outputs and names:
            named.add((kind, start, names))
        for edge, (source, target) in enumerate(space.edges):
            name = space.operations[operations[kind, edge]]
            if source == node and name != "none" and len(names) < 3:
                follow(kind, start, target, (*names, name))

    for kind in range(space.cells):
        for start in range(graph.inputs):
            follow(kind, start, start, ())
    return named


@pytest.mark.parametrize("name", SPACES)
def test_the_path_encoding_has_a_bit_for_each_path(name):
    space = SPACES[name]
    rows = np.asarray(space.sample(jax.random.key(3), 12))
    bits = np.asarray(jax.jit(path_encoding(space, 3))(rows))
    sets = [walks(space, row) for row in rows]
    assert set(np.unique(bits)) <= {0, 1}
    np.testing.assert_array_equal(bits @ bits.T, [[len(a & b) for b in sets] for a in sets])
    named = len(space.operations) - 1
    blocks = 1 if name == "nasbench201" else 4
    assert bits.shape[1] == blocks * (named + named**2 + named**3)


def subtrees(space, row, rounds):
    """Counts of labels that are nested tuples, over all rounds."""
    operations, graph = np.asarray(space.choices(row)), space.graphs[0]
    outputs = graph.outputs or (graph.nodes - 1,)
    counted = Counter()
    for kind in range(space.cells):
        reads, labels = {}, {}
        for node in range(graph.inputs):
            labels["input", node], reads["input", node] = (kind, "input", node), []
        there = {
            edge: space.operations[operations[kind, edge]]
            for edge in range(len(space.edges))
            if space.operations[operations[kind, edge]] != "none"
        }
        for edge, name in there.items():
            source = space.edges[edge][0]
            labels[edge] = (kind, name)
            reads[edge] = [other for other in there if space.edges[other][1] == source]
            reads[edge] += [("input", source)] if source < graph.inputs else []
        labels["output"] = (kind, "output")
        reads["output"] = [edge for edge in there if space.edges[edge][1] in outputs]
        counted.update(labels.values())
        for _ in range(rounds):
            labels = {
                vertex: (labels[vertex], tuple(sorted(map(repr, (labels[other] for other in reads[vertex])))))
                for vertex in labels
            }
            counted.update(labels.values())
    return counted


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_subtrees_are_counted(name, rounds):
    space = SPACES[name]
    rows = np.asarray(space.sample(jax.random.key(5), 10))
    counts = [subtrees(space, row, rounds) for row in rows]
    products = np.array([[sum(a[label] * b[label] for label in a) for b in counts] for a in counts], float)
    expected = products / np.sqrt(np.outer(products.diagonal(), products.diagonal()))
    np.testing.assert_allclose(
        GRAMS[name, "weisfeiler_lehman"](rows, rows, float(rounds)), expected, rtol=1e-5
    )


@pytest.mark.parametrize("kernel", ["path", "graph", "weisfeiler_lehman"])
def test_a_space_without_cells_is_refused_in_a_line(kernel):
    with pytest.raises(InputError, match="has none: choose"):
        kernels.KERNELS[kernel](masks("mask", 8))
