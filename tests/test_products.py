"""Any strategy with any estimator on any space: a product runs, or one line says why its parts do not fit.

`PYTHONPATH=.:tests python tests/test_products.py` prints the table.
"""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from installed import NAMES

from jnas import data, spaces
from jnas.errors import InputError
from jnas.estimators import ESTIMATORS
from jnas.estimators.inherited import inherited
from jnas.estimators.settings import NtkConfig, Proxies, RegionsConfig, Scores, Table, Train
from jnas.oneshot.supernets import SUPERNETS
from jnas.run.search import Outcome, explore, within
from jnas.spaces import Space
from jnas.strategies import STRATEGIES
from jnas.types import Candidates, Estimator

KEY = jax.random.key(0)
SPACES = ("nasbench201", "darts", "no_pool", "shake_shake")
# Scores of two cells, which a search is then restricted to.
SCORED = """architecture,naswot,naswot_status
|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|,3.5,ok
|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|,2.5,ok
"""
ESTIMATES = {
    "proxies": Proxies(proxies="regions", regions=RegionsConfig(inputs=20), ntk=NtkConfig(batch=4)),
    "table": Table(path="digits"),
    "train": Train(epochs=1, batch=64, channels=2, augment=False),
}
STRATEGY = {
    "draw": {"candidates": 2},
    "evolution": {"children": 2, "parents": 2},
    "random": {"batch": 2},
    "pruning": {"operations_per_round": 7},
    "exhaustive": {"batch": 2},
    "nsga2": {"batch": 2},
    "lemonade": {"children": 4, "batch": 2},
    "hill_climbing": {"initial": 2, "batch": 2},
    "policy_gradient": {"units": 4, "batch": 2},
    "editing": {"units": 4, "batch": 2},
    "lanas": {"candidates": 8, "height": 2},
    "gaussian_process": {"candidates": 8},
    "bananas": {"layers": 1, "networks": 2, "candidates": 8},
    "forest": {"candidates": 8},
}


SIZED = Proxies(proxies="params")
STRATEGY |= {"preselect": {"proxy": SIZED}, "warm_up": {"proxy": SIZED, "candidates": 8, "best": 2}}


@cache
def dataset() -> data.Dataset:
    digits = data.load("digits")
    return replace(
        digits, x_train=digits.x_train[:160], y_train=digits.y_train[:160], x_test=digits.x_test[:64],
        y_test=digits.y_test[:64],
    )  # fmt: skip


@cache
def space_named(name: str) -> Space:
    """A space of the registry, a part of one, or the masks of a supernet."""
    if name == "no_pool":
        whole = spaces.get("nasbench201")
        part = whole.graphs[0].without("none", "avg_pool_3x3")
        return spaces.Space("no_pool", (part,), node_names=whole.node_names, text=whole.text)
    return spaces.get(name) if name in spaces.SPACES else supernet(name).space


@cache
def supernet(name: str):
    height, width, channels = dataset().x_train.shape[1:]
    return SUPERNETS[name]((height, width, channels), dataset().classes, 1, 1)


@cache
def estimator(name: str, space: str, apart: bool) -> Estimator:
    if name == "inherited":
        if space not in SUPERNETS:
            raise InputError(f"no supernet has the space {space}: choose another")
        trained = supernet(space)
        images = dataset().x_test[:32], dataset().y_test[:32]
        return inherited(trained, trained.init(KEY), dataset(), *images, batch=2)
    if name == "scores":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "scores.csv")
            path.write_text(SCORED, "utf-8")
            return Scores(path=str(path)).make(space_named(space), dataset())
    return ESTIMATES[name].make(space_named(space), dataset(), apart=apart)


def search(strategy: str, estimate: str, space: str) -> Outcome:
    """The smallest search of a product. Raises `InputError` where its parts do not fit."""
    member = STRATEGIES[strategy](**STRATEGY.get(strategy, {}))
    made = estimator(estimate, space, member.asks == "gates")
    known = within(space_named(space), made)
    built = member.make(known, made.objectives, 3)
    return explore(known, built, made, KEY, budget=0 if built.total else 3)


