"""jnas's kernels equal neural-tangents' and a brute-force Jacobian in float64."""

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jnas import spaces
from jnas.errors import InputError
from jnas.nets.modules import RUNNING_KEEP, Build
from jnas.nets.nasbench201 import Network
from jnas.proxies import ntk
from jnas.theory import empirical_ntk

SPACE = spaces.get("nasbench201")
CLASSES = 3


@dataclass(frozen=True)
class Case:
    """A random network, its images and its gates."""

    channels: int
    image: tuple[int, int, int]
    images: int
    gates: str
    cells_per_stage: int = 1
    stages: int = 1

    def network(self, build: Build) -> Network:
        return Network(self.channels, CLASSES, build, self.cells_per_stage, self.stages)


@cache
def draw(case: Case):
    """(params, images, gates); scales, offsets and biases are random too."""
    keys = jax.random.split(jax.random.key(case.channels), 4)
    images = jax.random.normal(keys[0], (case.images, *case.image))
    gates = {
        "soft": jax.nn.softmax(jax.random.normal(keys[1], (1, 6, 5))),
        "some zero": jax.random.normal(keys[1], (1, 6, 5)) * jax.random.bernoulli(keys[2], 0.6, (1, 6, 5)),
        "one-hot": SPACE.gates(np.array([3, 2, 1, 3, 4, 3], np.int32)),
        "equal": jnp.full((1, 6, 5), 0.25).at[..., 0].set(0.0),
    }[case.gates]
    initial = jax.jit(case.network(Build()).init)(keys[2], images[:1], gates)["params"]
    leaves, structure = jax.tree.flatten(initial)
    noise = jax.random.split(keys[3], len(leaves))
    noisy = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(noise, leaves, strict=True)]
    return jax.tree.unflatten(structure, noisy), images, gates


FIRST = Case(1, (8, 8, 1), 4, "soft")
CASES = {
    "train, two cells, one channel": ("train", Case(1, (8, 8, 3), 4, "some zero", cells_per_stage=2)),
    "train, two stages, four channels": ("train", Case(4, (8, 8, 3), 5, "one-hot", stages=2)),
    "frozen, two stages, three channels": ("frozen", Case(3, (8, 8, 1), 6, "equal", stages=2)),
}


def brute_force(case: Case, statistics: str) -> dict[tuple[str, ...], np.ndarray]:
    """The Jacobian of all logits, float64[N, O, size of the parameter], by parameter.

    Frozen statistics are found by a training step of the running averages from zero, and each image is then
    evaluated alone with them.
    """
    params, images, gates = draw(case)
    shapes = jax.eval_shape(case.network(Build()).init, jax.random.key(0), images, gates)["batch_stats"]
    with jax.enable_x64(True):
        params, images, gates = jax.tree.map(
            lambda array: jnp.asarray(np.asarray(array), jnp.float64), (params, images, gates)
        )
        variables, build, batches = {}, Build(), images[None]
        if statistics == "frozen":
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), shapes)
            step = partial(case.network(Build()).apply, mutable=["batch_stats"])
            _, updated = jax.jit(step)({"params": params, "batch_stats": zeros}, images, gates)
            stored = jax.tree.map(lambda leaf: leaf / (1 - RUNNING_KEEP), updated["batch_stats"])
            variables, build, batches = {"batch_stats": stored}, Build(statistics="running"), images[:, None]

        @jax.jit
        def rows_of_all(params):
            def rows_of(batch):
                def logits(params):
                    return case.network(build).apply({"params": params, **variables}, batch, gates).ravel()

                out, pullback = jax.vjp(logits, params)
                # One row after the other compiles in a third of the time of all side by side.
                return jax.lax.map(lambda d: pullback(d)[0], jnp.eye(out.size))

            return jax.lax.map(rows_of, batches)

        rows = rows_of_all(params)
        flat = traverse_util.flatten_dict(rows)
        assert all(row.dtype == jnp.float64 for row in flat.values())
        return {path: np.asarray(row).reshape(case.images, CLASSES, -1) for path, row in flat.items()}


