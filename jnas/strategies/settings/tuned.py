"""Settings chosen on the table of digits alone, beside the defaults: `benchmarks/tuned.py` chooses them.

Only strategies that it compared are here.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from jnas.errors import unknown_name
from jnas.settings import Kind, Member
from jnas.strategies.settings.evolution import Aging, HillClimbing, Local
from jnas.strategies.settings.learning import Reinforce, TreeSearch

if TYPE_CHECKING:
    # Help of commands goes without JAX.
    from jnas.spaces import Space
    from jnas.types import Strategy, StrategySettings

TUNED: "dict[str, StrategySettings]" = {
    "aging": Aging(population=30, tournament=10),
    "local": Local(initial=10),
    "hill_climbing": HillClimbing(steps=2),
    "reinforce": Reinforce(learning_rate=0.1),
    "tree_search": TreeSearch(exploration=0.1),
}


class Tuned(Member, frozen=True, kw_only=True, tag="tuned"):
    """A strategy with the settings that were best on the table of digits: tuned:aging."""

    asks: ClassVar[Kind] = "architectures"
    short: ClassVar[str] = "of"
    of: Annotated[str, Meta(description=f"the strategy: {', '.join(TUNED)}")] = "aging"

    def make(self, space: "Space", objectives: tuple[str, ...], budget: int) -> "Strategy":
        if self.of not in TUNED:
            raise unknown_name("strategy with tuned settings", self.of, TUNED)
        inner = TUNED[self.of].make(space, objectives, budget)
        return inner._replace(name=f"tuned:{inner.name}")
