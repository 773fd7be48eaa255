"""Settings of a scoring, from a mapping or the command line."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from jnas.config import read
from jnas.estimators.settings import NetworkConfig, NtkConfig, RegionsConfig
from jnas.settings import Data, Seed, Settings

# Fields that the scores do not depend on.
FREE = ("memory_gb",)
# TE-NAS's channels; every cell of a network takes seconds to compile for each proxy, and five have every kind of place.
OF_SPACE: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "darts": {"ntk": {"channels": 1}, "network": {"cells_per_stage": 1}}
}


class ScoreConfig(Settings, frozen=True, kw_only=True):
    """Space, data and sizes of a scoring."""

    space: Annotated[str, Meta(description="search space (jnas list spaces)")] = "nasbench201"
    seed: Seed = 0
    data: Data = "digits"
    network: NetworkConfig = NetworkConfig()
    ntk: NtkConfig = NtkConfig()
    regions: RegionsConfig = RegionsConfig()
    memory_gb: Annotated[
        float,
        Meta(ge=0, description="memory that the work on an accelerator may take, in GB; 0: half of all"),
    ] = 0.0

    @staticmethod
    def implied(given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [OF_SPACE.get(str(given.get("space")), {})]


from_mapping = partial(read.from_mapping, ScoreConfig)
