"""jnas's kernels equal neural-tangents' and a brute-force Jacobian in float64.

Every option is tested on a network of two layers; the networks of NAS-Bench-201 on planes then by one whole Jacobian
each, as what is summed afterwards does not know the network.
"""

import itertools
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import float64
from flax import traverse_util
from nasbench201_networks import Network

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.settings import NtkConfig
from jnas.nets.modules import RUNNING_KEEP, Build
from jnas.proxies import ntk
from jnas.theory import empirical_ntk

SPACE = spaces.get("nasbench201")
CLASSES = 3


def assert_equal(computed: np.ndarray, expected: np.ndarray) -> None:
    assert computed.shape == expected.shape
    np.testing.assert_allclose(computed, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())


def expected_kernel(rows: dict[tuple[str, ...], np.ndarray], logits: str, parameters: str) -> np.ndarray:
    """The kernel by its definition, from the Jacobian [N, O, size] by each parameter."""
    unweighted = ("offset", "classifier_bias") if parameters == "weights" else ()
    jacobian = np.concatenate([row for path, row in rows.items() if path[-1] not in unweighted], axis=-1)
    if logits == "sum":
        return np.einsum("nop,mqp->nm", jacobian, jacobian)
    if logits == "trace":
        return np.einsum("nop,mop->nm", jacobian, jacobian) / CLASSES
    count = jacobian.shape[0] * CLASSES
    return np.einsum("nop,mqp->nomq", jacobian, jacobian).reshape(count, count)


def two_layers(params, images, mean_of=lambda h: h.mean(0)):
    """Logits of a dense layer with batch normalisation and a classifier."""
    norm = params["hidden"]
    h = images.reshape(len(images), -1) @ norm["kernel"]
    mean = mean_of(h)
    deviation = jnp.sqrt(mean_of((h - mean) ** 2) + 1e-5)
    h = jax.nn.relu((h - mean) / deviation * norm["scale"] + norm["offset"])
    return h @ params["classifier_kernel"] + params["classifier_bias"]


def frozen_mean(h):
    return jax.lax.stop_gradient(jax.lax.pmean(h.mean(0), "images"))


@pytest.fixture(scope="module")
def small():
    """Parameters and images of `two_layers`, and its Jacobian by each treatment of statistics."""
    draw = np.random.default_rng(0)
    images = draw.normal(size=(4, 2, 2, 1))
    params = {
        "hidden": {"kernel": draw.normal(size=(4, 5)), "scale": draw.normal(size=5), "offset": draw.normal(size=5)},
        "classifier_kernel": draw.normal(size=(5, CLASSES)),
        "classifier_bias": draw.normal(size=CLASSES),
    }  # fmt: skip
    with float64():
        means = {
            "train": lambda h: h.mean(0),
            "frozen": lambda h: jax.lax.stop_gradient(h.mean(0)),
        }
        rows = {
            statistics: {
                path: np.asarray(row).reshape(len(images), CLASSES, -1)
                for path, row in traverse_util.flatten_dict(
                    jax.jacrev(partial(two_layers, mean_of=mean))(params, jnp.asarray(images))
                ).items()
            }
            for statistics, mean in means.items()
        }
    return jax.tree.map(np.float32, params), images.astype(np.float32), rows


@pytest.mark.parametrize("statistics", ["train", "frozen"])
def test_every_option_equals_brute_force(small, statistics):
    params, images, rows = small
    apply = two_layers if statistics == "train" else partial(two_layers, mean_of=frozen_mean)
    for logits, parameters in itertools.product(empirical_ntk.LOGITS, empirical_ntk.PARAMETERS):
        jacobian = empirical_ntk.jacobian(
            apply, params, images, statistics=statistics, logits=logits, parameters=parameters, channels=1
        )
        assert jacobian.shape[:2] == (4, 1 if logits == "sum" else CLASSES)
        assert_equal(
            empirical_ntk.kernel_of(jacobian, logits), expected_kernel(rows[statistics], logits, parameters)
        )


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
def test_neural_tangents_computes_the_same(small, implementation, statistics, logits, parameters):
    params, images, rows = small
    apply = two_layers if statistics == "train" else partial(two_layers, mean_of=frozen_mean)
    kernel = jax.jit(
        lambda params, images: empirical_ntk.by_neural_tangents(
            apply, params, images, implementation=implementation, statistics=statistics, logits=logits,
            parameters=parameters,
        )
    )(params, images)  # fmt: skip
    assert_equal(np.asarray(kernel), expected_kernel(rows[statistics], logits, parameters))


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
    keys = jax.random.split(jax.random.key(case.channels), 3)
    images = jax.random.normal(keys[0], (case.images, *case.image))
    gates = {
        "soft": jax.nn.softmax(jax.random.normal(keys[1], (1, 6, 5))),
        "some zero": jax.random.normal(keys[1], (1, 6, 5)) * jax.random.bernoulli(keys[2], 0.6, (1, 6, 5)),
        "one-hot": SPACE.gates(np.array([3, 2, 1, 3, 4, 3], np.int32)),
        "equal": jnp.full((1, 6, 5), 0.25).at[..., 0].set(0.0),
    }[case.gates]
    shapes = jax.eval_shape(case.network(Build()).init, keys[2], images[:1], gates)["params"]
    draws = np.random.default_rng(case.channels)

    def draw_leaf(path, leaf):
        # Convolutions and the classifier by what goes into each output; scales around one.
        inputs = (
            np.prod(leaf.shape[:-1]) if path[-1].key not in ("scale", "offset", "classifier_bias") else 25
        )
        return jnp.asarray(draws.normal(path[-1].key == "scale", inputs**-0.5, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw_leaf, shapes), images, gates


CASES = {
    "train, one channel": ("train", Case(1, (8, 8, 1), 4, "soft")),
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
    with float64():
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


@cache
def exact(name: str) -> dict[tuple[str, ...], np.ndarray]:
    statistics, case = CASES[name]
    return brute_force(case, statistics)


def kernel(case: Case, statistics: str, logits: str, parameters: str, implementation: str) -> np.ndarray:
    params, images, gates = draw(case)

    @jax.jit
    def evaluate(params, images, gates):
        settings = NtkConfig(
            normalisation=statistics, logits=logits, parameters=parameters, implementation=implementation
        )
        return ntk.kernel(params, images, case.network, gates, settings)

    return np.asarray(evaluate(params, images, gates))


@pytest.mark.parametrize("name", CASES)
def test_every_shape_equals_brute_force(name):
    statistics, case = CASES[name]
    assert_equal(kernel(case, statistics, "full", "all", "jnas"), expected_kernel(exact(name), "full", "all"))


# What TE-NAS computes, and neural-tangents where it takes the network's own program apart.
# On JAX 0.7 a slice is left, for which neural-tangents takes its general rule and says so.
@pytest.mark.filterwarnings("default:No Jacobian rule found for slice:UserWarning")
@pytest.mark.parametrize(
    ("implementation", "logits", "parameters"),
    [("jnas", "sum", "weights"), ("structured_derivatives", "full", "all")],
)
def test_summed_logits_and_structured_derivatives(implementation, logits, parameters):
    name = "train, one channel"
    statistics, case = CASES[name]
    computed = kernel(case, statistics, logits, parameters, implementation)
    assert_equal(computed, expected_kernel(exact(name), logits, parameters))


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
