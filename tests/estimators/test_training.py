"""The trainer of one network, by plain steps."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from nasbench201_networks import Network

from jnas import data, spaces
from jnas.data import stream, transforms
from jnas.estimators.settings import NASBENCH201
from jnas.estimators.training import trainer
from jnas.nets import networks, trainable
from jnas.nets.modules import Build
from jnas.nets.sizes import Macro, sizes

SPACE = spaces.get("nasbench201")
TEXT = "|skip_connect~0|+|none~0|none~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
CELL = tuple(SPACE.from_string(TEXT).tolist())
RECIPE = replace(NASBENCH201, epochs=4, batch=32, augment=False)
STEPS = 640 // 32


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    whole = data.load("digits")
    return dataclasses.replace(
        whole, x_train=whole.x_train[:640], y_train=whole.y_train[:640],
        x_test=whole.x_test[:300], y_test=whole.y_test[:300],
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(digits):
    """A trainer with its step compiled, its states after each epoch (the first before any), and the losses."""
    network = trainable.of_architecture("nasbench201", TEXT, (8, 8, 1), 10, 4, 1)
    made = trainer(network, RECIPE, steps=4 * STEPS, normalise=partial(transforms.normalise, digits))
    made = made._replace(step=jax.jit(made.step))
    states, losses = [jax.jit(made.init)(jax.random.key(2))], []
    batches = stream.of_dataset(digits).train(jax.random.key(1), 32, 0, slice(None))
    for _ in range(4):
        state, total = states[-1], 0.0
        for _ in range(STEPS):
            state, info = made.step(state, jax.random.key(3), next(batches), None)
            total += float(info["train_loss"]) / STEPS
        states.append(state)
        losses.append(total)
    return made, states, losses


def test_it_learns(trained):
    _, _, losses = trained
    assert losses[-1] < 0.5 * losses[0]


def test_right_images_are_counted_by_running_statistics(trained, digits):
    made, states, _ = trained
    network = Network(4, 10, Build(statistics="running"), architecture=CELL)
    variables = {"params": states[-1].params, "batch_stats": states[-1].batch_stats}
    logits = jax.jit(network.apply)(variables, transforms.normalise(digits, digits.x_test))
    right = np.argmax(np.asarray(logits), axis=-1) == digits.y_test
    assert right.mean() > 0.6
    assert int(jax.jit(made.right)(states[-1], digits.x_test, digits.y_test)) == right.sum()


def test_one_program_serves_every_step(trained):
    """Arguments of the same types are not traced again."""
    _, states, _ = trained
    types = [[jax.typeof(leaf) for leaf in jax.tree.leaves(state)] for state in states]
    assert all(other == types[0] for other in types)


def test_the_network_has_the_size_that_is_reported(trained):
    counts = [array.size for array in jax.tree.leaves(trained[1][0].params)]
    assert sum(counts) == networks.sizes_of(SPACE, Macro(4, 1, 3, (8, 8, 1), 10), SPACE.choices(CELL)).params


def test_a_step_depends_on_its_state_and_batch_alone(trained, digits):
    made, states, _ = trained
    stored = jax.tree.map(np.asarray, states[2])
    state = jax.tree.map(jnp.asarray, stored)
    batches = stream.of_dataset(digits).train(jax.random.key(1), 32, 2 * STEPS, slice(None))
    for _ in range(STEPS):
        state, _ = made.step(state, jax.random.key(3), next(batches), None)
    jax.tree.map(np.testing.assert_array_equal, state, states[3])


@pytest.mark.parametrize("augment", [True, False])
def test_the_recipe_says_whether_images_are_augmented(monkeypatch, augment):
    calls = []
    monkeypatch.setattr(transforms, "augment", lambda key, x: calls.append(x.shape) or x)
    network = trainable.Trainable(
        lambda key: ({"w": jnp.ones((4, 2))}, {}),
        lambda params, stats, x, drop, key: (x.reshape(len(x), -1)[:, :4] @ params["w"], None, stats),
        lambda params, stats, x: x.reshape(len(x), -1)[:, :4] @ params["w"],
    )
    made = trainer(network, replace(RECIPE, augment=augment), steps=1, normalise=lambda x: x)
    batch = jnp.ones((3, 2, 2, 1)), jnp.zeros(3, jnp.int32)
    made.step(made.init(jax.random.key(0)), jax.random.key(1), batch, None)
    assert calls == [(3, 2, 2, 1)] * augment


def test_cells_of_darts_are_trained_as_what_they_are():
    space = spaces.get("darts")
    architecture = np.asarray(space.sample(jax.random.key(0), 1)[0])
    network = trainable.of_architecture("darts", space.to_string(architecture), (8, 8, 1), 10, 4, 1)
    params = trainable.shapes(network)[0]
    counted = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert (
        counted
        == sizes(
            networks.build(space, Macro(4, 1, 3, classes=10), Build()), (8, 8, 1), space.choices(architecture)
        ).params
    )
