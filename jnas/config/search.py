"""Settings of a search: a space, a strategy and an estimator, each with its own settings."""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from jnas.config import read
from jnas.config.score import OF_SPACE
from jnas.estimators import ESTIMATORS
from jnas.estimators.settings import Proxies, Training
from jnas.oneshot import METHODS
from jnas.oneshot.settings import SupernetConfig
from jnas.settings import Data, Member, Seed, Settings
from jnas.strategies import STRATEGIES
from jnas.strategies.pruning import Pruning

if TYPE_CHECKING:
    StrategySettings: TypeAlias = Member
    EstimatorSettings: TypeAlias = Member
    OneShotSettings: TypeAlias = Member
else:
    StrategySettings, EstimatorSettings, OneShotSettings = (
        reduce(or_, family.values()) for family in (STRATEGIES, ESTIMATORS, METHODS)
    )

# TE-NAS averages three repeats of both scores.
TENAS = {"estimator": {"name": "proxies", "ntk": {"repeats": 3}, "regions": {"repeats": 3}}}
# Its authors' code for CIFAR-10, where it differs from the paper. It rounds relative changes; the paper does not say.
RELEASED = {
    "strategy": {"name": "pruning", "decimals": 3},
    "estimator": {
        "name": "proxies",
        "ntk": {"batch": 72, "initialisation": "pytorch_default", "fresh_weights": False},
        "regions": {"inputs": 3000},
    },
}
# The same code for the DARTS space. The paper prunes one operation an edge and round there too.
RELEASED_DARTS = {"strategy": {"operations_per_round": 3}, "estimator": {"ntk": {"batch": 14}}}


class Final(Settings, frozen=True, kw_only=True):
    """A last round, of the best candidates, by another estimator."""

    candidates: Annotated[int, Meta(ge=1, description="best candidates of the search")] = 64
    repeats: Annotated[int, Meta(ge=1, description="repeats, averaged, each by a seed of its own")] = 2
    estimator: Annotated[EstimatorSettings, Meta(description="their estimator (jnas list estimators)")] = (
        Proxies()
    )


class Compare(Settings, frozen=True, kw_only=True):
    """Cells that the found one is compared with."""

    random_cells: Annotated[
        int, Meta(ge=0, description="random cells, scored by ntk and regions and trained as the found one")
    ] = 5
    blind_candidates: Annotated[
        int, Meta(ge=0, description="candidates drawn blindly and evaluated with the supernet's weights")
    ] = 0


class Filter(Settings, frozen=True, kw_only=True):
    """A choice among drawn candidates before they are evaluated."""

    # Drawing is cheap, evaluating is not.
    proxies: Annotated[str, Meta(description="proxies that choose (jnas list proxies)")] = "naswot"
    factor: Annotated[int, Meta(ge=2, description="how many times more candidates are drawn")] = 4


class Tuning(Settings, frozen=True, kw_only=True):
    """A training of the weights that the found candidate inherits."""

    epochs: Annotated[int, Meta(ge=1, description="epochs")] = 5
    learning_rate: Annotated[float, Meta(gt=0, description="first learning rate of the cosine schedule")] = (
        0.01
    )


class SearchConfig(Settings, frozen=True, kw_only=True):
    """A search of one space."""

    space: Annotated[
        str, Meta(description="search space (jnas list spaces) or supernet (jnas list supernets)")
    ] = "nasbench201"
    strategy: Annotated[StrategySettings, Meta(description="how to explore it (jnas list strategies)")] = (
        Pruning()
    )
    estimator: Annotated[
        EstimatorSettings, Meta(description="value of a candidate (jnas list estimators)")
    ] = Proxies()
    budget: Annotated[int, Meta(ge=0, description="evaluations; 0: until the strategy ends by itself")] = 0
    protocol: Annotated[
        Literal["paper", "released"],
        Meta(
            description="TE-NAS as published (fresh Kaiming weights, 32 images) or as its authors' code runs"
        ),
    ] = "paper"
    seed: Seed = 0
    data: Data = "digits"
    oneshot: Annotated[
        OneShotSettings | None, Meta(description="method that trains a supernet first (jnas list oneshot)")
    ] = None
    supernet: Annotated[SupernetConfig | None, Meta(description="that supernet and its training")] = None
    filter: Annotated[Filter | None, Meta(description="choice among drawn candidates")] = None
    tuning: Annotated[
        Tuning | None, Meta(description="training of the found candidate's inherited weights")
    ] = None
    final: Annotated[Final | None, Meta(description="last round by another estimator")] = None
    compare: Annotated[Compare | None, Meta(description="other cells beside the found one")] = None
    training: Annotated[Training | None, Meta(description="training of the found cell, from scratch")] = None
    table: Annotated[
        str, Meta(description="CSV of architecture and test_acc, or table, where the found cell is looked up")
    ] = ""

    @staticmethod
    def implied(given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """A supernet's strategy and estimator; or sizes for the space, TE-NAS for pruning, and the protocol."""
        if given.get("oneshot"):
            return [{"strategy": {"name": "draw"}, "estimator": {"name": "inherited"}, "supernet": {}}]
        strategy, space = given.get("strategy"), str(given.get("space"))
        sizes = {"estimator": {"name": "proxies", **OF_SPACE.get(space, {})}}
        layers: list[Mapping[str, Any]] = [sizes, {"final": sizes}] if given.get("final") else [sizes]
        if not isinstance(strategy, Mapping) or strategy.get("name", "pruning") == "pruning":
            layers.append(TENAS)
        if given.get("protocol") == "released":
            layers += [RELEASED, RELEASED_DARTS] if space == "darts" else [RELEASED]
        return layers


from_mapping = partial(read.from_mapping, SearchConfig)
