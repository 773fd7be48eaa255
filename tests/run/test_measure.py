"""`jnas.measure` on a plain function, against its formulas in float64, and its lines on what cannot be scored."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jnas
from jnas.errors import InputError
from jnas.programs.function import trace
from jnas.proxies import PROXIES
from jnas.proxies.of_function import measurements

COUNT, CLASSES, WIDTHS = 8, 3, (12, 10, 9)
IMAGES = np.random.default_rng(0).standard_normal((COUNT, 2, 2, 3)).astype(np.float32)
LABELS = np.arange(COUNT) % CLASSES


def draw(key):
    keys = jax.random.split(key, 3)
    sizes = [*pairwise(WIDTHS), (WIDTHS[-1], CLASSES)]
    weights = [jax.random.normal(k, size) / size[0] ** 0.5 for k, size in zip(keys, sizes, strict=True)]
    return [{"w": weight, "b": jnp.full(weight.shape[1], 0.1)} for weight in weights]


def apply(params, images):
    x = images.reshape(len(images), -1)
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


PARAMS = draw(jax.random.key(3))


class Reference:
    """The network by hand in float64: forwards, and backwards from a cotangent of the logits of each image."""

    def __init__(self, images=IMAGES, params=PARAMS):
        self.weights = [np.asarray(layer["w"], np.float64) for layer in params]
        self.biases = [np.asarray(layer["b"], np.float64) for layer in params]
        self.inputs, x = [], np.asarray(images, np.float64).reshape(len(images), -1)
        for place, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            self.inputs.append(x)
            x = x @ w + b
            if place < 2:
                x = np.maximum(x, 0)
        self.logits = x

    def rows(self, cotangents):
        """By layer the gradient of each image's weights [N, in, out]."""
        rows, g = [], cotangents
        for place in (2, 1, 0):
            rows.append(np.einsum("ni,no->nio", self.inputs[place], g))
            g = g @ self.weights[place].T * (self.inputs[place] > 0)
        return rows[::-1]


