"""Places that scores are made of, in functions written in every way that users write them. Nothing is compiled."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jnas.errors import InputError
from jnas.programs.function import trace
from jnas.programs.tapped import Taps

IMAGES = jnp.ones((4, 6))
WEIGHT = jnp.ones((6, 6))


def head(x):
    return x @ jnp.ones((6, 3))


UNITS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum of an array of zeros": lambda x: jnp.maximum(jnp.zeros_like(x), x),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "where the other way round": lambda x: jnp.where(x < 0, 0, x),
    "where zero stands first": lambda x: jnp.where(jnp.less_equal(0, x), x, 0.1 * x),
    "largest of two slopes": lambda x: jnp.maximum(x, 0.1 * x),
    "relu6": jax.nn.relu6,
    "leaky": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "gelu": jax.nn.gelu,
    "exact gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
    "hard swish": jax.nn.hard_swish,
    "clip": lambda x: jnp.clip(x, 0, 6),
    "under jit": jax.jit(jax.nn.relu),
    "under checkpoint": jax.checkpoint(lambda x: jax.nn.gelu(x @ WEIGHT)),
    "half precision": lambda x: jax.nn.relu(x.astype(jnp.bfloat16)).astype(jnp.float32),
}
NO_UNITS = {
    "identity": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
    "square": lambda x: x * x,
    "gated by other values": lambda x: x * jax.nn.sigmoid(x @ WEIGHT),
    "layer norm": lambda x: (
        (x - x.mean(1, keepdims=True)) * lax.rsqrt(jnp.maximum(x.var(1, keepdims=True), 0) + 1e-5)
    ),
}


@pytest.mark.parametrize("name", UNITS)
def test_one_unit(name):
    function = trace(lambda p, x: head(UNITS[name](x * p)), jnp.ones(6), IMAGES)
    assert list(function.level.units.values()) == [1]


def test_a_value_that_two_units_read_counts_twice():
    function = trace(lambda p, x: head(jax.nn.relu(x * p) + jax.nn.relu(x * p)), jnp.ones(6), IMAGES)
    assert list(function.level.units.values()) == [1, 1]

    def shared(params, x):
        y = x * params
        return head(jax.nn.relu(y) + jax.nn.gelu(y))

    function = trace(shared, jnp.ones(6), IMAGES)
    assert list(function.level.units.values()) == [2]


@pytest.mark.parametrize("name", NO_UNITS)
def test_no_unit(name):
    function = trace(lambda p, x: head(NO_UNITS[name](x * p)), jnp.ones(6), IMAGES)
    assert not function.level.units


def batch_norm(form):
    def apply(params, x):
        scale, offset = params
        mean, variance = x.mean(0), x.var(0)
        if form == "scale in the root":
            y = (x - mean) * (scale * lax.rsqrt(variance + 1e-5)) + offset
        elif form == "divided":
            y = (x - mean) / jnp.sqrt(variance + 1e-5) * scale + offset
        elif form == "multiplied out":
            slope = scale * lax.rsqrt(variance + 1e-5)
            y = x * slope + (offset - mean * slope)
        elif form == "power":
            y = (x - mean) * (variance + 1e-5) ** -0.5 * scale + offset
        elif form == "fast variance":
            variance = jnp.maximum((x**2).mean(0) - mean**2, 0)
            y = scale * ((x - mean) * lax.rsqrt(variance + 1e-5)) + offset
        elif form == "reciprocal":
            y = (x - mean) * (1 / jnp.sqrt(variance + 1e-5)) * scale + offset
        return head(y)

    return apply


FORMS = ("scale in the root", "divided", "multiplied out", "power", "fast variance", "reciprocal")


@pytest.mark.parametrize("form", FORMS)
def test_a_normalisation_by_the_batch_can_be_left_out(form):
    params = (jnp.full(6, 2.0), jnp.full(6, 3.0))
    function = trace(batch_norm(form), params, IMAGES)
    assert function.couples and function.normalises and len(function.level.normal.variances) == 1
    assert function.level.normal.scales == {0} and function.level.normal.offsets == {1}
    assert [set(roles) for roles in function.roles] == [{"scale"}, {"offset"}] and not function.level.units
    x = jax.random.normal(jax.random.key(0), IMAGES.shape)
    plain = function.run(function.without_normal(params), x, Taps(plain=True))
    assert jnp.allclose(plain.logits, head(x), atol=1e-5)
    (deviation,) = function.run(params, x).places.deviations.values()
    assert jnp.allclose(deviation, jnp.log(jnp.sqrt(x.var(0).mean())), atol=1e-5)


def test_other_normalisations_are_not_by_the_batch():
    layer = nn.LayerNorm()
    params = layer.init(jax.random.key(0), IMAGES)
    function = trace(lambda p, x: head(layer.apply(p, x)), params, IMAGES)
    assert function.normalises and not function.couples and not function.level.normal.variances
    rms = nn.RMSNorm()
    function = trace(lambda p, x: head(rms.apply(p, x)), rms.init(jax.random.key(0), IMAGES), IMAGES)
    assert function.normalises and not function.couples and function.level.normal.scales == {0}


def test_roles_of_parameters():
    def apply(params, x):
        x = jnp.concatenate([x, jnp.broadcast_to(params["token"], x.shape)], 1)
        x = (
            jnp.einsum("nf,fo->no", x * params["scale"], params["kernel"].astype(jnp.float32))
            + params["bias"]
        )
        return x + 0 * params["idle"].sum()

    params = {
        "token": jnp.ones(6), "scale": jnp.ones(12), "kernel": jnp.ones((12, 3), jnp.bfloat16), "bias": jnp.ones(3),
        "idle": jnp.ones(2), "unused": jnp.ones(2),
    }  # fmt: skip
    function = trace(apply, params, IMAGES)
    roles = dict(zip(function.names, map(set, function.roles), strict=True))
    assert roles == {
        "bias": {"offset"}, "idle": {"offset"}, "kernel": {"kernel"}, "scale": {"scale"}, "token": {"other"},
        "unused": set(),
    }  # fmt: skip
    assert dict(zip(function.names, function.matters, strict=True))["unused"] is False
    counted = dict(zip(function.names, function.counted("weights"), strict=True))
    assert not counted["bias"] and counted["kernel"] and counted["scale"] and counted["token"]


def test_features_and_their_values_before_pooling():
    def apply(params, x):
        return jax.nn.relu(x).mean((1, 2)).reshape(len(x), -1) @ params["w"] + params["b"]

    function = trace(apply, {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}, jnp.ones((4, 5, 5, 3)))
    assert function.classifier.features.aval.shape == (4, 3)
    assert function.classifier.last.aval.shape == (4, 5, 5, 3)
    # The classifier's own channels are the logits.
    assert not function.level.channels
    assert trace(lambda p, x: jnp.tanh(head(x * p)), jnp.ones(6), IMAGES).classifier.features is None


def deep(weights, x, how):
    def layer(x, weight):
        return jax.nn.relu(x @ weight), None

    if how == "scan":
        return lax.scan(layer, x, weights)[0]
    for weight in weights:
        x, _ = jax.checkpoint(layer)(x, weight) if how == "checkpoint" else layer(x, weight)
    return x


def test_a_scan_shows_what_its_steps_show():
    weights = jax.random.normal(jax.random.key(0), (3, 6, 6))
    x = jax.random.normal(jax.random.key(1), IMAGES.shape)
    functions = {
        how: trace(lambda p, x, how=how: head(deep(p, x, how)), weights, x)
        for how in ("scan", "loop", "checkpoint")
    }
    signs = {
        how: jnp.concatenate([signs for signs, _ in function.run(weights, x).places.units.values()], 1)
        for how, function in functions.items()
    }
    assert (signs["scan"] == signs["loop"]).all() and (signs["checkpoint"] == signs["loop"]).all()
    assert signs["scan"].shape == (4, 18)
    assert functions["scan"].weights(weights)["parameters"].shape == (3, 36)

    def loss(function, gates):
        return jnp.sum(function.run(weights, x, Taps(gates=gates)).logits ** 2)

    scanned, looped = (
        jax.grad(lambda gates, f=functions[how]: loss(f, gates))(functions[how].gates())
        for how in ("scan", "loop")
    )
    assert jnp.allclose(*scanned.values(), jnp.stack(list(looped.values())), rtol=1e-5)


def test_branches_that_are_not_taken_show_nothing():
    def apply(params, x):
        y = lax.cond(params["which"][0] > 0, lambda x: jax.nn.relu(x @ WEIGHT), lambda x: jax.nn.relu(x), x)
        return head(y)

    function = trace(apply, {"which": jnp.ones(1)}, IMAGES)
    units = function.run({"which": jnp.ones(1)}, IMAGES).places.units
    assert sorted(float(readers) for _, readers in units.values()) == [0, 1]


COUNTER = [0]


def counting(params, x):
    COUNTER[0] += 1
    return head(x * params) * COUNTER[0]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda p, x: x[x.sum(1) > 0] @ p, "depends on values"),
        (lambda p, x: head(x * p) if x.sum() > 0 else head(x), "depends on values"),
        (lambda p, x: (x * p).sum(), r"returns float32\[\] for 4 images: give logits"),
        (lambda p, x: head(x * p) > 0, r"returns bool\[4, 3\]"),
        (lambda p, x: {"a": head(x * p), "b": x}, "returns 2 arrays"),
        (lambda p, x: jnp.ones((4, 3)) * p[:3] if len(x) == 4 else head(x * p), "give a pure function"),
        (lambda p, x: jnp.ones((len(x), 3)) * p[:3], "logits do not depend on the images"),
        (counting, "two calls of apply make different programs"),
    ],
)
def test_what_is_no_function_of_images(apply, message):
    with pytest.raises(InputError, match=message):
        trace(apply, jnp.ones(6), IMAGES)
