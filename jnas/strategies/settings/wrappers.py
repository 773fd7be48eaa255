"""Settings of strategies made of another one, `of`: `distinct:aging` is short for `{name: distinct, of: aging}`."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta

from jnas.estimators.settings import Proxies, Scores
from jnas.settings import Data, Kind, Member
from jnas.strategies.settings.evolution import Aging

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.spaces import Space
    from jnas.types import Estimator, Strategy

# A union of all strategies, which `jnas.strategies` puts here.
Strategies = Any


class Distinct(Member, frozen=True, kw_only=True, tag="distinct"):
    """Another strategy, and no architecture twice: distinct:aging."""

    asks: ClassVar[Kind] = "architectures"
    short: ClassVar[str] = "of"
    of: Annotated["Strategies", Meta(description="the strategy")] = Aging()

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.wraps import distinct

        return distinct(self.of.make(space, objectives, budget), space, budget)


class Constraint(Member, frozen=True, kw_only=True, tag="constraint"):
    """Another strategy, in the part of the space that is small enough: constraint:aging."""

    asks: ClassVar[Kind] = "architectures"
    short: ClassVar[str] = "of"
    of: Annotated["Strategies", Meta(description="the strategy")] = Aging()
    params: Annotated[float, Meta(ge=0, description="at most so many million parameters; 0: any")] = 0.0
    flops: Annotated[float, Meta(ge=0, description="at most so many million multiply-adds; 0: any")] = 0.0

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.constraint import affordable

        limits = {"params": self.params, "flops": self.flops}
        inner = self.of.make(affordable(space, limits), objectives, budget)
        return inner._replace(name=f"constraint:{inner.name}")


class Preselect(Member, frozen=True, kw_only=True, tag="preselect"):
    """Another strategy, asked several times: a proxy chooses what is evaluated: preselect:aging."""

    asks: ClassVar[Kind] = "architectures"
    short: ClassVar[str] = "of"
    of: Annotated["Strategies", Meta(description="the strategy")] = Aging()
    factor: Annotated[int, Meta(ge=1, description="asks for each evaluation")] = 4
    proxy: Annotated[Proxies | Scores, Meta(description="estimator that chooses")] = Proxies(
        proxies="synflow,params"
    )
    data: Data = "digits"

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.wraps import preselect

        return preselect(
            self.of.make(space, objectives, budget), _made(self.proxy, space, self.data), self.factor
        )


class WarmUp(Member, frozen=True, kw_only=True, tag="warm_up"):
    """Another strategy, after the best of many architectures by a proxy: warm_up:aging."""

    asks: ClassVar[Kind] = "architectures"
    short: ClassVar[str] = "of"
    of: Annotated["Strategies", Meta(description="the strategy")] = Aging()
    candidates: Annotated[int, Meta(ge=1, description="random architectures that the proxy scores")] = 1000
    best: Annotated[int, Meta(ge=1, description="best of them that are evaluated first")] = 10
    proxy: Annotated[Proxies | Scores, Meta(description="estimator that chooses")] = Proxies(
        proxies="synflow,params"
    )
    data: Data = "digits"

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.wraps import warm_up

        inner = self.of.make(space, objectives, budget)
        return warm_up(inner, space, _made(self.proxy, space, self.data), self.candidates, self.best)


def _made(proxy: Proxies | Scores, space: "Space", data: str) -> "Estimator":
    """The estimator of a proxy; scores that were computed before need no data."""
    if isinstance(proxy, Scores):
        return proxy.make(space)
    from jnas import data as datasets

    return proxy.make(space, datasets.load(data))
