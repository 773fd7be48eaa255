"""Settings of a training."""

from functools import partial
from typing import Annotated

from msgspec import Meta

from jnas.config import read
from jnas.estimators.settings import Recipe
from jnas.settings import Channels, Data, Seed, Settings


class TrainConfig(Settings, frozen=True, kw_only=True):
    """The training of one architecture."""

    space: Annotated[str, Meta(description="search space of the architecture (jnas list spaces)")] = "darts"
    arch: Annotated[
        str, Meta(description="architecture, in the space's own text; or the folder of a finished search")
    ] = ""
    seed: Seed = 0
    data: Data = "digits"
    stream: Annotated[
        int,
        Meta(
            ge=0,
            description="read a folder's images when they are needed, resized to this side; 0: all in memory",
        ),
    ] = 0
    channels: Channels = 36
    cells_per_stage: Annotated[
        int, Meta(ge=1, description="cells of each stage; DARTS: normal cells, 6 make 20 cells")
    ] = 6
    recipe: Recipe = Recipe()
    checkpoint_seconds: Annotated[float, Meta(ge=0, description="seconds between stored states")] = 60.0


from_mapping = partial(read.from_mapping, TrainConfig)
