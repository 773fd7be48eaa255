"""The forms of a cell equal each other, on a toy cell of three edges, and operations are functions of their own."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas.nets import cell, stacks
from jnas.nets.candidates import OPERATIONS
from jnas.nets.modules import Build
from jnas.spaces.base import Graph

# An operation with weights, one without, and none.
TOY = Graph(((0, 1), (0, 2), (1, 2)), ("none", "nor_conv_1x1", "skip_connect"))
# Every operation on some edge; a node that nothing feeds and an operation reads.
ARCHITECTURES = [(1, 2, 1), (0, 1, 1), (2, 0, 2)]
BUILDS = {"images": Build(), "loops": Build(loops=True), "planes": Build(planes=True)}
X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def variables():
    drawn = stacks.init(TOY, 2, Build(), jax.random.key(1))
    noisy = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.arange(leaf.size).reshape(leaf.shape), drawn)
    return noisy


@cache
def program(graph, build, averaging, edges_one_by_one):
    """The output of a cell, its derivative by the weights and what is sown; compiled once for all architectures."""
    x = jnp.transpose(X, (3, 0, 1, 2)) if build.planes else X

    def total(params, rest, form):
        y, sown = cell.apply(graph, 2, build, {"params": params, **rest}, [x], averaging=averaging, **form)
        if build.planes:
            y = jnp.transpose(y, (1, 2, 3, 0))
            sown.patterns = {name: jnp.moveaxis(signs, 1, -1) for name, signs in sown.patterns.items()}
        return jnp.sum(jnp.sin(y)), (y, sown)

    return jax.jit(jax.grad(total, has_aux=True))


def evaluate(graph, params, build=Build(), statistics=None, **form):  # noqa: B008  (frozen)
    """The output, its derivative by the weights and what is sown, by `gates`, `choices` or neither."""
    rest = {} if statistics is None else {"batch_stats": statistics}
    function = program(graph, build, statistics is not None, cell.EDGES_ONE_BY_ONE)
    gradient, (y, sown) = function(params, rest, form)
    return y, gradient, sown


def one_hot(architecture):
    return jnp.asarray(np.eye(3, dtype=np.float32)[list(architecture)])


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_choices_equal_gates_of_one(architecture, build, variables, monkeypatch):
    params, choices = variables["params"], jnp.array(architecture)
    expected, slope, sown = evaluate(TOY, params, gates=one_hot(architecture))
    for gates_or_choices in ({"gates": one_hot(architecture)}, {"choices": choices}):
        found, own, also = evaluate(TOY, params, BUILDS[build], **gates_or_choices)
        close(found, expected)
        jax.tree.map(close, own, slope)
        for name, signs in sown.patterns.items():
            np.testing.assert_array_equal(also.patterns[name], signs)
            if also.readers:
                assert also.readers[name] == sown.readers[name]
    monkeypatch.setattr(cell, "EDGES_ONE_BY_ONE", 0)
    found, own, also = evaluate(TOY, params, BUILDS[build], choices=choices)
    close(found, expected)
    jax.tree.map(close, own, slope)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cell_of_its_own_equals_gates_of_one(architecture, variables):
    expected, slope, sown = evaluate(TOY, variables["params"], gates=one_hot(architecture))
    graph = TOY.restricted([(k,) for k in architecture])
    rows = list(stacks.weighted(graph).get("nor_conv_1x1", ()))
    assert rows == [edge for edge, k in enumerate(architecture) if k == 1]
    own = jax.tree.map(lambda leaf: leaf[np.array(rows, int)], variables["params"]) if rows else {}
    for build in ("images", "planes"):
        found, gradient, also = evaluate(graph, own, BUILDS[build])
        close(found, expected)
        if rows:
            jax.tree.map(lambda one, all: close(one, all[np.array(rows)]), gradient, slope)
        # Operations that are not there take no part.
        rest = [edge for edge in range(3) if edge not in rows]
        assert not any(leaf[np.array(rest)].any() for leaf in jax.tree.leaves(slope)) or not rest
        for name, signs in also.patterns.items():
            np.testing.assert_array_equal(signs, sown.patterns[name])


def test_gates_of_each_image(variables):
    gates = jax.random.uniform(jax.random.key(2), (3, 3, 3))
    build = Build(statistics="running")
    own = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    evaluated = jax.jit(lambda x, gates: cell.apply(TOY, 2, build, own, [x], gates=gates)[0])
    y = evaluated(X, gates)
    for index in range(3):
        close(y[index], evaluated(X[index : index + 1], gates[index])[0])


def test_statistics_move_towards_the_batch(variables):
    """By choices those of the chosen operation alone."""
    params, before = variables["params"], variables["batch_stats"]
    *_, by_gates = evaluate(TOY, params, statistics=before, gates=one_hot((1, 2, 1)))
    *_, by_choices = evaluate(TOY, params, statistics=before, choices=jnp.array((1, 2, 1)))
    for path, all_of_them in jax.tree_util.tree_leaves_with_path(by_gates.batch_stats):
        own = by_choices.batch_stats
        start = before
        for key in path:
            own, start = own[key.key], start[key.key]
        close(own[np.array([0, 2])], all_of_them[np.array([0, 2])])
        np.testing.assert_array_equal(own[1], start[1])
        assert (np.asarray(all_of_them) != np.asarray(start)).any()


def test_edges_that_may_not_carry_everything(variables):
    graph = TOY.restricted([(1, 2), (0, 2), (0, 1)])
    assert stacks.weighted(graph) == {"nor_conv_1x1": (0, 2)}
    params = jax.tree.map(lambda leaf: leaf[np.array([0, 2])], variables["params"])
    for architecture in [(1, 2, 1), (2, 2, 0), (1, 0, 1)]:
        expected, *_ = evaluate(TOY, variables["params"], gates=one_hot(architecture))
        for build in ("images", "planes"):
            for form in ({"gates": one_hot(architecture)}, {"choices": jnp.array(architecture)}):
                close(evaluate(graph, params, BUILDS[build], **form)[0], expected)


def test_dropped_paths_spare_identities(variables):
    """A path is dropped for an image as a whole, or scaled up; an identity stays."""
    graph = TOY.restricted([(2,), (1,), (2,)])
    params = jax.tree.map(lambda leaf: leaf[1:2], variables["params"])

    @jax.jit
    def whole_and_dropped(params, key):
        own = {"params": params}
        whole, _ = cell.apply(graph, 2, Build(), own, [X])
        return whole, cell.apply(graph, 2, Build(), own, [X], drop=cell.Drop(0.5, key))[0]

    y, dropped = whole_and_dropped(params, jax.random.key(0))
    seen = set()
    for image in range(3):
        gone, doubled = (
            np.allclose(dropped[image], X[image] + f * (y - X)[image], atol=1e-5) for f in (0, 2)
        )
        assert gone != doubled
        seen.add(gone)
    assert seen == {True, False}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_an_image_of_its_stride(name, stride):
    made = stacks.module(name, stride, 2, Build())
    if made is None:
        assert name == "none"
        return
    with_weights = isinstance(made, nn.Module)
    # Shapes need no numbers.
    if with_weights:
        y, sown = jax.eval_shape(
            lambda: made.init_with_output(jax.random.key(0), X, mutable=["params", "patterns"])
        )
    else:
        y, sown = jax.eval_shape(made, X), {}
    assert y.shape == (3, 4 // stride, 4 // stride, 2)
    if with_weights:
        signs = jax.tree.leaves(sown.get("patterns", {}))
        assert [leaf.shape for leaf in signs] == [y.shape] * (OPERATIONS[name].relus - 1)
