"""Random search: architectures drawn uniformly, with replacement.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012,
https://www.jmlr.org/papers/v13/bergstra12a.html. It is a strong baseline of architecture search (Li and Talwalkar,
UAI 2019, https://arxiv.org/abs/1902.07638).

Uniform over decisions is not uniform over architectures where several lists of decisions describe the same network:
`uniform: canonical` draws their representatives alone, each as often as any other.
"""

import numpy as np

from jnas.spaces import Space
from jnas.spaces.subset import subset
from jnas.strategies import archive
from jnas.strategies.archive import Archive
from jnas.strategies.settings.sampling import Random
from jnas.types import Candidates, Key, Strategy


def random(space: Space, settings: Random, objectives: int, budget: int) -> Strategy:
    """Ask for architectures drawn uniformly. budget: evaluations that it remembers.

    Raises `InputError` where canonical ones are drawn in a space that is too large to list.
    """
    drawn = canonical(space) if settings.uniform == "canonical" else space

    def ask(key: Key, state: Archive) -> tuple[Candidates, Archive]:
        return Candidates(drawn.sample(key, settings.batch)), state

    return archive.strategy("random", space, objectives, budget, ask)


def canonical(space: Space) -> Space:
    """The space whose members are representatives of classes of equal architectures alone."""
    rows = space.all()
    members = (np.asarray(space.canonical(rows)) == rows).all(axis=1)
    return subset(space, members & np.asarray(space.contains(rows)))
