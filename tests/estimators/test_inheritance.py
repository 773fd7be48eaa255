"""A child's training begins with its parent's weights, also where they are trained again after a kill."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from jnas import data, spaces
from jnas.errors import InputError
from jnas.estimators import inheritance
from jnas.estimators.batch_training import trained
from jnas.estimators.settings import Training
from jnas.run.evaluate import Evaluator
from jnas.run.search import explore
from jnas.settings import Settings
from jnas.store.records import open_records
from jnas.strategies.settings.evolution import HillClimbing
from jnas.types import Candidates, Values

KEY = jax.random.key(3)
SPACE = spaces.get("nasbench201")
PARENT, CHILD, GRANDCHILD = np.array([[3, 1, 2, 3, 1, 3], [3, 2, 2, 3, 1, 3], [3, 2, 2, 3, 1, 1]], np.int32)
SETTINGS = Training(epochs=2, batch=32, channels=4)


@pytest.fixture(scope="module")
def digits():
    whole = data.load("digits")
    return dataclasses.replace(
        whole, x_train=whole.x_train[:200], y_train=whole.y_train[:200], x_test=whole.x_test[:20],
        y_test=whole.y_test[:20],
    )  # fmt: skip


def asked(row, *ancestors):
    ancestors = np.array(ancestors, np.int32).reshape(1, len(ancestors), len(row))
    return Candidates(row[None], parent=np.array([len(ancestors) - 1]), ancestors=ancestors)


def test_the_value_is_a_function_of_the_line_and_of_nothing_remembered(digits):
    one, other = (trained(SPACE, digits, SETTINGS) for _ in range(2))
    line = [one.evaluate(KEY, asked(*rows)).value for rows in (
        (PARENT,), (CHILD, PARENT), (GRANDCHILD, PARENT, CHILD),
    )]  # fmt: skip
    # As after a kill: nothing is remembered, and the parents are trained again.
    assert np.array_equal(other.evaluate(KEY, asked(GRANDCHILD, PARENT, CHILD)).value, line[2])
    assert np.array_equal(other.evaluate(KEY, asked(CHILD, PARENT)).value, line[1])
    # It trains longer than one without a parent.
    alone = one.evaluate(KEY, asked(GRANDCHILD)).value
    assert line[2] > alone
    # Beside others, with lines of other lengths, it is the same.
    ancestors = np.array([[PARENT, CHILD], [np.full(6, -1), np.full(6, -1)]], np.int32)
    both = Candidates(np.array([GRANDCHILD, PARENT]), parent=np.array([1, -1]), ancestors=ancestors)
    assert np.array_equal(one.evaluate(KEY, both).value, [line[2][0], line[0][0]])
    with pytest.raises(InputError, match="choose a strategy that inherits"):
        one.evaluate(KEY, both._replace(fidelity=np.array([0.5, 1.0])))


def test_weights_that_both_read_are_the_parents_and_others_are_fresh():
    leaves = {"op": {"kernel": np.ones((2, 3, 3, 1, 4)), "scale": np.ones((2, 4))}, "head": np.ones((4, 2))}
    form = {"op": leaves["op"], "classifier": {"kernel": leaves["head"]}}
    read = {
        "op": {
            "kernel": np.array([True, False]).reshape(2, 1, 1, 1, 1),
            "scale": np.array([[True], [False]]),
        },
        "classifier": {"kernel": np.array([[True]])},
    }
    parent = inheritance.Weights(jax.tree.map(lambda leaf: 5 * leaf, form), read)
    # The child's classifier has another shape.
    child = {**form, "classifier": {"kernel": np.ones((8, 2))}}
    start = inheritance.matched(child, [parent, None])
    first, second = (
        inheritance.joined(child, jax.tree.map(lambda leaf, row=row: leaf[row], start)) for row in (0, 1)
    )
    assert (first["op"]["kernel"][0] == 5).all() and (first["op"]["kernel"][1] == 1).all()
    assert (first["op"]["scale"] == np.array([[5], [1]])).all() and (first["classifier"]["kernel"] == 1).all()
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(second))


def test_weights_are_read_where_the_cell_has_the_operation(digits):
    from jnas.nets import networks
    from jnas.nets.modules import Build, initial_parameters
    from jnas.nets.sizes import Macro

    network = networks.build(SPACE, Macro(4, 1, 3, classes=10), Build(loops=True))
    choice = SPACE.choices(PARENT)
    image = digits.x_train.shape[1:]
    params = initial_parameters(network, KEY, np.zeros((1, *image), np.float32), choice)
    _, read = jax.jit(lambda params: inheritance.observer(image)(network, params, choice))(params)
    for operation in ("nor_conv_1x1", "nor_conv_3x3"):
        expected = np.isin(PARENT, SPACE.operations.index(operation))
        for cell in ("cells_0", "cells_1", "cells_2"):
            assert np.asarray(read[cell][operation]["kernel"]).reshape(-1).tolist() == expected.tolist()


class Net(nn.Module):
    """Two layers; the second is wider by choice, and another lies before it."""

    wide: int
    deep: int = 0

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16, name="first")(x.reshape(len(x), -1)))
        x = nn.relu(nn.Dense(16, name="deep")(x)) if self.deep else x
        return nn.Dense(10, name="last")(nn.relu(nn.Dense((8, 12)[self.wide], name="second")(x)))


def test_networks_of_ones_own_inherit_what_has_the_same_path_and_shape(digits):
    space = spaces.of_networks("own", {"wide": (0, 1)}, lambda choices: Net(choices["wide"]))
    narrow, wide = np.array([[0], [1]], np.int32)
    one, other = (trained(space, digits, SETTINGS) for _ in range(2))
    parent = one.evaluate(KEY, asked(narrow))
    both = one.evaluate(KEY, asked(wide, narrow)).value
    assert np.array_equal(other.evaluate(KEY, asked(wide, narrow)).value, both)
    assert both != one.evaluate(KEY, asked(wide)).value and np.isfinite(parent.value).all()


def test_the_evaluator_gives_the_lines_of_parents():
    seen = []

    class Counting:
        objectives, batch = ("worth",), 10

        @staticmethod
        def evaluate(key, candidates):
            seen.append(candidates)
            value = np.arange(len(candidates.architectures), dtype=float)[:, None]
            return Values(value, np.zeros(value.shape, np.int8), np.zeros(len(value)))

    evaluate = Evaluator(Counting, SPACE, None, "search")
    evaluate(KEY, 0, Candidates(PARENT[None]))
    evaluate(KEY, 1, Candidates(np.array([CHILD, PARENT]), parent=np.array([0, -1])))
    evaluate(KEY, 2, Candidates(GRANDCHILD[None], parent=np.array([1])))
    assert seen[0].ancestors is None
    assert np.array_equal(seen[1].ancestors, [[PARENT], [np.full(6, -1)]])
    assert np.array_equal(seen[2].ancestors, [[PARENT, CHILD]])


def test_a_killed_search_goes_on_bit_for_bit(digits, tmp_path):
    """Networks of one's own, which compile fast; killed in the second batch, which has parents in the first."""
    space = spaces.of_networks("own", {"wide": (0, 1), "deep": (0, 1)}, lambda choices: Net(**choices))
    settings = HillClimbing(initial=1, batch=2, steps=2)

    def search(records, alive=1000):
        own = trained(space, digits, SETTINGS)
        trainings = []

        def evaluate(key, candidates):
            if len(trainings) == alive:
                raise KeyboardInterrupt
            trainings.append(candidates)
            return own.evaluate(key, candidates)

        estimator = own._replace(evaluate=evaluate, batch=1)
        strategy = settings.make(space, ("accuracy",), 4)
        found = explore(space, strategy, estimator, KEY, budget=4, records=records)
        # The last one has a parent.
        assert trainings[-1].ancestors.shape[1] == 1 and trainings[-1].parent >= 0
        return found.architectures, found.values, len(trainings)

    with open_records(tmp_path / "whole.sqlite", Settings()) as records:
        asked, value, count = search(records)
    with open_records(tmp_path / "killed.sqlite", Settings()) as records:
        with pytest.raises(KeyboardInterrupt):
            search(records, alive=3)
        again = search(records)
    assert np.array_equal(again[0], asked) and np.array_equal(again[1], value) and again[2] == count - 3
