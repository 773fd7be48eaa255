"""Ways to explore a search space, one file each; `STRATEGIES` holds their modules by name."""

from types import ModuleType

from jnas.strategies import evolution, pruning

STRATEGIES: dict[str, ModuleType] = {"pruning": pruning, "evolution": evolution}
