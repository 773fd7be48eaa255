"""Search strategies, one file each; `STRATEGIES` holds their settings, which make them, by name."""

from jnas.settings import Member
from jnas.strategies.settings import Aging, Draw, Evolution, Local, Pruning, Random

STRATEGIES: dict[str, type[Member]] = {
    "pruning": Pruning,
    "evolution": Evolution,
    "random": Random,
    "aging": Aging,
    "local": Local,
    "draw": Draw,
}
