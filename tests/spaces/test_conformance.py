"""What holds for every registered space."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jnas.errors import InputError
from jnas.spaces import SPACES, Graph, Space, get

SEEDS = st.integers(0, 2**31 - 1)


# Spaces of more architectures cannot be listed.
LISTED = sorted(name for name, space in SPACES.items() if space.size <= 10**6)
# What holds of draws of the others is tested in test_conditions.py, and in the file of a space that draws some codes.
UNCONDITIONAL = sorted(name for name, space in SPACES.items() if not space.conditions and not space.moves)


@pytest.fixture(params=sorted(SPACES))
def space(request):
    return get(request.param)


@pytest.fixture(params=UNCONDITIONAL)
def unconditional(request):
    return get(request.param)


def test_sizes_agree(space):
    assert SPACES[space.name] is space
    assert space.size == prod(space.decisions)
    assert all(source < target for source, target in space.edges)


@pytest.mark.parametrize("name", sorted(SPACES.keys() - LISTED))
def test_a_space_too_large_to_list_says_so(name):
    with pytest.raises(InputError, match="random:"):
        get(name).all()


@pytest.mark.parametrize("name", LISTED)
def test_all_is_lexicographic_and_index_inverts_it(name):
    space = get(name)
    architectures = space.all()
    assert architectures.shape == (space.size, len(space.decisions))
    assert architectures.dtype == np.int32
    assert np.array_equal(architectures, np.unique(architectures, axis=0))
    assert np.array_equal(space.index(architectures), np.arange(space.size))


def test_sample_is_uniform_seeded_and_pure(unconditional):
    space = unconditional
    key = jax.random.key(3)
    drawn = jax.jit(space.sample, static_argnums=1)(key, 4000)
    assert drawn.shape == (4000, len(space.decisions)) and drawn.dtype == jnp.int32
    assert jnp.array_equal(drawn, space.sample(key, 4000))
    for column, choices in zip(np.asarray(drawn).T, space.decisions, strict=True):
        counts = np.bincount(column, minlength=choices)
        assert len(counts) == choices
        # Five standard deviations of a binomial count.
        expected = 4000 / choices
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_mutation_changes_exactly_one_decision(name, seed):
    space = get(name)
    key = jax.random.key(seed)
    parents = space.sample(key, 60).reshape(3, 20, -1)
    children = jax.jit(space.mutate)(key, parents)
    assert children.shape == parents.shape and children.dtype == jnp.int32
    assert (jnp.sum(children != parents, axis=-1) == 1).all()
    assert ((children >= 0) & (children < jnp.asarray(space.decisions))).all()


@settings(max_examples=10, deadline=None)
@given(SEEDS)
@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_crossover_takes_each_decision_from_a_parent(name, seed):
    space = get(name)
    first, second = space.sample(jax.random.key(seed), 120).reshape(2, 3, 20, -1)
    key = jax.random.key(seed + 1)
    children = jax.jit(space.crossover)(key, first, second)
    assert children.shape == first.shape and children.dtype == jnp.int32
    assert ((children == first) | (children == second)).all()
    assert jnp.array_equal(space.crossover(key, first, first), first)
    # Where the parents differ, either is as likely: five standard deviations of a binomial count.
    differ = first != second
    taken, count = (children == first)[differ].sum(), differ.sum()
    assert abs(taken - count / 2) < 5 * np.sqrt(count / 4)


def test_mutation_reaches_every_neighbour_as_often_as_it_should(unconditional):
    space = unconditional
    parent = np.asarray(space.sample(jax.random.key(0), 1)[0])
    drawn = 20_000
    children = np.asarray(space.mutate(jax.random.key(1), jnp.tile(parent, (drawn, 1))))
    reached, counts = np.unique(children, axis=0, return_counts=True)
    assert np.array_equal(reached, np.unique(np.asarray(space.neighbours(parent)), axis=0))
    # A decision is as likely as any other, and so is each of its other choices.
    changed = (reached != parent).argmax(axis=1)
    expected = drawn / len(parent) / (np.array(space.decisions)[changed] - 1)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_neighbours_are_all_those_at_distance_one(unconditional):
    space = unconditional
    architecture = np.asarray(space.sample(jax.random.key(5), 1)[0])
    found = np.asarray(jax.jit(space.neighbours)(architecture))
    expected = [
        np.where(np.arange(len(architecture)) == place, value, architecture)
        for place, choices in enumerate(space.decisions)
        for value in range(choices)
        if value != architecture[place]
    ]
    assert found.shape == (len(expected), len(architecture))
    assert np.array_equal(np.unique(found, axis=0), np.unique(expected, axis=0))


def test_gates_are_one_hot(space):
    architectures = space.sample(jax.random.key(2), 12).reshape(3, 4, -1)
    gates = jax.jit(jax.vmap(space.gates))(architectures)
    assert gates.shape == (3, 4, space.cells, len(space.edges), len(space.operations))
    assert gates.dtype == jnp.float32
    assert jnp.array_equal(gates, space.gates(architectures))
    assert (gates.sum(axis=-1) == 1).all() and (gates.max(axis=-1) == 1).all()


def test_decisions_are_one_hot(space):
    architectures = np.asarray(space.sample(jax.random.key(9), 6).reshape(2, 3, -1))
    encoded = space.one_hot(architectures)
    assert encoded.shape == (2, 3, sum(space.decisions)) and encoded.dtype == jnp.float32
    parts = np.split(np.asarray(encoded), np.cumsum(space.decisions)[:-1], axis=-1)
    assert np.array_equal(np.stack([part.argmax(-1) for part in parts], axis=-1), architectures)
    assert (encoded.sum(-1) == len(space.decisions)).all()


def test_gates_are_inverted(space):
    for architecture in np.asarray(space.sample(jax.random.key(8), 20)):
        inverted = space.from_gates(space.gates(architecture))
        assert inverted.dtype == np.int32 and np.array_equal(inverted, architecture)


def test_canonical_is_idempotent_and_transforms(space):
    architectures = space.sample(jax.random.key(4), 50)
    canonical = space.canonical(architectures)
    assert canonical.dtype == jnp.int32
    assert jnp.array_equal(space.canonical(canonical), canonical)
    assert jnp.array_equal(jax.jit(jax.vmap(space.canonical))(architectures), canonical)
    assert jnp.array_equal(space.canonical(architectures[7]), canonical[7])


def test_strings_round_trip(space):
    for architecture in np.asarray(space.sample(jax.random.key(6), 50)):
        parsed = space.from_string(space.to_string(architecture))
        assert parsed.dtype == np.int32
        assert np.array_equal(parsed, architecture)


def test_unknown_space_names_the_known_and_guesses():
    with pytest.raises(InputError, match=r"unknown search space 'nasbench20l'.*did you mean 'nasbench201'\?"):
        get("nasbench20l")


def test_unequal_numbers_of_choices():
    graph = Graph(
        ((0, 1), (0, 2), (1, 2)), ("none", "a", "b", "c"), allowed=((0, 1), (0, 1, 2), (0, 1, 2, 3))
    )
    space = Space("unequal", (graph,))
    everything = space.all()
    assert space.decisions == (2, 3, 4) and everything.shape == (24, 3)
    assert np.array_equal(space.index(everything), np.arange(24))
    assert space.neighbours(everything[5]).shape == (1 + 2 + 3, 3)
    children = space.mutate(jax.random.key(0), everything)
    assert ((children != everything).sum(axis=1) == 1).all() and (children < jnp.array([2, 3, 4])).all()
    assert (space.sample(jax.random.key(0), 300).max(axis=0) == jnp.array([1, 2, 3])).all()