def fits(strategy: str, estimate: str, space: str) -> bool:
    """What the registries and the data say of a product."""
    if estimate == "inherited":
        known = space in SUPERNETS
    elif estimate == "table":
        known = space == "nasbench201"
    elif estimate == "scores":
        # The texts of the file are those of both.
        known = space in ("nasbench201", "no_pool")
    else:
        known = space != "shake_shake"
    if strategy in ("lemonade", "preselect", "warm_up"):
        # It counts sizes of networks that are built alone.
        known &= space != "shake_shake"
    if strategy == "exhaustive":
        # It lists the space.
        known &= space in ("nasbench201", "no_pool")
    return known and STRATEGIES[strategy].asks in ESTIMATORS[estimate].takes


PRODUCTS = [(strategy, estimate, space) for strategy in NAMES for estimate in ESTIMATORS for space in SPACES]
FIT = [product for product in PRODUCTS if fits(*product)]
# Strategies of which one is tried, the next ones with other estimators: what compiles for each architecture is dear.
EVERY = {"train": 4, "inherited": 2, "proxies": 2}
# A strategy and an estimator once, the spaces in turn; a training of DARTS compiles for minutes.
PAIRS = {
    (strategy, estimate): [
        space
        for *pair, space in FIT
        if pair == [strategy, estimate] and (estimate, space) != ("train", "darts")
    ]
    for strategy, estimate, _ in FIT
}
SAMPLE = [
    (strategy, estimate, fitting[place % len(fitting)])
    for place, ((strategy, estimate), fitting) in enumerate(PAIRS.items())
    if (NAMES.index(strategy) + list(ESTIMATORS).index(estimate)) % EVERY.get(estimate, 1) == 0
    or STRATEGIES[strategy].asks == "gates"
]


@pytest.mark.parametrize(("strategy", "estimate", "space"), SAMPLE)
def test_a_product_runs(strategy, estimate, space):
    outcome = search(strategy, estimate, space)
    known = space_named(space)
    assert known.from_string(known.to_string(outcome.best)).tolist() == outcome.best.tolist()
    assert outcome.evaluations > 0
    assert len(outcome.architectures) == (0 if STRATEGIES[strategy].asks == "gates" else outcome.evaluations)


@pytest.mark.parametrize(
    ("strategy", "estimate", "space"), [product for product in PRODUCTS if product not in FIT]
)
def test_parts_that_do_not_fit_say_so_in_a_line(strategy, estimate, space):
    with pytest.raises(InputError) as error:
        search(strategy, estimate, space)
    assert "\n" not in str(error.value) and ":" in str(error.value)


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_an_estimate_depends_on_the_key_and_the_candidate_alone(estimate):
    """Whatever the batch and its order."""
    known = space_named("nasbench201")
    made = estimator(estimate, "nasbench201", False)
    rows = np.asarray(within(known, made).sample(KEY, 4))
    whole = np.asarray(made.evaluate(KEY, Candidates(rows)).value)
    for places in ([2], [3, 1]):
        part = np.asarray(made.evaluate(KEY, Candidates(rows[places])).value)
        np.testing.assert_array_equal(part, whole[places])


if __name__ == "__main__":
    print(f"{'strategy':<12}{'estimator':<12}" + "".join(f"{name:<14}" for name in SPACES))
    for strategy in NAMES:
        for estimate in ESTIMATORS:
            cells = []
            for space in SPACES:
                try:
                    cells.append(f"{search(strategy, estimate, space).evaluations} evaluated")
                except InputError:
                    cells.append("-")
            print(f"{strategy:<12}{estimate:<12}" + "".join(f"{cell:<14}" for cell in cells), flush=True)
