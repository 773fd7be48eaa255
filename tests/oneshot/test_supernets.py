"""Supernets as functions of flat masks, and candidates drawn from them: conformance over every registered one."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import data, spaces
from jnas.errors import InputError
from jnas.oneshot import candidates, posterior, training
from jnas.oneshot.supernets import SUPERNETS

IMAGE = (8, 8, 1)


@pytest.fixture(scope="module", params=SUPERNETS)
def supernet(request):
    return SUPERNETS[request.param](IMAGE, 3, 1, 1)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, *IMAGE))


@pytest.fixture(scope="module")
def variables(supernet):
    """Parameters and statistics that are not all alike."""
    generator = np.random.default_rng(2)

    def values(leaf):
        size = np.abs(generator.standard_normal(leaf.shape)) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return jnp.asarray(0.2 + size, jnp.float32)

    return jax.tree.map(values, jax.eval_shape(supernet.init, jax.random.key(1)))


@pytest.fixture(scope="module")
def evaluate(supernet):
    """One program for one mask of all images, one for a mask of each."""
    return jax.jit(supernet.evaluate)


def some(supernet, *shape, seed=3):
    """Masks [*shape, M] of zeros and ones, most of them ones."""
    return jax.random.bernoulli(jax.random.key(seed), 0.8, (*shape, supernet.masks)).astype(jnp.float32)


def test_its_parts_fit_together(supernet, variables):
    assert len(supernet.groups) == len(supernet.sizes) == len(supernet.kernels)
    assert len(set(supernet.groups)) == len(supernet.groups)
    assert supernet.weights_of_mask.shape == (supernet.masks,)
    assert supernet.fixed > 0
    assert supernet.parameters == sum(leaf.size for leaf in jax.tree.leaves(variables[0]))
    norms = supernet.squared_norms(variables[0])
    assert norms.shape == (len(supernet.groups),) and (np.asarray(norms) >= 0).all()
    # What a group's masks keep has weights, and a norm, or neither.
    groups = posterior.gating(supernet.sizes, "channel").group
    weights = np.bincount(groups, weights=supernet.weights_of_mask)
    np.testing.assert_array_equal(weights > 0, np.asarray(norms) > 0)


def test_masks_of_each_image_equal_one_mask_of_all(supernet, images, variables, evaluate):
    masks = some(supernet, 4)
    together = evaluate(*variables, masks, images)
    alone = [evaluate(*variables, masks[index], images)[index] for index in range(4)]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=2e-4, atol=2e-4)
    assert together.shape == (4, 3)


def test_a_mask_equals_weights_of_zero(supernet, images, variables, evaluate):
    """Of one mask in each of three groups: the slice of the kernel that it keeps is set to zero instead."""
    params, statistics = variables
    if supernet.space is not None:
        pytest.skip("gates of operations weigh what normalisation gives out, offsets included")
    starts = np.cumsum((0, *supernet.sizes))
    masks = np.ones(supernet.masks, np.float32)
    for group in sorted({0, len(supernet.groups) // 2, len(supernet.groups) - 1}):
        channel = supernet.sizes[group] // 2
        masks[starts[group] + channel] = 0
        ((path, part),) = supernet.kernels[group]
        kernel = params
        for name in path:
            kernel = kernel[name]
        changed = kernel.at[..., part[1].start + channel, :].set(0)
        params = jax.tree.map(lambda leaf, old=kernel, new=changed: new if leaf is old else leaf, params)
    ones = jnp.ones(supernet.masks)
    expected = evaluate(params, statistics, ones, images)
    found = evaluate(*variables, jnp.asarray(masks), images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - evaluate(*variables, ones, images)).max() > 1e-4


def test_statistics_of_a_batch_normalise_it(supernet, images, variables):
    """By its own statistics as running ones, a batch is normalised as in training."""
    params, running = variables
    masks = some(supernet)

    @jax.jit
    def both(params, masks):
        own = supernet.statistics(params, masks, images)
        return supernet.evaluate(params, own, masks, images), supernet.train(params, running, masks, images)[
            0
        ]

    evaluated, trained = both(params, masks)
    np.testing.assert_allclose(evaluated, trained, rtol=2e-3, atol=2e-3)


def test_sampled_sizes_have_the_expected_mean(supernet):
    logits = posterior.logits_of(np.linspace(0.1, 0.9, len(supernet.groups)))
    for gates in posterior.GATES:
        gating = posterior.gating(supernet.sizes, gates)
        kept = np.asarray(
            posterior.hard_masks(jax.random.key(4), logits[jnp.asarray(gating.group)], 4000), np.int64
        )
        sizes = candidates.parameters_of(supernet, gating, kept)
        own = candidates.weights_of_draws(supernet, gating)
        expected = posterior.expected_parameters(logits[jnp.asarray(gating.group)], own, supernet.fixed)
        assert abs(sizes.mean() - expected) < 5 * sizes.std() / np.sqrt(4000) + 1e-3
        share = candidates.equal_share(supernet, gating, logits)
        np.testing.assert_allclose(supernet.fixed + share * own.sum(), expected, rtol=1e-4)
        assert candidates.parameters_of(supernet, gating, np.ones((1, len(own)), bool)) == supernet.parameters


def test_cells_are_drawn_as_gates_of_which_one_at_most_is_kept():
    """Against drawing gates independently and keeping the draws with at most one on the first edge."""
    supernet = SUPERNETS["nasbench201"](IMAGE, 3, 1, 1)
    gating = posterior.gating(supernet.sizes, "group")
    logits = posterior.logits_of(np.tile([0.3, 0.6, 0.8, 0.9], 6))
    drawn = candidates.from_posterior(jax.random.key(5), supernet, gating, logits, 20_000)
    cells = candidates.cells_of_masks(supernet, drawn)
    np.testing.assert_array_equal(candidates.masks_of_cells(supernet, cells), drawn)
    assert drawn.reshape(-1, 6, 4).sum(-1).max() == 1
    hard = np.asarray(posterior.hard_masks(jax.random.key(6), logits[:4], 200_000))
    hard = hard[hard.sum(1) <= 1]
    for operation, share in enumerate(np.bincount(cells[:, 0], minlength=5) / len(cells)):
        expected = np.mean(~hard.any(1)) if operation == 0 else np.mean(hard[:, operation - 1])
        assert abs(share - expected) < 0.02
    text = candidates.to_text(supernet, drawn[0])
    np.testing.assert_array_equal(spaces.get("nasbench201").from_string(text), cells[0])


def test_blind_candidates_keep_their_share():
    supernet = SUPERNETS["shake_shake"](IMAGE, 3, 1, 1)
    gating = posterior.gating(supernet.sizes, "channel")
    kept = candidates.blind(jax.random.key(0), supernet, gating, 0.3, 500)
    assert kept.shape == (500, supernet.masks) and abs(kept.mean() - 0.3) < 0.01
    text = candidates.to_text(supernet, kept[0])
    assert text.startswith("shake_shake:")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text.partition(":")[2]), np.uint8))
    np.testing.assert_array_equal(bits[: supernet.masks], kept[0])


@pytest.mark.parametrize("name", SUPERNETS)
@pytest.mark.parametrize("gates", posterior.GATES)
def test_text_and_back(name, gates):
    supernet = SUPERNETS[name](IMAGE, 3, 1, 1)
    gating = posterior.gating(supernet.sizes, gates)
    for kept in candidates.blind(jax.random.key(2), supernet, gating, 0.5, 3):
        np.testing.assert_array_equal(
            candidates.from_text(supernet, candidates.to_text(supernet, kept)), kept
        )
    with pytest.raises(InputError):
        candidates.from_text(supernet, "shake_shake:zz")
    with pytest.raises(InputError):
        candidates.from_text(supernet, f"{name}:00")


@pytest.mark.parametrize("name", [name for name in SUPERNETS if name != "nasbench201"])
def test_images_that_a_network_would_halve_to_nothing(name):
    with pytest.raises(InputError, match=f"images of 2x2 do not fit ({name}|a network of 2 reduction cells)"):
        SUPERNETS[name]((2, 2, 1), 3, 1, 1)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def small():
    """The supernet of cells with its gating, parameters and statistics, for digits."""
    supernet = SUPERNETS["nasbench201"](IMAGE, 10, 2, 1)
    gating = posterior.gating(supernet.sizes, "group")
    return supernet, gating, *jax.jit(supernet.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def compiled(small):
    """`evaluate` and `statistics` of that supernet."""
    return jax.jit(small[0].evaluate), jax.jit(small[0].statistics)


@pytest.mark.parametrize("recalibrated", [False, True])
def test_candidates_side_by_side_equal_one_at_a_time(recalibrated, digits, small, compiled):
    supernet, gating, params, statistics = small
    images = digits.x_train[:64] if recalibrated else None
    evaluate = candidates.evaluator(supernet, gating, digits, images)
    kept = candidates.blind(jax.random.key(1), supernet, gating, 0.5, 3)
    # 300 images are a whole part and one that is filled up.
    x, y = digits.x_test[:300], digits.y_test[:300]
    together = evaluate(params, statistics, kept, x, y)
    for index in range(3):
        # The same program with three times the same candidate.
        alone = evaluate(params, statistics, kept[[index] * 3], x, y)
        np.testing.assert_allclose(alone, together[index], atol=100 / 300 + 1e-9)
    standard = jnp.asarray((x - digits.mean) / digits.std)
    masks = jnp.asarray(kept[0], jnp.float32)
    if recalibrated:
        calibrating = jnp.asarray((images - digits.mean) / digits.std)
        statistics = compiled[1](params, masks, calibrating)
    logits = compiled[0](params, statistics, masks, standard)
    expected = 100 * np.mean(np.argmax(np.asarray(logits), axis=-1) == y)
    assert abs(expected - together[0]) <= 100 / 300 + 1e-9


@pytest.mark.parametrize("cell", [(3, 2, 3, 4, 1, 2), (0, 2, 1, 3, 0, 3), (0, 0, 0, 0, 0, 0)])
def test_a_cell_run_alone_equals_the_masked_supernet(cell, digits, small, compiled):
    """Logits by running statistics, and the statistics of a batch, of the operations that the cell has."""
    supernet, _, params, _ = small
    evaluate, statistics_of = compiled
    images = jnp.asarray((digits.x_train[:32] - digits.mean) / digits.std)
    choices = jnp.array(cell, jnp.int32)
    masks = jnp.asarray(candidates.masks_of_cells(supernet, np.array([cell]))[0], jnp.float32)
    by_choice, by_mask = (statistics_of(params, own, images) for own in (choices, masks))
    assert jax.tree.structure(by_choice) == jax.tree.structure(by_mask)
    logits = [evaluate(params, by_mask, own, images) for own in (choices, masks)]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    found = evaluate(params, by_choice, choices, images)
    np.testing.assert_allclose(found, logits[1], rtol=1e-4, atol=1e-5)


def test_a_candidate_that_is_not_finite_has_no_accuracy(digits, small):
    supernet, gating, params, statistics = small
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    evaluate = candidates.evaluator(supernet, gating, digits, None)
    kept = candidates.blind(jax.random.key(1), supernet, gating, 0.5, 3)
    assert np.isnan(evaluate(broken, statistics, kept, digits.x_test[:8], digits.y_test[:8])).all()


def test_with_masks_drawn_blindly_only_weights_learn(digits, small):
    """And the one mask that is drawn for a batch is that of all its images."""
    supernet, gating, *_ = small
    few = replace(digits, x_train=digits.x_train[:40], y_train=digits.y_train[:40])
    objective = training.Objective(gating, np.full(24, 0.5), 40.0, 0.2, 1.0, 1.0, "kept")
    one = jnp.zeros((1, 24)).at[0, ::4].set(1.0)
    trainer = training.supernet_trainer(
        supernet, few, jax.random.key(0), objective=objective, logits=jnp.full(24, -1.0), epochs=1, batch=20,
        learning_rate=0.1, logits_rate=10.0, augment=False, draw=lambda key, images: one,
    )  # fmt: skip
    before = trainer.init(jax.random.key(1))
    after, record = trainer.epoch(before, 0)
    assert trainer.steps == 2 and np.isfinite(record).all()
    np.testing.assert_array_equal(after.logits, before.logits)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, before.params)
    assert moved["classifier_kernel"]
    again, _ = trainer.epoch(before, 0)
    jax.tree.map(np.testing.assert_array_equal, after, again)


def test_the_gradient_of_the_loss_against_finite_differences(digits, small):
    """In float64, along random directions of weights and of logits, masks and noise held fixed."""
    _, gating, params, statistics = small
    # Of its own: JAX keeps the indices of what was traced before as int32.
    supernet = SUPERNETS["nasbench201"](IMAGE, 10, 2, 1)
    with jax.enable_x64(True):
        double = partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float64))
        objective = training.Objective(gating, np.full(24, 0.4), 100.0, 0.5, 3.0, 1.0, "kept")
        images = jnp.asarray((digits.x_train[:6] - digits.mean) / digits.std, jnp.float64)
        labels = jnp.asarray(digits.y_train[:6])
        start = {"params": double(params), "logits": jnp.linspace(-1.0, 1.0, 24)}

        def loss(trained):
            return training.loss(
                trained, double(statistics), images, labels, jax.random.key(7), supernet=supernet,
                objective=objective,
            )[0]  # fmt: skip

        gradient, loss = jax.jit(jax.grad(loss))(start), jax.jit(loss)
        generator = np.random.default_rng(8)
        for part in ("params", "logits"):
            direction = {
                name: jax.tree.map(
                    lambda leaf, on=name == part: on * generator.standard_normal(leaf.shape), value
                )
                for name, value in start.items()
            }
            step = 1e-6
            up, down = (
                loss(jax.tree.map(lambda a, d, s=sign * step: a + s * d, start, direction))
                for sign in (1, -1)
            )
            expected = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)))
            assert expected.dtype == jnp.float64
            np.testing.assert_allclose((up - down) / (2 * step), expected, rtol=1e-5)
