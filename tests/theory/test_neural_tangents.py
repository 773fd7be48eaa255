"""neural-tangents under jnas: it imports alone, changes nothing in JAX, and its kernels are right."""

import subprocess
import sys
import textwrap
import tomllib
import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jnas.theory import neural_tangents_compat as compat  # isort: skip  (makes the next imports work)
import neural_tangents as nt
from neural_tangents import stax

IMPLEMENTATIONS = [nt.NtkImplementation(value) for value in (1, 2, 3)]


def run_alone(code: str) -> None:
    """Runs `code` in a fresh interpreter in which warnings are errors."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr


def test_importing_jnas_is_light():
    run_alone("""
        import sys
        import jnas
        heavy = {"jax", "flax", "neural_tangents", "tensorflow", "matplotlib", "sklearn", "numpy"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """)


def test_jax_is_unchanged_and_tensorflow_is_not_imported():
    run_alone("""
        import sys, types
        import jnas
        import jax
        import jax.example_libraries.stax, jax.experimental.ode
        import jax.extend.core, jax.interpreters.partial_eval

        def namespace(module):
            # Submodules become attributes of their packages by being imported.
            names = vars(module).items()
            return {name: id(value) for name, value in names if not isinstance(value, types.ModuleType)}

        def namespaces():
            modules = list(sys.modules.items())
            return {name: namespace(module) for name, module in modules if name.split(".")[0] == "jax"}

        before = namespaces()
        # What an import of neural_tangents that failed before jnas was there leaves behind.
        sys.modules["neural_tangents._src.utils.rules"] = types.ModuleType("neural_tangents._src.utils.rules")
        import neural_tangents as nt
        from neural_tangents import stax
        import neural_tangents.predict, neural_tangents.experimental, neural_tangents._src.stax.linear
        after = namespaces()

        changed = {name: after[name].items() ^ before[name].items() for name in before}
        assert not any(changed.values()), {name: change for name, change in changed.items() if change}
        assert not {"tensorflow", "tf2jax"} & set(sys.modules)
        # Without neural-tangents' own changes to JAX; 0.7 has a `jax.util` itself.
        assert not hasattr(jax, "tree_map")
        assert not hasattr(jax.core, "Jaxpr") and not hasattr(jax.random, "KeyArray")
        assert not hasattr(jax.interpreters.ad, "source_info_util")
    """)


def test_a_module_imported_before_jnas_is_kept():
    run_alone("""
        import sys, types
        already = sys.modules["neural_tangents"] = types.ModuleType("neural_tangents")
        import jnas
        import neural_tangents
        assert neural_tangents is already
    """)


def test_installing_twice_adds_one_finder():
    compat.install()
    assert sum(isinstance(finder, compat.AdaptingFinder) for finder in sys.meta_path) == 1


def test_adapted_bytecode_is_not_cached(tmp_path):
    source = tmp_path / "module.py"
    source.write_text("value = 1\n")
    module = types.ModuleType("module")
    compat.AdaptedLoader("module", str(source), (("= 1", "= 2"),)).exec_module(module)
    assert module.value == 2
    assert list(tmp_path.iterdir()) == [source]


def test_tracebacks_keep_the_lines_of_the_file_on_disk(tmp_path):
    source = tmp_path / "module.py"
    source.write_text("first = 1\nsecond = 2\nlast = None.missing\n")
    loader = compat.AdaptedLoader("module", str(source), (("first = 1\nsecond = 2\n", "first = 3\n"),))
    with pytest.raises(AttributeError) as caught:
        loader.exec_module(types.ModuleType("module"))
    assert caught.traceback[-1].lineno + 1 == 3


@pytest.mark.parametrize("supported", [((0, 1), (0, 5)), ((7, 0), (8, 0))])
def test_unsupported_jax_names_the_supported_ones(monkeypatch, supported):
    monkeypatch.setattr(compat, "SUPPORTED_JAX", supported)
    expected = ">={}.{},<{}.{}".format(*supported[0], *supported[1])
    with pytest.raises(ImportError, match=expected) as caught:
        compat.AdaptedLoader(nt.__name__, nt.__file__, ()).exec_module(types.ModuleType(nt.__name__))
    assert jax.__version__ in str(caught.value)


def test_supported_jax_is_what_the_package_asks_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    low, high = (".".join(map(str, version)) for version in compat.SUPPORTED_JAX)
    assert f"jax>={low},<{high}" in project["dependencies"]
    assert f"neural-tangents=={compat.SUPPORTED_NEURAL_TANGENTS}" in project["dependencies"]


def test_another_release_of_neural_tangents_is_named(tmp_path):
    source = tmp_path / "module.py"
    source.write_text("something else\n")
    with pytest.raises(ImportError, match=r"neural-tangents==0\.6\.5"):
        compat.AdaptedLoader("module", str(source), (("absent", ""),)).get_code("module")


def jacobian(f, params, x):
    """The Jacobian by the parameters, of shape f(params, x).shape + (P,), in float64 for the sums to come."""
    leaves = jax.tree.leaves(jax.jit(jax.jacrev(lambda p: f(p, x)))(params))
    shape = f(params, x).shape
    return np.concatenate([np.asarray(leaf, np.float64).reshape(*shape, -1) for leaf in leaves], axis=-1)


def contracted(j1, j2, trace_axes, diagonal_axes):
    """The kernel by its definition: sum over parameters, mean over traced axes."""
    rank = j1.ndim - 1
    trace_axes, diagonal_axes = ([axis % rank for axis in axes] for axes in (trace_axes, diagonal_axes))
    first, second = list(range(rank)), list(range(rank, 2 * rank))
    out = []
    for axis in range(rank):
        if axis in trace_axes or axis in diagonal_axes:
            second[axis] = first[axis]
        if axis not in trace_axes:
            out += [first[axis]] if axis in diagonal_axes else [first[axis], second[axis]]
    kernel = np.einsum(j1, [*first, 2 * rank], j2, [*second, 2 * rank], out)
    return kernel / np.prod([j1.shape[axis] for axis in trace_axes])


IMAGES1, IMAGES2 = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def convolutional():
    init, f, _ = stax.serial(
        stax.Conv(3, (3, 3)), stax.Relu(), stax.AvgPool((2, 2)), stax.Flatten(), stax.Dense(3)
    )
    _, params = init(jax.random.key(0), IMAGES1.shape)
    return f, params, jacobian(f, params, IMAGES1), jacobian(f, params, IMAGES2)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("trace_axes", "diagonal_axes"),
    [((), ()), ((-1,), ()), ((), (-1,)), ((-1,), (0,))],
)
def test_kernel_of_a_convolutional_network(convolutional, implementation, trace_axes, diagonal_axes):
    f, params, *jacobians = convolutional
    vmap_axes = None if 0 in (*trace_axes, *diagonal_axes) else 0
    kernel_fn = nt.empirical_ntk_fn(f, trace_axes, diagonal_axes, vmap_axes, implementation)
    kernel = jax.jit(kernel_fn)(IMAGES1, IMAGES2, params)
    expected = contracted(*jacobians, trace_axes, diagonal_axes)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


class Normalised(nn.Module):
    """A convolution with BatchNorm on the statistics of the batch, so that images are coupled."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=False)(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        return nn.Dense(2)(x.mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def normalised():
    network = Normalised()

    def f(params, x):
        return network.apply({"params": params}, x, mutable=["batch_stats"])[0]

    networks = [network.init(jax.random.key(seed), IMAGES1)["params"] for seed in range(2)]
    jacobians = [jacobian(f, params, IMAGES1) for params in networks]
    return f, jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks), jacobians


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_kernel_of_batch_normalised_flax_networks_under_vmap_and_jit(normalised, implementation):
    f, params, jacobians = normalised
    kernel_fn = nt.empirical_ntk_fn(f, trace_axes=(), implementation=implementation)
    kernels = jax.jit(jax.vmap(lambda p: kernel_fn(IMAGES1, None, p)))(params)
    assert kernels.shape == (2, 3, 3, 2, 2)
    for kernel, of_seed in zip(kernels, jacobians, strict=True):
        expected = contracted(of_seed, of_seed, (), ())
        np.testing.assert_allclose(kernel, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@jax.custom_vjp
def cubed(x):
    return x**3


cubed.defvjp(lambda x: (cubed(x), x), lambda x, cotangent: (cotangent * 3 * x**2,))


@pytest.mark.parametrize(
    "activation",
    [
        jax.checkpoint(lambda x: jnp.tanh(jax.nn.relu(x))),
        lambda x: jnp.concatenate(jnp.split(jnp.sin(x), 2, axis=-1)[::-1], axis=-1),
        cubed,
        jax.jit(jax.nn.gelu),
        lambda x: jax.lax.scan(lambda carry, _: (jnp.tanh(carry), None), x, length=2)[0],
        lambda x: jnp.where(x > 0, jnp.logaddexp(x, 0.0), jax.lax.stop_gradient(x)),
        lambda x: x[:, jnp.array([2, 0, 0, 1])] ** 2,
        lambda x: jax.lax.dynamic_update_slice(x**2, jax.lax.dynamic_slice(x, (0, 1), (3, 2)), (0, 0)),
    ],
    ids=["checkpoint", "split", "custom_vjp", "jit", "scan", "stop_gradient", "gather", "dynamic_slice"],
)
def test_structured_derivatives_takes_calls_apart(activation):
    def f(params, x):
        constant = x.sum(axis=-1, keepdims=True)
        return {"output": activation(x @ params["first"]) @ params["last"], "constant": constant}

    keys = jax.random.split(jax.random.key(2), 3)
    params = {"first": jax.random.normal(keys[0], (3, 4)), "last": jax.random.normal(keys[1], (4, 2))}
    x = jax.random.normal(keys[2], (3, 3))
    kernels = [
        jax.jit(nt.empirical_ntk_fn(f, trace_axes=(), implementation=implementation))(x, None, params)
        for implementation in (IMPLEMENTATIONS[0], IMPLEMENTATIONS[2])
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *kernels)


def test_automatic_choice_of_implementation_and_kernel_vector_products(capsys):
    def f(params, x):
        return jnp.tanh(x @ params)

    params, x, vector = (
        np.random.default_rng(seed).normal(size=(3, 3)).astype(np.float32) for seed in range(3)
    )
    kernel = nt.empirical_ntk_fn(f, (), implementation=nt.NtkImplementation.AUTO)(x, None, params)
    assert capsys.readouterr().out.count("flops") == 3
    product = nt.empirical_ntk_vp_fn(f, x, None, params)(vector)
    np.testing.assert_allclose(product, jnp.einsum("nmij,mj->ni", kernel, vector), rtol=1e-4, atol=1e-4)


def test_gradient_descent_equals_the_matrix_exponential():
    generator = np.random.default_rng(2)
    factor = generator.normal(size=(5, 4, 8)).reshape(20, 8) / 3
    full = (factor @ factor.T + np.kron(np.eye(5), np.eye(4))).astype(np.float32)
    train, test = full[:16, :16], full[16:, :16]
    targets, start_train, start_test = (generator.normal(size=(n, 4)).astype(np.float32) for n in (4, 4, 1))

    def layout(kernel, images):
        return kernel.reshape(images, 4, 4, 4).transpose(0, 2, 1, 3)

    predict = nt.predict.gradient_descent_mse(layout(train, 4), targets, trace_axes=())
    at_train, at_test = predict(3.0, start_train, start_test, layout(test, 1))
    decay = np.eye(16) - scipy.linalg.expm(-3.0 * train.astype(np.float64) / 16)
    error = (targets - start_train).ravel()
    np.testing.assert_allclose(at_train, start_train + (decay @ error).reshape(4, 4), rtol=1e-3, atol=1e-4)
    expected = start_test + (test @ np.linalg.solve(train, decay @ error)).reshape(1, 4)
    np.testing.assert_allclose(at_test, expected, rtol=1e-3, atol=1e-3)


def test_maximal_learning_rate():
    kernel = np.diag(np.arange(1.0, 7.0)).astype(np.float32)
    assert nt.predict.max_learning_rate(kernel) == pytest.approx(2 * 6 / 6)


def test_infinite_kernel_of_one_relu_layer():
    _, _, kernel_fn = stax.serial(stax.Dense(8), stax.Relu(), stax.Dense(1))
    x = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], np.float32)
    kernel = kernel_fn(x, None, ("nngp", "ntk"))

    # Cho and Saul, 2009, https://papers.nips.cc/paper/3628: arc-cosine kernels of order 0 and 1.
    inner = x @ x.T / 2
    norms = np.sqrt(np.outer(np.diag(inner), np.diag(inner)))
    angle = np.arccos(np.clip(inner / norms, -1, 1))
    nngp = norms / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
    np.testing.assert_allclose(kernel.nngp, nngp, rtol=1e-3)
    np.testing.assert_allclose(kernel.ntk, nngp + inner * (np.pi - angle) / (2 * np.pi), rtol=1e-3, atol=1e-6)


def test_batching_and_monte_carlo_estimate_agree_with_the_kernel():
    init, f, kernel_fn = stax.serial(stax.Dense(256), stax.Relu(), stax.Dense(16))
    x = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
    exact = kernel_fn(x, None, "ntk")
    np.testing.assert_allclose(nt.batch(kernel_fn, batch_size=2)(x, None, "ntk"), exact, rtol=2e-4)
    sampled = nt.monte_carlo_kernel_fn(init, f, jax.random.key(4), n_samples=20)(x, None, "ntk")
    np.testing.assert_allclose(sampled, exact, rtol=0.2, atol=0.1 * np.abs(exact).max())


def test_linearize_and_taylor_expand():
    def f(params, x):
        return jnp.sum(x * params**2, axis=-1)

    start, params, x = jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0]), jnp.array([[1.0, -1.0]])
    linear = f(start, x) + jnp.sum(x * 2 * start * (params - start), axis=-1)
    np.testing.assert_allclose(nt.linearize(f, start)(params, x), linear)
    np.testing.assert_allclose(nt.taylor_expand(f, start, 2)(params, x), f(params, x))
