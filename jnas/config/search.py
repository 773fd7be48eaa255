"""Settings of a search: a space, a strategy and an estimator, each with its own settings."""

from collections.abc import Mapping, Sequence
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from msgspec import Meta, defstruct, structs

from jnas.config import read
from jnas.config.score import OF_SPACE
from jnas.estimators import ESTIMATORS
from jnas.estimators.settings import Proxies, Training
from jnas.oneshot import METHODS
from jnas.oneshot.settings import SupernetConfig
from jnas.settings import Data, LearningRate, Member, Seed, Settings
from jnas.strategies import STRATEGIES
from jnas.strategies.settings.evolution import Pruning

if TYPE_CHECKING:
    from jnas.types import EstimatorSettings as EstimatorMember
    from jnas.types import StrategySettings as StrategyMember
else:
    EstimatorMember = StrategyMember = Member

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
    estimator: EstimatorMember = Proxies()


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
    learning_rate: LearningRate = 0.01


class SearchConfig(Settings, frozen=True, kw_only=True):
    """A search of one space; `kind` says which members its strategy, estimator and one-shot method are one of."""

    space: Annotated[
        str, Meta(description="search space (jnas list spaces) or supernet (jnas list supernets)")
    ] = "nasbench201"
    strategy: StrategyMember = Pruning()
    estimator: EstimatorMember = Proxies()
    budget: Annotated[int, Meta(ge=0, description="evaluations; 0: until the strategy ends by itself")] = 0
    protocol: Annotated[
        Literal["paper", "released"],
        Meta(
            description="TE-NAS as published (fresh Kaiming weights, 32 images) or as its authors' code runs"
        ),
    ] = "paper"
    seed: Seed = 0
    data: Data = "digits"
    oneshot: Member | None = None
    supernet: Annotated[SupernetConfig | None, Meta(description="that supernet and its training")] = None
    filter: Annotated[Filter | None, Meta(description="choice among drawn candidates")] = None
    tuning: Annotated[
        Tuning | None, Meta(description="training of the found candidate's inherited weights")
    ] = None
    final: Final | None = None
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


def from_mapping(mapping: Mapping[str, Any], source: str = "settings") -> SearchConfig:
    """Settings of a nested mapping. Raises `InputError`, which names `source`."""
    return read.from_mapping(kind(), mapping, source)


def kind() -> type[SearchConfig]:
    """`SearchConfig` with the members that the registries hold now: to register is to assign to their dicts."""
    return _kind(*(tuple(family.values()) for family in (STRATEGIES, ESTIMATORS, METHODS)))


@cache
def _kind(*families: tuple[type[Member], ...]) -> type[SearchConfig]:
    strategy, estimator, method = (reduce(or_, members) for members in families)
    last = _field("estimator", estimator, Proxies(), "estimator of these (jnas list estimators)")
    final = defstruct("Final", [last], bases=(Final,), frozen=True, kw_only=True)
    fields = [
        _field("strategy", strategy, Pruning(), "how to explore it (jnas list strategies)"),
        _field("estimator", estimator, Proxies(), "value of a candidate (jnas list estimators)"),
        _field("oneshot", method | None, None, "method that trains a supernet first (jnas list oneshot)"),
        _field("final", final | None, None, "last round by another estimator"),
    ]
    whole = defstruct("SearchConfig", fields, bases=(SearchConfig,), frozen=True, kw_only=True)
    return cast(type[SearchConfig], whole)


def _field(name: str, kind: Any, default: Any, description: str) -> tuple[str, Any, Any]:
    return name, Annotated[kind, Meta(description=description)], default


def kernel_and_regions(config: SearchConfig) -> Proxies:
    """Settings of the kernel and the regions that a comparison shows: those of the search where it has them."""
    settings = config.estimator
    if not isinstance(settings, Proxies):
        settings = from_mapping({"space": config.space, "protocol": config.protocol}).estimator
    assert isinstance(settings, Proxies)
    return structs.replace(settings, proxies="ntk,regions")
