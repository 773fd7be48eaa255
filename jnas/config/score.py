"""What a scoring is configured by, from a mapping or the command line, and what its scores depend on."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jnas.config import strict
from jnas.config.search import NetworkConfig, NtkConfig, RegionsConfig
from jnas.config.strict import option

# Scores of one architecture at a time are what is compared here; a search averages three.
IMPLIED: Mapping[str, Mapping[str, Any]] = {"ntk": {"repeats": 1}, "regions": {"repeats": 1}}
# Fields that the scores do not depend on.
FREE = ("memory_gb",)
# TE-NAS's channels; every cell of a network takes seconds to compile for each proxy, and five have every kind of place.
OF_SPACE: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "darts": {"ntk": {"channels": 1}, "network": {"cells_per_stage": 1}}
}
_NETWORK, _NTK, _REGIONS = NetworkConfig(), NtkConfig(repeats=1), RegionsConfig(repeats=1)


@dataclass(frozen=True)
class ScoreConfig:
    """How to score; `from_mapping` builds it."""

    space: str = option("nasbench201", "search space (jnas list spaces)")
    seed: int = option(0, "seed of everything random", minimum=0, maximum=2**32 - 1)
    data: str = option("digits", "name of a data set (jnas list data), or the path of a file or folder")
    network: NetworkConfig = _NETWORK
    ntk: NtkConfig = _NTK
    regions: RegionsConfig = _REGIONS
    memory_gb: float = option(
        0.0, "memory that the work on an accelerator may take, in GB; 0: half of what it has", minimum=0
    )


def from_mapping(mapping: Mapping[str, Any], source: str = "settings") -> ScoreConfig:
    """The configuration that a nested mapping describes; raises `InputError` for what it does not know."""
    strict.build(ScoreConfig, mapping, source)
    of_space = OF_SPACE.get(mapping.get("space", ""), {})
    implied = {
        section: {**IMPLIED.get(section, {}), **of_space.get(section, {}), **mapping.get(section, {})}
        for section in {*IMPLIED, *of_space}
    }
    return strict.build(ScoreConfig, {**mapping, **implied}, source)


def read_settings(options: Sequence[tuple[str, str]], source: str = "command line") -> ScoreConfig:
    """The configuration of `(dotted key, text)` pairs. Raises `InputError`, which names `source`."""
    return from_mapping(strict.overridden(ScoreConfig, {}, options, source), source)


def described(config: Any) -> str:
    """What the scores depend on, as JSON that `from_mapping` reads back: equal texts for equal scores."""
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in FREE}
    return json.dumps(fields, sort_keys=True)


def digest(config: Any) -> str:
    """SHA-256 of what the scores depend on: equal for equal configurations, on every machine."""
    return hashlib.sha256(described(config).encode()).hexdigest()


def describe_options() -> Iterator[tuple[str, str, str, str]]:
    """`strict.describe_options` of a scoring, with the defaults that it implies."""
    for key, takes, default, text in strict.describe_options(ScoreConfig):
        section, _, name = key.rpartition(".")
        implied = IMPLIED.get(section, {}).get(name)
        text = text.removesuffix("; the protocol sets the default")
        yield key, takes, default if implied is None else str(implied), text
