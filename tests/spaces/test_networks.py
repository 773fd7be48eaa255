"""A space of networks, one for each architecture: strategies, proxies, training, a page, and lines on what is wrong."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_digits import write

import jnas
from jnas import data
from jnas.errors import InputError
from jnas.estimators.proxies import proxies
from jnas.estimators.settings import NetworkConfig, NtkConfig, Proxies, RegionsConfig, Train
from jnas.nets import own, trainable
from jnas.proxies import PROXIES
from jnas.proxies.subjects import SUBJECTS
from jnas.report.report import write_report
from jnas.spaces import SPACES, of_networks
from jnas.types import Candidates


class Chain(nn.Module):
    width: int
    depth: int

    @nn.compact
    def __call__(self, x, train):
        for _ in range(self.depth):
            x = nn.relu(
                nn.BatchNorm(use_running_average=not train)(nn.Conv(self.width, (3, 3), use_bias=False)(x))
            )
        return nn.Dense(10)(x.mean((1, 2)))


class Wrong(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(3, -1))


SPACE = of_networks("chain", {"width": (4, 8), "depth": (1, 2)}, lambda architecture: Chain(**architecture))
SETTINGS = Proxies(
    proxies="naswot,zico,ntk,regions,params,flops,convs",
    network=NetworkConfig(batch=16),
    ntk=NtkConfig(batch=8, repeats=2),
    regions=RegionsConfig(inputs=24),
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return data.load(write(tmp_path_factory.mktemp("digits") / "small.npz", 64, 16))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(SPACES, "chain", SPACE)


def test_text_and_sizes():
    assert SPACE.size == 4 and SPACE.decisions == (2, 2)
    assert SPACE.to_string([1, 0]) == "width=8|depth=1" and SPACE.from_string("width=4|depth=2").tolist() == [
        0,
        1,
    ]
    counted = own.sizes(SPACE, SPACE.choices(np.array([[0, 1], [1, 0]])), (8, 8, 1), 10)
    by_hand = [9 * 4 + 8 + 9 * 16 + 8 + 50, 9 * 8 + 16 + 90]
    assert counted.params.tolist() == by_hand and counted.convs.tolist() == [2, 1]
    assert counted.flops.tolist() == [64 * 9 * 4 + 64 * 9 * 16 + 40, 64 * 9 * 8 + 80]


def test_proxies_are_those_of_the_function(digits):
    names = SETTINGS.proxies.split(",")
    estimator = proxies(SPACE, names, digits, SETTINGS, apart=True)
    assert estimator.takes == ("architectures",)
    rows = np.array([[0, 1], [1, 0]])
    key = jax.random.key(0)
    both = estimator.evaluate(key, Candidates(architectures=rows))
    alone = estimator.evaluate(key, Candidates(architectures=rows[1:]))
    assert (both.value[1] == alone.value[0]).all() and np.isfinite(both.value).all()
    # The same number by `jnas.measure`, with the weights and images that the key draws.
    subject = SUBJECTS[PROXIES["naswot"].subject]
    weights, images = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, subject.stream), 0))
    sample = subject.draw(images, digits, SETTINGS, [PROXIES["naswot"], PROXIES["zico"]])
    network = own.build(SPACE, SPACE.choices(rows[0]), (8, 8, 1), 10)
    x = sample.arrays[0][0]
    params, rest = network.init(jax.random.split(weights)[0], x[:1])
    measured = jnas.measure(lambda p, x: network.train(p, rest, x), params, x, proxies="naswot")
    assert both.value[0, 0] == pytest.approx(measured["naswot"], rel=1e-5)


def test_training_at_a_fidelity(digits):
    estimator = Train(epochs=2, batch=16).make(SPACE, digits)
    rows = np.array([[0, 0], [0, 0], [1, 1]])
    values = estimator.evaluate(
        jax.random.key(0), Candidates(architectures=rows, fidelity=np.array([0.5, 0.5, 1], np.float32))
    )
    assert values.value.shape == (3, 1) and values.value[0] == values.value[1]
    assert (values.value >= 0).all() and (values.value <= 100).all()


def test_the_network_that_is_trained_moves_its_statistics(registered):
    network = trainable.of_architecture("chain", "width=4|depth=1", (8, 8, 1), 10, 1, 1)
    params, rest = network.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    logits, extra, moved = network.train(params, rest, images, 0.0, None)
    assert logits.shape == (4, 10) and extra is None
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(rest), jax.tree.leaves(moved), strict=True))
    assert not jnp.allclose(network.evaluate(params, moved, images), logits)


def test_a_search_with_its_page(registered, tmp_path):
    settings = {"training": {"epochs": 1}}
    result = jnas.search(
        "chain", "random", {"name": "proxies", "proxies": "naswot", "network": {"batch": 16}},
        budget=3, out=tmp_path, settings=settings,
    )  # fmt: skip
    assert result.architecture.startswith("width=") and 1 <= len(result.frame()) <= 3
    assert result.architecture in write_report(tmp_path).read_text("utf-8")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda: of_networks("a", {"width": (4,)}, Chain), "two or more"),
        (lambda: of_networks("a", {"width": ("a|b", "c")}, Chain), "without"),
        (lambda: of_networks("a", {"width": (4, 8)}, lambda a: 3), "is a int: return a Linen module"),
        (lambda: of_networks("a", {"width": (4, 8)}, lambda a: nn.Dense(3)), r"gives \[2, 8, 8, 3\]"),
        (lambda: of_networks("a", {"width": (4, 8)}, lambda a: Wrong()), "fails on images"),
    ],
)
def test_what_is_no_space_of_networks(space, message):
    with pytest.raises(InputError, match=message):
        own.build(space(), [0], (8, 8, 1), 10)


def test_there_is_no_supernet(registered):
    with pytest.raises(InputError, match="asks for gates"):
        jnas.search("chain", "pruning", "proxies:ntk,regions", budget=1)
