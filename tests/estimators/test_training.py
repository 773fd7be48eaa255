import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import data, spaces
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators.training import trainer
from jnas.nets import cost, darts_cost
from jnas.nets.modules import Build
from jnas.nets.nasbench201 import Network

CELL = tuple(spaces.get("nasbench201").from_string(
    "|skip_connect~0|+|none~0|none~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
))  # fmt: skip
SETTINGS = {
    "epochs": 4, "batch": 32, "learning_rate": 0.1, "weight_decay": 5e-4, "channels": 4, "cells_per_stage": 1,
    "augment": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    whole = data.load("digits")
    return dataclasses.replace(
        whole, x_train=whole.x_train[:640], y_train=whole.y_train[:640],
        x_test=whole.x_test[:300], y_test=whole.y_test[:300],
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(digits):
    """A trainer, its states after each epoch (the first before any), and the losses."""
    steps = trainer(digits, CELL, jax.random.key(1), **SETTINGS)
    states, losses = [steps.init(jax.random.key(2))], []
    for number in range(SETTINGS["epochs"]):
        state, loss = steps.epoch(states[-1], number)
        states.append(state)
        losses.append(float(loss))
    return steps, states, losses


def test_it_learns(trained):
    steps, states, losses = trained
    assert losses[-1] < 0.5 * losses[0]
    assert steps.accuracy(states[0]) < 40 < 60 < steps.accuracy(states[-1])


def test_accuracy_is_the_share_of_the_test_images(trained, digits):
    # 300 images go through in parts of 256, of which the second is filled up.
    steps, states, _ = trained
    network = Network(4, 10, Build(statistics="running"), architecture=CELL)
    variables = {"params": states[-1].params, "batch_stats": states[-1].batch_stats}
    logits = jax.jit(network.apply)(variables, transforms.normalise(digits, digits.x_test))
    right = np.argmax(np.asarray(logits), axis=-1) == digits.y_test
    assert steps.accuracy(states[-1]) == pytest.approx(100 * right.mean())


def test_one_program_serves_every_step(trained):
    types = [[jax.typeof(leaf) for leaf in jax.tree.leaves(state)] for state in trained[1]]
    assert all(other == types[0] for other in types)


def test_the_network_has_the_size_that_is_reported(trained):
    sizes = [array.size for array in jax.tree.leaves(trained[1][0].params)]
    assert sum(sizes) == cost.params(CELL, cost.Macro(4, 1, 3, (8, 8, 1), 10))


def test_going_on_from_a_stored_state_equals_not_stopping(trained, digits):
    _, states, losses = trained
    stored = jax.tree.map(np.asarray, states[2])
    again = trainer(digits, CELL, jax.random.key(1), **SETTINGS)
    state = jax.tree.map(jnp.asarray, stored)
    rest = []
    for number in range(2, SETTINGS["epochs"]):
        state, loss = again.epoch(state, number)
        rest.append(float(loss))
    assert rest == losses[2:]
    jax.tree.map(np.testing.assert_array_equal, state, states[-1])


def test_another_key_is_another_training(trained, digits):
    steps, states, losses = trained
    state = steps.init(jax.random.key(3))
    _, loss = steps.epoch(state, 0)
    assert float(loss) != losses[0]
    # The number of the epoch, not the number of calls, says which batches it sees.
    assert float(steps.epoch(states[0], 1)[1]) != losses[0] == float(steps.epoch(states[0], 0)[1])


@pytest.mark.parametrize(
    ("shape", "augment", "expected"), [((24, 24, 3), True, 1), ((24, 24, 3), False, 0), ((8, 8, 1), True, 0)]
)
def test_only_photographs_are_augmented(monkeypatch, shape, augment, expected):
    images, labels = np.zeros((8, *shape), np.uint8), np.arange(8) % 2
    dataset = data.base.dataset("images", images, labels, images, labels)
    calls = []
    monkeypatch.setattr(transforms, "augment", lambda key, x: calls.append(x.shape) or x)
    steps = trainer(dataset, (1,) * 6, jax.random.key(0), **SETTINGS | {"batch": 4, "augment": augment})
    steps.epoch(steps.init(jax.random.key(0)), 0)
    assert calls == [(4, *shape)] * expected


def test_what_does_not_fit(digits):
    with pytest.raises(InputError, match=r"training\.batch 641 does not fit: there are 640"):
        trainer(digits, CELL, jax.random.key(0), **SETTINGS | {"batch": 641})
    odd = dataclasses.replace(digits, x_train=digits.x_train[:, :6, :6])
    with pytest.raises(InputError, match="images of 6x6 do not fit"):
        trainer(odd, CELL, jax.random.key(0), **SETTINGS)


def test_cells_of_darts_are_trained_as_what_they_are(digits):
    architecture = tuple(spaces.get("darts").sample(jax.random.key(0), 1)[0].tolist())
    steps = trainer(digits, architecture, jax.random.key(0), space="darts", **SETTINGS)
    params = jax.eval_shape(steps.init, jax.random.key(1)).params
    counted = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert counted == darts_cost.params(
        spaces.get("darts").choices(architecture), cost.Macro(4, 1, 3, (8, 8, 1), 10)
    )