def expected_kernel(rows: dict[tuple[str, ...], np.ndarray], logits: str, parameters: str) -> np.ndarray:
    unweighted = ("offset", "classifier_bias") if parameters == "weights" else ()
    jacobian = np.concatenate([row for path, row in rows.items() if path[-1] not in unweighted], axis=-1)
    if logits == "sum":
        return np.einsum("nop,mqp->nm", jacobian, jacobian)
    if logits == "trace":
        return np.einsum("nop,mop->nm", jacobian, jacobian) / CLASSES
    count = jacobian.shape[0] * CLASSES
    return np.einsum("nop,mqp->nomq", jacobian, jacobian).reshape(count, count)


def kernel(case: Case, statistics: str, logits: str, parameters: str, implementation: str) -> np.ndarray:
    params, images, gates = draw(case)

    @jax.jit
    def evaluate(params, images, gates):
        return ntk.kernel_function(
            params, images, case.network, normalisation=statistics, logits=logits, parameters=parameters,
            implementation=implementation,
        )(gates)  # fmt: skip

    return np.asarray(evaluate(params, images, gates))


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def first():
    return {statistics: brute_force(FIRST, statistics) for statistics in ("train", "frozen")}


# Each treatment of statistics with each of logits, and of either with each choice of parameters.
OPTIONS = [
    ("train", "sum", "weights"), ("train", "trace", "all"), ("train", "full", "weights"),
    ("frozen", "sum", "all"), ("frozen", "trace", "weights"), ("frozen", "full", "all"),
]  # fmt: skip


def test_the_options_are_all():
    _, logits, parameters = map(set, zip(*OPTIONS, strict=True))
    assert logits == set(empirical_ntk.LOGITS) and parameters == set(empirical_ntk.PARAMETERS)


@pytest.mark.parametrize(("statistics", "logits", "parameters"), OPTIONS)
def test_every_option_equals_brute_force(first, statistics, logits, parameters):
    found = kernel(FIRST, statistics, logits, parameters, "jnas")
    assert_equal(found, expected_kernel(first[statistics], logits, parameters))


@pytest.mark.parametrize("name", CASES)
def test_every_shape_equals_brute_force(name):
    statistics, case = CASES[name]
    expected = expected_kernel(brute_force(case, statistics), "full", "all")
    assert_equal(kernel(case, statistics, "full", "all", "jnas"), expected)


# Each implementation with each treatment of statistics, logits and parameters, but not with every combination.
PAIRS = [
    ("jacobian_contraction", "train", "sum", "weights"),
    ("jacobian_contraction", "frozen", "trace", "all"),
    ("ntk_vector_products", "train", "full", "all"),
    ("ntk_vector_products", "frozen", "sum", "weights"),
    ("structured_derivatives", "train", "trace", "weights"),
    ("structured_derivatives", "frozen", "full", "all"),
]


@pytest.mark.parametrize(("implementation", "statistics", "logits", "parameters"), PAIRS)
def test_neural_tangents_computes_the_same(first, implementation, statistics, logits, parameters):
    found = kernel(FIRST, statistics, logits, parameters, implementation)
    assert_equal(found, expected_kernel(first[statistics], logits, parameters))


def test_an_implementation_that_does_not_exist():
    with pytest.raises(InputError, match=r"unknown implementation 'fastest'.*jacobian_contraction"):
        empirical_ntk.by_neural_tangents(
            lambda params, images: images, {}, jnp.ones((2, 1)), implementation="fastest", statistics="train"
        )


def test_which_parameters_count():
    params = {
        "stem": {"kernel": 1, "norm": {"scale": 2, "offset": 3}}, "classifier_kernel": 4, "classifier_bias": 5
    }  # fmt: skip
    counted, rest = empirical_ntk.split(params, "weights")
    assert sorted(counted.values()) == [1, 2, 4] and sorted(rest.values()) == [3, 5]
    counted, rest = empirical_ntk.split(params, "all")
    assert sorted(counted.values()) == [1, 2, 3, 4, 5] and rest == {}
