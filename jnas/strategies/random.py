"""Random search: architectures drawn uniformly, with replacement.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012,
https://www.jmlr.org/papers/v13/bergstra12a.html. It is a strong baseline of architecture search (Li and Talwalkar,
UAI 2019, https://arxiv.org/abs/1902.07638).
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from jnas.spaces import Space
from jnas.strategies import archive
from jnas.types import Candidates, Kind, Member, Strategy


class Random(Member, frozen=True, kw_only=True, tag="random"):
    """Architectures drawn uniformly, with replacement."""

    batch: Annotated[int, Meta(ge=1, description="architectures asked for at a time")] = 16
    asks: ClassVar[Kind] = "architectures"

    def make(self, space: Space, objectives: tuple[str, ...], budget: int) -> Strategy:
        """The strategy that these settings describe."""
        return random(space, budget=budget, objectives=len(objectives), batch=self.batch)


def random(space: Space, *, budget: int, objectives: int = 1, batch: int = 1) -> Strategy:
    """Ask for `batch` architectures at a time, uniform over decisions. budget: evaluations that it remembers."""
    return Strategy(
        name="random",
        init=lambda key: archive.empty(budget, len(space.decisions), objectives),
        ask=lambda key, state: (Candidates(space.sample(key, batch)), state),
        tell=lambda state, candidates, values: (archive.add(state, candidates, values), {}),
        done=lambda state: False,
        best=archive.best,
        jittable=True,
    )
