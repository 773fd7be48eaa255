"""One program that trains many cells, against a plain loop that trains one of them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nasbench201_networks import Network, specialise

from jnas import data, spaces
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators import batch_training
from jnas.estimators.batch_training import accuracies
from jnas.estimators.settings import Training
from jnas.nets import macro
from jnas.nets.modules import Build, initial_parameters
from jnas.parallel import Program
from jnas.types import STATUSES, Candidates

GOOD, EVERYTHING, NOTHING = (3, 1, 2, 3, 1, 3), (2, 1, 3, 0, 4, 3), (0,) * 6
CELLS = (GOOD, EVERYTHING, NOTHING, (1, 4, 0, 2, 3, 1))
KEY = jax.random.key(3)
# One program for all tests: what is not here (rates, cells, images) is data to it. The decay is strong to be seen.
SETTINGS = {
    "epochs": 3, "batch": 32, "learning_rate": 0.3, "weight_decay": 0.01, "channels": 8, "cells_per_stage": 1,
    "stages": 1, "evaluate_at": (1, 2, 3),
}  # fmt: skip
# Test images in parts of 16, about as many as there are of a class; the last two parts overlap.
IMAGES, TEST, PART = 520, 150, 16
# Rounding decides about an image now and then, about more the longer training goes on: percent by epoch.
ROUNDING = np.array([1.01, 2.01, 6.01]) * 100 / TEST


def batched(cells):
    return np.array(cells, np.int32)[:, None]


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_training, "EVALUATION_BATCH", PART)
        yield


@pytest.fixture(scope="module")
def digits():
    whole = data.load("digits")
    return dataclasses.replace(
        whole, x_train=whole.x_train[:IMAGES], y_train=whole.y_train[:IMAGES],
        x_test=whole.x_test[:TEST], y_test=whole.y_test[:TEST],
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(digits):
    """float32[4, 3], of all cells."""
    return np.asarray(accuracies(KEY, batched(CELLS), digits, **SETTINGS))


def plain_loop(digits, cell):
    """Test accuracy after each epoch: the network built for the cell, and SGD written out."""
    weights_key, order_key, parts_key = jax.random.split(KEY, 3)
    masked = Network(8, 10, Build(), 1, 1)
    whole = initial_parameters(masked, weights_key, jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 6, 5)))
    params = jax.tree.map(np.asarray, specialise(whole, cell))
    network = macro.restricted(masked, [cell])
    x_train, x_test = (
        (np.asarray(images) - digits.mean) / digits.std for images in (digits.x_train, digits.x_test)
    )

    @jax.jit
    def gradient(params, x, y):
        def loss(params):
            logits = network.apply({"params": params}, x)
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

        return jax.grad(loss)(params)

    predict = jax.jit(lambda params, x: jnp.argmax(network.apply({"params": params}, x), axis=-1))
    shuffled = np.asarray(jax.random.permutation(parts_key, TEST))
    velocity = jax.tree.map(np.zeros_like, params)
    step, steps, curve = 0, 3 * (IMAGES // 32), []
    for epoch in range(3):
        for indices in np.asarray(transforms.batches(order_key, epoch, IMAGES, 32)):
            rate = 0.3 * 0.5 * (1 + np.cos(np.pi * step / steps))
            gradients = gradient(params, x_train[indices], digits.y_train[indices])
            direction = jax.tree.map(lambda g, p: np.asarray(g) + 0.01 * p, gradients, params)
            velocity = jax.tree.map(lambda v, d: 0.9 * v + d, velocity, direction)
            params = jax.tree.map(
                lambda p, d, v, rate=rate: np.float32(p - rate * (d + 0.9 * v)), params, direction, velocity
            )
            step += 1
        right = np.zeros(TEST, bool)
        # An image that is in two parts counts in the first of them, which is the last here.
        for part in (shuffled[-PART:], *shuffled[: TEST // PART * PART].reshape(-1, PART)):
            right[part] = np.asarray(predict(params, x_test[part])) == digits.y_test[part]
        curve.append(100 * right.mean())
    return curve


@pytest.mark.parametrize("index", [0, 1, 2])
def test_it_equals_a_plain_loop(index, digits, found):
    assert (np.abs(found[index] - plain_loop(digits, CELLS[index])) < ROUNDING).all()


def test_a_good_cell_learns_and_an_empty_one_does_not(found):
    assert found.shape == (4, 3) and found.dtype == np.float32
    assert found[:2, -1].min() > 40
    # Without any path from the image to the classifier all images look alike.
    assert found[2].max() < 20


def test_the_company_of_a_cell_does_not_matter(digits, found):
    others = (CELLS[3], (4,) * 6, CELLS[1], CELLS[0])
    again = np.asarray(accuracies(KEY, batched(others), digits, **SETTINGS))
    np.testing.assert_array_equal(again[[3, 2, 0]], found[[0, 1, 3]])


def test_another_key_is_another_training(digits, found):
    again = np.asarray(accuracies(jax.random.key(4), batched(CELLS), digits, **SETTINGS))
    assert (again[:2] != found[:2]).any()


def test_side_by_side_as_on_an_accelerator(digits, found, monkeypatch):
    """Three cells, two at a time: the last has nobody beside it."""
    monkeypatch.setattr(batch_training, "Program", partial(Program, cpu_width=2))
    batch_training._compiled.cache_clear()
    again = np.asarray(accuracies(KEY, batched(CELLS[:3]), digits, **SETTINGS | {"evaluate_at": (3, 1)}))
    assert (np.abs(again - found[:3, [2, 0]]) < ROUNDING[[2, 0]]).all()


def test_the_last_epoch_alone_where_nothing_else_is_asked_for(digits, found):
    settings = SETTINGS | {"evaluate_at": None}
    again = np.asarray(accuracies(KEY, batched(CELLS), digits, **settings))
    np.testing.assert_allclose(again, found[:, 2:], atol=ROUNDING[2])


def test_the_estimator_of_trainings(digits, monkeypatch):
    """A share of the fidelity is one of the epochs; the test images are not looked at."""
    calls = []

    def record(key, choices, split, *, epochs, **settings):
        calls.append((epochs, len(choices), len(split.x_train), len(split.x_test)))
        return np.where(np.arange(len(choices)) == 1, np.nan, float(epochs))[:, None], ()

    monkeypatch.setattr(batch_training, "observations", record)
    estimate = batch_training.trained(spaces.get("nasbench201"), digits, Training(epochs=3, batch=32))
    shares = np.array([1, 1, 1 / 3, 1, 1, 1 / 3])
    values = estimate.evaluate(KEY, Candidates(np.array((*CELLS, *CELLS[:2]), np.int32), fidelity=shares))
    # The held-out fifth is taken by class, so that its size is near IMAGES / 5.
    held = calls[0][3]
    assert calls == [(1, 2, IMAGES - held, held), (3, 4, IMAGES - held, held)] and abs(held - IMAGES / 5) < 10
    np.testing.assert_array_equal(values.value[:, 0], [3, -np.inf, 1, 3, 3, -np.inf])
    assert values.status[1, 0] == STATUSES.index("not_finite")


def test_the_order_of_the_test_images_says_nothing(digits, found):
    """Sorted by class, a part would be of few classes, and its statistics would hide what they are.

    Other parts decide otherwise about some images, so the good cells are compared in the mean: parts of few
    classes cost them 20 percent here, other mixed parts 5.
    """
    order = np.argsort(digits.y_test)
    ordered = dataclasses.replace(digits, x_test=digits.x_test[order], y_test=digits.y_test[order])
    again = np.asarray(accuracies(KEY, batched(CELLS), ordered, **SETTINGS))
    assert abs(np.mean(again[:2, -1] - found[:2, -1])) < 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_training.jax.random, "permutation", lambda key, count: jnp.arange(count))
        # Another batch makes another program, which does not mix the images.
        unmixed = np.asarray(accuracies(KEY, batched(CELLS), ordered, **SETTINGS | {"batch": 31}))
    assert np.mean(unmixed[:2, -1] - found[:2, -1]) < -10


def test_what_diverges_is_not_a_number(digits):
    again = accuracies(KEY, batched(CELLS), digits, **SETTINGS | {"learning_rate": 1e20})
    assert np.isnan(np.asarray(again)).all()


@pytest.mark.parametrize(
    ("choices", "settings", "message"),
    [
        (batched(CELLS), {"evaluate_at": (-1, 3)}, r"evaluate_at \(-1, 3\) does not fit: choose from 0 to 3"),
        (batched(CELLS), {"evaluate_at": (4,)}, "choose from 0 to 3"),
        (batched(CELLS), {"evaluate_at": ()}, "choose from 0 to 3"),
        (batched(CELLS), {"batch": IMAGES + 1}, "batch 521 does not fit: there are 520 images"),
        (batched(CELLS), {"stages": 5}, "images of 8x8 do not fit a network of 5 stages"),
        (np.array(CELLS), {}, r"choices are int32\[4, 6\]: give integers \[architectures, cells, edges\]"),
        (np.zeros((2, 1, 6, 5), np.float32), {}, r"choices are float32\[2, 1, 6, 5\]"),
        (batched(CELLS)[:0], {}, r"choices are int32\[0, 1, 6\]"),
    ],
)
def test_what_does_not_fit(digits, choices, settings, message):
    with pytest.raises(InputError, match=message):
        accuracies(KEY, choices, digits, **SETTINGS | settings)