def gradients():
    """Of the mean cross-entropy, by layer."""
    of = Reference()
    shares = np.exp(of.logits - of.logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return [row.sum(0) for row in of.rows((shares - np.eye(CLASSES)[LABELS]) / COUNT)]


def ntk():
    of = Reference()
    flat = np.concatenate([row.reshape(COUNT, -1) for row in of.rows(np.ones((COUNT, CLASSES)))], 1)
    eigenvalues = np.linalg.eigvalsh(flat @ flat.T)
    return eigenvalues[-1] / eigenvalues[0]


def snip():
    return sum(np.abs(w * g).sum() for w, g in zip(Reference().weights, gradients(), strict=True))


def grad_norm():
    return sum(np.linalg.norm(g) for g in gradients())


def synflow():
    absolute = [jax.tree.map(np.abs, layer) for layer in PARAMS]
    of = Reference(np.ones((1, 2, 2, 3)), absolute)
    rows = of.rows(np.ones((1, CLASSES)))
    return np.log(sum((w * row[0]).sum() for w, row in zip(of.weights, rows, strict=True)))


def naswot():
    signs = np.concatenate([x > 0 for x in Reference().inputs[1:]], 1)
    kernel = np.array([[(a == b).sum() for a in signs] for b in signs], np.float64)
    return np.linalg.slogdet(kernel)[1]


FORMULAS = {function.__name__: function for function in (ntk, snip, grad_norm, synflow, naswot)}


@pytest.fixture(scope="module")
def measured():
    names = [*FORMULAS, "regions", "az_expressivity", "zen"]
    return jnas.measure(apply, PARAMS, IMAGES, LABELS, names)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_plain_function(measured, name):
    assert measured[name] == pytest.approx(FORMULAS[name](), rel=1e-4)
    assert measured.statuses[name] == "ok"


def test_what_else_is_said_of_a_plain_function(measured):
    sizes = [*pairwise(WIDTHS), (WIDTHS[-1], CLASSES)]
    assert measured.flops == sum(a * b for a, b in sizes) and measured.activations == sum(b for _, b in sizes)
    assert measured.params == sum(a * b + b for a, b in sizes)
    signs = np.concatenate([x > 0 for x in Reference().inputs[1:]], 1)
    assert measured["regions"] == len(np.unique(signs, axis=0))
    assert "checkpoint_name" in measured.reasons["az_expressivity"]
    with pytest.raises(KeyError, match="names 0 blocks"):
        measured["az_expressivity"]
    lines = str(measured).splitlines()
    assert lines[0].split() == ["ntk", f"{measured['ntk']:.6g}", "ok"] and "checkpoint_name" in str(measured)
    assert measured._repr_html_().startswith("<pre>")


def test_repeats_draw_parameters():
    several = jnas.measure(apply, draw, IMAGES, proxies="naswot", repeats=3, seed=1)
    alone = [
        jnas.measure(apply, draw(jax.random.fold_in(jax.random.key(1), n)), IMAGES, proxies="naswot")[
            "naswot"
        ]
        for n in range(3)
    ]
    np.testing.assert_allclose(several.values["naswot"], alone, rtol=1e-6)
    assert several["naswot"] == pytest.approx(np.mean(alone))


def test_repeats_compile_once():
    """Traces are of the reading, the programs of proxies and kernel, and the counting: none of a repeat."""
    traces = [0]

    def counted(params, images):
        traces[0] += 1
        return apply(params, images)

    numbers = []
    for repeats in (1, 4):
        traces[0] = 0
        several = jnas.measure(counted, draw, IMAGES, LABELS, ["ntk", "snip"], repeats=repeats)
        numbers.append(traces[0])
    assert numbers[0] == numbers[1] and several.values["ntk"].shape == (4,)
    assert len(set(several.values["ntk"])) == 4


def test_draws_side_by_side_are_draws_one_by_one():
    function = trace(apply, PARAMS, IMAGES)
    proxies = [
        PROXIES[name] for name in ("snip", "grad_norm", "synflow", "naswot", "regions", "fisher", "zen")
    ]
    images, labels = jnp.asarray(IMAGES), jnp.asarray(LABELS)
    measure_all, reasons = measurements(apply, function, PARAMS, proxies, images, labels)
    assert not reasons
    keys = jax.random.split(jax.random.key(5), 3)
    draws = jax.vmap(draw)(keys)
    together = jax.jit(jax.vmap(measure_all, (0, 0, None, None)))(draws, keys, images, labels)
    for place in range(3):
        own = jax.tree.map(lambda leaf, place=place: leaf[place], draws)
        alone = jax.jit(measure_all)(own, keys[place], images, labels)
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][place], value, rtol=1e-4)


def test_lines_on_networks_that_lack_something():
    linear = jnas.measure(
        lambda p, x: x.reshape(len(x), -1) @ p["w"] * jnp.nan,
        {"w": jnp.ones((12, 3)), "idle": jnp.ones(2)},
        IMAGES,
        proxies=["naswot", "snip", "synflow"],
    )
    assert "no ReLU" in linear.reasons["naswot"] and linear.reasons["snip"] == "needs labels"
    assert linear.statuses["synflow"] == "not_finite" and np.isnan(linear["synflow"])
    assert linear.notes == ("parameters that no logit depends on: idle", "the logits are not finite")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PARAMS, IMAGES[:1]), "two or more"),
        ((PARAMS, (255 * IMAGES).astype(np.uint8)), "standardised"),
        ((PARAMS, np.where(IMAGES > 2, np.nan, IMAGES)), "not finite"),
        ((PARAMS, IMAGES, LABELS[:3]), "an integer for each of 8 images"),
        ((PARAMS, IMAGES, LABELS / 2), "an integer for each"),
        ((PARAMS, IMAGES, LABELS, ["nasswot"]), "naswot"),
        (({"w": PARAMS, "step": jnp.ones(1, jnp.int32)}, IMAGES), "close over the rest"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        jnas.measure(apply, *arguments)
