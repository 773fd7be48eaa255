"""Every strategy of architectures on two spaces whose decisions matter only at some choices of others."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from installed import NAMES

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.settings import Proxies
from jnas.run.search import explore
from jnas.spaces import of_networks
from jnas.strategies import STRATEGIES
from jnas.types import Candidates, Estimator, Values


class Stack(nn.Module):
    depth: int
    width: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(10)(x.mean((1, 2)))


SMALL = of_networks(
    "small",
    {"depth": (1, 2, 3), "width": (4, 8), "second": ("skip", "double"), "third": (1, 2), "factor": (2, 4)},
    lambda architecture: Stack(architecture["depth"], architecture["width"]),
    {"second": {"depth": (2, 3)}, "third": {"depth": (3,)}, "factor": {"second": ("double",)}},
)
GOALS = {
    "small": "depth=3|width=8|second=double|third=1|factor=4",
    "chain": "layer_1=convolution|filters_1=32|kernel_1=3|layer_2=pool|pool_2=2|layer_3=end",
}
# Smaller than by default, where they take long.
SETTINGS = {
    "bananas": {"layers": 1, "networks": 2, "candidates": 20},
    "forest": {"candidates": 20, "trees": 3},
    "gaussian_process": {"candidates": 20},
    "lemonade": {"initial": 4, "children": 6, "batch": 4},
    "policy_gradient": {"units": 4, "batch": 4},
    # Sizes are counted without a compilation.
    "preselect": {"proxy": Proxies(proxies="params")},
    "warm_up": {"proxy": Proxies(proxies="params"), "candidates": 20, "best": 5},
}
BUDGET = 24


def of_user(space) -> Estimator:
    """The share of the goal's choices that an architecture has: a function of its text alone."""
    goal = set(GOALS[space.name].split("|"))

    def evaluate(key, candidates: Candidates) -> Values:
        texts = [set(space.to_string(row).split("|")) for row in np.asarray(candidates.architectures)]
        value = np.array([[len(text & goal) / len(text | goal)] for text in texts])
        return Values(value, np.zeros(value.shape, np.int8), np.zeros(len(value)))

    return Estimator(("goal",), evaluate, ("architectures", "trainings"), batch=8)


@pytest.mark.parametrize("name", [name for name in NAMES if STRATEGIES[name].asks != "gates"])
@pytest.mark.parametrize("space", [SMALL, spaces.get("chain")], ids=lambda space: space.name)
def test_it_finds_good_architectures(name, space):
    estimator, key = of_user(space), jax.random.key(1)
    try:
        strategy = STRATEGIES[name](**SETTINGS.get(name, {})).make(space, estimator.objectives, BUDGET)
    except InputError as error:
        # It lists the space, or needs cells.
        assert space.name == "chain" or name == "gaussian_process"
        assert "\n" not in str(error)
        return
    outcome = explore(space, strategy, estimator, key, budget=BUDGET)
    asked = np.asarray(outcome.architectures)
    assert (asked < np.array(space.decisions)).all() and (asked >= 0).all()
    # The best that was told, in whatever decisions do not matter.
    told = estimator.evaluate(key, Candidates(architectures=asked)).value[:, 0]
    assert estimator.evaluate(key, Candidates(architectures=outcome.best[None])).value[0, 0] == told.max()
    assert space.to_string(outcome.best) in {space.to_string(row) for row in asked}
    drawn = estimator.evaluate(key, Candidates(architectures=np.asarray(space.sample(key, 500)))).value
    assert told.max() > np.median(drawn)
