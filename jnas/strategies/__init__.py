"""Search strategies, one file each; `STRATEGIES` holds their settings, which make them, by name."""

from jnas.strategies.aging import Aging
from jnas.strategies.evolution import Evolution
from jnas.strategies.listed import Draw
from jnas.strategies.local import Local
from jnas.strategies.pruning import Pruning
from jnas.strategies.random import Random

STRATEGIES = {
    "pruning": Pruning,
    "evolution": Evolution,
    "random": Random,
    "aging": Aging,
    "local": Local,
    "draw": Draw,
}
