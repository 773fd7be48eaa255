"""Distinct architectures: counts by brute force and by publication, and draws that are uniform over them."""

import jax
import numpy as np
import pytest

from jnas.errors import InputError
from jnas.spaces import distinct, get
from jnas.spaces.chain import chain


@pytest.mark.parametrize(
    ("name", "count"),
    [("size", 32768), ("nasbench_macro", 3969), ("nasbench201", 6466), ("chain", 3_257_436)],
)
def test_counts_are_those_published(name, count):
    assert distinct.count(get(name)) == count


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_counts_of_conditions_are_those_of_the_list(layers):
    space = chain(layers)
    assert distinct.count(space) == len(np.unique(np.asarray(space.canonical(space.all())), axis=0))


@pytest.mark.parametrize("space", [chain(2), get("nasbench_macro")], ids=lambda space: space.name)
def test_draws_are_uniform_over_distinct_architectures(space):
    total = distinct.count(space)
    drawn = np.asarray(distinct.sample(space, jax.random.key(0), 60 * total))
    assert (drawn == np.asarray(space.canonical(drawn))).all()
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    # All of them, and six standard deviations of a binomial count.
    assert len(counts) == total and np.abs(counts - 60).max() < 6 * np.sqrt(60)


def test_what_is_not_counted_says_so_in_a_line():
    with pytest.raises(InputError, match="not listed") as error:
        distinct.count(get("darts"))
    assert "\n" not in str(error.value)
