"""Random search: architectures drawn uniformly, with replacement.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012,
https://www.jmlr.org/papers/v13/bergstra12a.html. It is a strong baseline of architecture search (Li and Talwalkar,
UAI 2019, https://arxiv.org/abs/1902.07638).
"""

from jnas.spaces import Space
from jnas.strategies import archive
from jnas.strategies.settings import Random
from jnas.types import Candidates, Strategy


def random(space: Space, settings: Random, objectives: int, budget: int) -> Strategy:
    """Ask for architectures uniform over decisions. budget: evaluations that it remembers."""
    return Strategy(
        name="random",
        init=lambda key: archive.empty(budget, len(space.decisions), objectives),
        ask=lambda key, state: (Candidates(space.sample(key, settings.batch)), state),
        tell=lambda state, candidates, values: (archive.add(state, candidates, values), {}),
        done=lambda state: False,
        best=archive.best,
        jittable=True,
    )
