"""Search strategies, one file each; `STRATEGIES` holds their settings, which make them, by name."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from jnas.strategies.settings import wrappers
from jnas.strategies.settings.bayesian import Bananas, Forest, GaussianProcess, Optuna, Tpe
from jnas.strategies.settings.evolution import (
    Aging,
    Evolution,
    HillClimbing,
    Lemonade,
    Local,
    Nsga2,
    Pruning,
)
from jnas.strategies.settings.fidelity import Asha, Bohb, Hyperband, SuccessiveHalving
from jnas.strategies.settings.learning import (
    Bandit,
    Editing,
    Lanas,
    PolicyGradient,
    QLearning,
    Reinforce,
    TreeSearch,
)
from jnas.strategies.settings.sampling import Draw, Exhaustive, Random
from jnas.strategies.settings.tuned import Tuned
from jnas.strategies.settings.wrappers import Constraint, Distinct, Preselect, WarmUp

if TYPE_CHECKING:
    # Help reads this file, and goes without JAX.
    from jnas.types import StrategySettings

STRATEGIES: dict[str, "type[StrategySettings]"] = {
    "pruning": Pruning,
    "evolution": Evolution,
    "random": Random,
    "aging": Aging,
    "local": Local,
    "hill_climbing": HillClimbing,
    "nsga2": Nsga2,
    "lemonade": Lemonade,
    "exhaustive": Exhaustive,
    "draw": Draw,
    "reinforce": Reinforce,
    "policy_gradient": PolicyGradient,
    "q_learning": QLearning,
    "bandit": Bandit,
    "tree_search": TreeSearch,
    "lanas": Lanas,
    "editing": Editing,
    "tpe": Tpe,
    "gaussian_process": GaussianProcess,
    "bananas": Bananas,
    "forest": Forest,
    "optuna": Optuna,
    "successive_halving": SuccessiveHalving,
    "hyperband": Hyperband,
    "asha": Asha,
    "bohb": Bohb,
    "distinct": Distinct,
    "constraint": Constraint,
    "preselect": Preselect,
    "warm_up": WarmUp,
    "tuned": Tuned,
}
# A wrapper holds any of these; one that is registered later is wrapped from Python.
wrappers.Strategies = reduce(or_, STRATEGIES.values())
