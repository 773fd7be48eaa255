"""Settings of strategies that do not learn."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from jnas.settings import Kind, Member
from jnas.strategies.settings import Batch

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.spaces import Space
    from jnas.types import Strategy


class Random(Member, frozen=True, kw_only=True, tag="random"):
    """Architectures drawn uniformly, with replacement."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "random search"
    batch: Batch = 16
    uniform: Annotated[
        Literal["decisions", "canonical"],
        Meta(description="every list of decisions alike, or every class of equal architectures alike"),
    ] = "decisions"

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.random import random

        return random(space, self, len(objectives), budget)


class Exhaustive(Member, frozen=True, kw_only=True, tag="exhaustive"):
    """Every architecture of the space once, in random order."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "exhaustive search"
    batch: Batch = 16

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.exhaustive import exhaustive

        return exhaustive(space, self, len(objectives))


class Draw(Member, frozen=True, kw_only=True, tag="draw"):
    """Different architectures drawn from the space, or from what a supernet learned, each evaluated once."""

    asks: ClassVar[Kind] = "architectures"
    title: ClassVar[str] = "draws"
    candidates: Annotated[int, Meta(ge=1, description="architectures drawn")] = 50

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        from jnas.strategies.listed import distinct, listed

        return listed(lambda key: distinct(space.sample, key, self.candidates), self.candidates, "draw")
