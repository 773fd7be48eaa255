"""Supernets as functions of flat masks, and architectures drawn from them: conformance over every registered one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import float64

from jnas import data, spaces
from jnas.errors import InputError
from jnas.estimators.inherited import inherited
from jnas.oneshot import METHODS, posterior
from jnas.oneshot.settings import Posterior, Uniform
from jnas.oneshot.supernets import SUPERNETS, gates_of_masks, masks_of_gates
from jnas.oneshot.uniform import uniform
from jnas.parallel import Program
from jnas.spaces.masks import OPERATIONS
from jnas.types import STATUSES, Candidates

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
    if supernet.space.operations != OPERATIONS:
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
    for gates in ("channel", "group"):
        gating = posterior.gating(supernet.sizes, gates)
        per_mask = logits[jnp.asarray(gating.group)]
        kept = np.asarray(posterior.hard_masks(jax.random.key(4), per_mask, 4000))[:, gating.expand]
        sizes = supernet.fixed + kept @ supernet.weights_of_mask
        expected = posterior.expected_parameters(
            per_mask[jnp.asarray(gating.expand)], supernet.weights_of_mask, supernet.fixed
        )
        assert abs(sizes.mean() - expected) < 5 * sizes.std() / np.sqrt(4000) + 1e-3
        share = posterior.equal_share(supernet, gating, logits)
        np.testing.assert_allclose(
            supernet.fixed + share * supernet.weights_of_mask.sum(), expected, rtol=1e-4
        )


def test_gates_and_masks_are_one_another(supernet):
    masks = some(supernet, 3)
    gates = gates_of_masks(supernet.space, masks)
    assert gates.shape[2:] == (len(supernet.space.edges), len(supernet.space.operations))
    np.testing.assert_array_equal(masks_of_gates(gates), masks)
    architectures = supernet.space.sample(jax.random.key(0), 3)
    np.testing.assert_array_equal(
        supernet.masks_of(architectures), masks_of_gates(supernet.space.gates(architectures))
    )


def test_cells_are_drawn_as_gates_of_which_one_at_most_is_kept():
    """Against drawing gates independently and keeping the draws with at most one on the first edge."""
    supernet = SUPERNETS["nasbench201"](IMAGE, 3, 1, 1)
    gating = posterior.gating(supernet.sizes, "group")
    logits = posterior.logits_of(np.tile([0.3, 0.6, 0.8, 0.9], 6))
    cells = posterior.draw(jax.random.key(5), supernet.space, gating, logits, 8000)
    assert cells.dtype == np.int32 and cells.shape == (8000, 6)
    hard = np.asarray(posterior.hard_masks(jax.random.key(6), logits[:4], 200_000))
    hard = hard[hard.sum(1) <= 1]
    for operation, share in enumerate(np.bincount(cells[:, 0], minlength=5) / len(cells)):
        expected = np.mean(~hard.any(1)) if operation == 0 else np.mean(hard[:, operation - 1])
        assert abs(share - expected) < 0.03


@pytest.mark.parametrize("name", SUPERNETS)
def test_text_and_back(name):
    supernet = SUPERNETS[name](IMAGE, 3, 1, 1)
    space = supernet.space
    for gates in ("channel", "group"):
        gating = posterior.gating(supernet.sizes, gates)
        logits = posterior.logits_of(np.full(len(supernet.groups), 0.4))
        rows = [
            *posterior.blind(jax.random.key(2), supernet, gating, 0.5, 2),
            *posterior.draw(jax.random.key(3), space, gating, logits, 2),
        ]
        for row in rows:
            np.testing.assert_array_equal(space.from_string(space.to_string(row)), row)
    for text in ("shake_shake:zz", f"{name}:00"):
        with pytest.raises(InputError):
            space.from_string(text)


def test_blind_masks_keep_their_share():
    supernet = SUPERNETS["shake_shake"](IMAGE, 3, 1, 1)
    gating = posterior.gating(supernet.sizes, "channel")
    kept = posterior.blind(jax.random.key(0), supernet, gating, 0.3, 500)
    assert kept.shape == (500, supernet.masks) and abs(kept.mean() - 0.3) < 0.01
    text = supernet.space.to_string(kept[0])
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text.removeprefix("shake_shake:")), np.uint8))
    np.testing.assert_array_equal(bits[: supernet.masks], kept[0])
    whole = np.ones((1, supernet.masks), np.int32)
    assert supernet.parameters_of(whole)[0] == supernet.parameters


@pytest.mark.parametrize("name", [name for name in SUPERNETS if name != "nasbench201"])
def test_images_that_a_network_would_halve_to_nothing(name):
    with pytest.raises(InputError, match=f"images of 2x2 do not fit ({name}|a network of 2 reduction cells)"):
        SUPERNETS[name]((2, 2, 1), 3, 1, 1)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def small():
    """The supernet of cells with its parameters and statistics, for digits."""
    supernet = SUPERNETS["nasbench201"](IMAGE, 10, 2, 1)
    return supernet, *jax.jit(supernet.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def compiled(small):
    """`evaluate` and `statistics` of that supernet."""
    return jax.jit(small[0].evaluate), jax.jit(small[0].statistics)


KEY = jax.random.key(9)


@pytest.fixture(scope="module", params=[0, 64])
def evaluated(request, digits, small):
    """Images to recalibrate by, an estimator on 300 images (a whole part and one that is filled up), cells, values."""
    estimate = inherited(
        small[0], small[1:], digits, digits.x_test[:300], digits.y_test[:300], recalibrate=request.param, batch=3
    )  # fmt: skip
    cells = np.asarray(small[0].space.sample(jax.random.key(1), 5))
    return request.param, estimate, cells, estimate.evaluate(KEY, Candidates(cells))


def test_an_accuracy_depends_on_the_candidate_and_the_key_alone(evaluated):
    recalibrated, estimate, cells, values = evaluated
    assert values.value.shape == (5, 1) and values.value.dtype == np.float64
    assert (values.status == STATUSES.index("ok")).all() and (values.cost > 0).all()
    again = estimate.evaluate(KEY, Candidates(cells[[4, 0]]))
    np.testing.assert_array_equal(again.value, values.value[[4, 0]])
    other = estimate.evaluate(jax.random.key(10), Candidates(cells))
    assert (other.value == values.value).all() == (not recalibrated)


def test_an_accuracy_is_that_of_the_masked_supernet(evaluated, digits, small, compiled):
    recalibrated, estimate, cells, values = evaluated
    supernet, params, statistics = small
    masks = supernet.masks_of(cells[0])
    if recalibrated:
        chosen = np.asarray(jax.random.permutation(KEY, len(digits.x_train)))[:64]
        calibrating = jnp.asarray((digits.x_train[chosen] - digits.mean) / digits.std)
        statistics = compiled[1](params, masks, calibrating)
    standard = jnp.asarray((digits.x_test[:300] - digits.mean) / digits.std)
    logits = compiled[0](params, statistics, masks, standard)
    expected = 100 * np.mean(np.argmax(np.asarray(logits), axis=-1) == digits.y_test[:300])
    assert abs(expected - values.value[0, 0]) <= 100 / 300 + 1e-9
    # The same cell by gates goes through all operations, masked.
    by_gates = estimate.evaluate(KEY, Candidates(gates=np.asarray(supernet.space.gates(cells[:1]))))
    assert abs(expected - by_gates.value[0, 0]) <= 100 / 300 + 1e-9


def test_fewer_at_a_time_where_memory_runs_out(evaluated, monkeypatch):
    _, estimate, cells, values = evaluated
    compiled, widths, most = Program._compiled, [], 1

    def limited(program, arguments, width):
        run = compiled(program, arguments, width)

        def call(*arguments):
            widths.append(width)
            if width > most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
            return run(*arguments)

        return call

    monkeypatch.setattr(Program, "_compiled", limited)
    # By gates, candidates are side by side on a CPU too.
    by_gates = Candidates(gates=np.asarray(spaces.get("nasbench201").gates(cells[:2])))
    again = estimate.evaluate(KEY, by_gates)
    assert widths[:2] == [3, 1]
    np.testing.assert_allclose(again.value, values.value[:2], atol=100 / 300 + 1e-9)
    most = 0
    with pytest.raises(MemoryError, match="one row does not fit into memory"):
        estimate.evaluate(KEY, by_gates)


@pytest.mark.parametrize("cell", [(3, 2, 3, 4, 1, 2), (0, 2, 1, 3, 0, 3), (0, 0, 0, 0, 0, 0)])
def test_a_cell_run_alone_equals_the_masked_supernet(cell, digits, small, compiled):
    """Logits by running statistics, and the statistics of a batch, of the operations that the cell has."""
    supernet, params, _ = small
    evaluate, statistics_of = compiled
    images = jnp.asarray((digits.x_train[:32] - digits.mean) / digits.std)
    choices = jnp.array(cell, jnp.int32)
    masks = supernet.masks_of(choices)
    by_choice, by_mask = (statistics_of(params, own, images) for own in (choices, masks))
    assert jax.tree.structure(by_choice) == jax.tree.structure(by_mask)
    logits = [evaluate(params, by_mask, own, images) for own in (choices, masks)]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    found = evaluate(params, by_choice, choices, images)
    np.testing.assert_allclose(found, logits[1], rtol=1e-4, atol=1e-5)


def test_a_candidate_that_is_not_finite_fails(digits, small):
    supernet, params, statistics = small
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    estimate = inherited(
        supernet, (broken, statistics), digits, digits.x_test[:300], digits.y_test[:300], batch=3
    )
    values = estimate.evaluate(KEY, Candidates(np.zeros((3, 6), np.int32)))
    assert (values.value == -np.inf).all() and (values.status == STATUSES.index("not_finite")).all()


@pytest.fixture(scope="module", params=METHODS)
def method(request, digits, small):
    """A method, the supernet, a compiled step and two states."""
    supernet = small[0]
    made = METHODS[request.param]().make(
        supernet, steps=4, images=40, prepare=lambda key, x: (x - digits.mean) / digits.std
    )
    step = jax.jit(made.step)
    batch = digits.x_train[:20], digits.y_train[:20]
    before = jax.jit(made.init)(jax.random.key(1))
    return made, supernet, step, batch, before, step(before, jax.random.key(2), batch, batch)


def test_a_step_of_a_method(method):
    made, _, step, batch, before, (after, info) = method
    assert {"cross_entropy", "regulariser", "accuracy"} == set(info) and np.isfinite(
        list(info.values())
    ).all()
    assert jax.tree.map(jax.typeof, before) == jax.tree.map(jax.typeof, after)
    again, _ = step(before, jax.random.key(2), batch, batch)
    jax.tree.map(np.testing.assert_array_equal, after, again)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), made.params(after), made.params(before))
    assert moved[0]["classifier_kernel"]


def test_gates_and_samples_of_a_method(method):
    made, supernet, *_, (after, _) = method
    space = supernet.space
    gates = made.gates(after, KEY, 3)
    assert gates.shape == (3, space.cells, len(space.edges), len(space.operations))
    assert gates.dtype == jnp.float32 and ((gates >= 0) & (gates <= 1)).all()
    rows = np.asarray(made.sample(after, KEY, 4))
    assert rows.shape == (4, len(space.decisions)) and rows.dtype == np.int32
    assert ((rows >= 0) & (rows < space.decisions)).all()
    np.testing.assert_array_equal(rows, made.sample(after, KEY, 4))


def test_masks_that_are_given_are_those_of_all_images(digits, small):
    """A step with one path equals a step with that path for each image."""
    supernet, *_ = small
    one = jnp.zeros((1, 24)).at[0, ::4].set(1.0)
    after = []
    for masks in (one, jnp.repeat(one, 20, axis=0)):
        made = uniform(
            supernet, Uniform(), steps=2, images=40, prepare=lambda key, x: (x - digits.mean) / digits.std,
            draw=lambda key, count, masks=masks: masks,
        )  # fmt: skip
        state = jax.eval_shape(made.init, jax.random.key(0))
        zeros = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), state)
        after.append(
            jax.jit(made.step)(zeros, KEY, (digits.x_train[:20], digits.y_train[:20]), None)[0].params
        )
    jax.tree.map(np.testing.assert_array_equal, *after)


def test_the_gradient_of_the_loss_against_finite_differences(digits, small):
    """In float64, along random directions of weights and of logits, masks and noise held fixed."""
    _, params, statistics = small
    # Of its own: JAX keeps the indices of what was traced before as int32.
    supernet = SUPERNETS["nasbench201"](IMAGE, 10, 2, 1)
    with float64():
        double = partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float64))
        settings = Posterior(temperature=0.5, weight_penalty=3.0)
        images = jnp.asarray((digits.x_train[:6] - digits.mean) / digits.std, jnp.float64)
        labels = jnp.asarray(digits.y_train[:6])
        start = {"params": double(params), "logits": jnp.linspace(-1.0, 1.0, 24)}

        def loss(trained):
            return posterior.loss(
                trained, double(statistics), images, labels, jax.random.key(7), supernet=supernet,
                settings=settings, inclusion=np.full(24, 0.4), examples=100.0,
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
