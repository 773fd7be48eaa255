"""Spaces whose decisions matter only at certain choices of earlier ones: draws, text, networks, wrong conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jnas.errors import InputError
from jnas.nets import own
from jnas.spaces import conditions, get, of_networks
from jnas.spaces.chain import chain

SEEDS = st.integers(0, 2**31 - 1)
CHAIN = get("chain")


def by_hand(space, architecture):
    """The active decisions by the definition, without recursion over columns."""

    def on(decision):
        return all(
            on(parent) and architecture[parent] in choices for parent, choices in space.conditions[decision]
        )

    return [on(decision) for decision in range(len(space.decisions))]


@pytest.mark.parametrize(("layers", "count"), [(1, 12), (2, 156), (3, 1884)])
def test_distinct_chains_are_those_of_the_recursion(layers, count):
    """A(1) = 12, A(n) = 12 (1 + A(n - 1))."""
    space = chain(layers)
    canonical = np.unique(np.asarray(space.canonical(space.all())), axis=0)
    assert len(canonical) == count == len({space.to_string(row) for row in canonical})


@given(SEEDS)
def test_active_follows_from_the_definition_and_canonical_is_idempotent(seed):
    raw = (
        np.random.default_rng(seed).integers(0, CHAIN.decisions, (20, len(CHAIN.decisions))).astype(np.int32)
    )
    active = np.asarray(CHAIN.active(raw))
    assert active.tolist() == [by_hand(CHAIN, row) for row in raw]
    assert active.tolist() == [conditions.active_of_one(CHAIN.conditions, row) for row in raw]
    canonical = np.asarray(CHAIN.canonical(raw))
    assert (canonical[active] == raw[active]).all() and (canonical[~active] == 0).all()
    assert (CHAIN.canonical(canonical) == canonical).all() and (CHAIN.active(canonical) == active).all()
    for row, same in zip(raw, canonical, strict=True):
        assert CHAIN.to_string(row) == CHAIN.to_string(same)
        assert CHAIN.from_string(CHAIN.to_string(row)).tolist() == same.tolist()


def test_draws_are_uniform_where_decisions_matter():
    drawn = np.asarray(jax.jit(CHAIN.sample, static_argnums=1)(jax.random.key(0), 6000))
    assert (drawn == np.asarray(CHAIN.canonical(drawn))).all()
    active = np.asarray(CHAIN.active(drawn))
    for column, on, choices in zip(drawn.T, active.T, CHAIN.decisions, strict=True):
        counts = np.bincount(column[on], minlength=choices)
        expected = on.sum() / choices
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@given(SEEDS)
def test_a_mutation_changes_one_decision_that_matters(seed):
    key = jax.random.key(seed)
    parents = np.asarray(CHAIN.sample(key, 30))
    children = np.asarray(CHAIN.mutate(key, parents))
    both = np.asarray(CHAIN.active(parents) & CHAIN.active(children))
    assert (((parents != children) & both).sum(axis=1) == 1).all()
    assert (children == np.asarray(CHAIN.canonical(children))).all()
    assert (children < np.array(CHAIN.decisions)).all()


def test_a_mutation_draws_anew_what_it_makes_active():
    parents = jnp.tile(CHAIN.from_string("layer_1=pool|pool_1=2|layer_2=end"), (4000, 1))
    children = np.asarray(CHAIN.mutate(jax.random.key(2), parents))
    grown = children[children[:, 0] == 0]
    # Filters and kernel of what is now a convolution.
    for column in grown[:, 1:3].T:
        counts = np.bincount(column, minlength=3)
        assert np.abs(counts - len(grown) / 3).max() < 5 * np.sqrt(len(grown) / 3)


@given(SEEDS)
def test_crossover_takes_what_matters_from_a_parent_in_which_it_does(seed):
    first, second = np.asarray(CHAIN.sample(jax.random.key(seed), 60)).reshape(2, 30, -1)
    child = np.asarray(CHAIN.crossover(jax.random.key(seed + 1), first, second))
    on, a, b = (np.asarray(CHAIN.active(rows)) for rows in (child, first, second))
    assert (child == np.asarray(CHAIN.canonical(child))).all()
    assert (~on | (a & (child == first)) | (b & (child == second))).all()


def test_neighbours_are_those_by_brute_force():
    space = chain(2)
    everything = np.unique(np.asarray(space.canonical(space.all())), axis=0)
    for row in everything[::13]:
        active = by_hand(space, row)
        expected = {tuple(row)}
        for decision, choices in enumerate(space.decisions):
            for value in range(choices) if active[decision] else ():
                changed = np.where(np.arange(len(row)) == decision, value, row)
                expected.add(tuple(np.asarray(space.canonical(changed)).tolist()))
        assert {tuple(n) for n in np.asarray(space.neighbours(row)).tolist()} == expected


def test_networks_have_the_sizes_counted_by_hand():
    text = "layer_1=convolution|filters_1=16|kernel_1=3|layer_2=pool|pool_2=2"
    text += "|layer_3=convolution|filters_3=32|kernel_3=1|layer_4=end"
    row = CHAIN.from_string(text)
    sizes = own.sizes(CHAIN, CHAIN.choices(row[None]), (8, 8, 3), 10)
    assert sizes.params.tolist() == [9 * 3 * 16 + 32 + 16 * 32 + 64 + 32 * 10 + 10]
    assert sizes.flops.tolist() == [64 * 9 * 3 * 16 + 16 * 16 * 32 + 320]
    assert sizes.convs.tolist() == [2]


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (
            {"kernel": {"depth": (4,)}},
            "the condition of 'kernel' never holds: 'depth' has the values 1, 2, not 4",
        ),
        ({"kernel": {"depth": ()}}, "not none at all"),
        ({"depth": {"kernel": (3,)}}, "depends on 'kernel', which does not stand before it"),
        ({"depth": {"depth": (1,)}}, "let no decision depend on itself"),
        ({"kernels": {"depth": (1,)}}, "unknown decision 'kernels'"),
        ({"kernel": {"width": (1,)}}, "unknown decision 'width'"),
        ({"kernel": {"depth": (1,)}, "last": {"kernel": (3,), "depth": (2,)}}, "exclude each other"),
    ],
)
def test_wrong_conditions_are_told_in_a_line(rules, line):
    decisions = {"depth": (1, 2), "kernel": (3, 5), "last": (1, 2)}
    with pytest.raises(InputError) as error:
        of_networks("wrong", decisions, lambda architecture: None, rules)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "layer_1=pool", "layer_1=pool|pool_1=2|filters_1=16|layer_2=end", "layer_1=pool|pool_1=7|layer_2=end",
        "layer_9=pool", "layer_1=pool|pool_1=2|layer_2=end|layer_3=pool",
    ],
)  # fmt: skip
def test_a_wrong_text_is_told_in_a_line(text):
    with pytest.raises(InputError) as error:
        CHAIN.from_string(text)
    assert "\n" not in str(error.value)
