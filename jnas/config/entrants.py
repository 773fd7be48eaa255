"""Strategies that a study compares: names, and names with settings.

    random, aging, aging population=100 tournament=25          on the command line and in YAML
    [random, {name: aging, population: 100, label: large}]     in YAML

Settings that are not given are the defaults of the strategy, as in a search.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jnas.config import read, search
from jnas.errors import InputError, describe

if TYPE_CHECKING:
    from jnas.types import StrategySettings

SOURCE = "search.strategies"


class Entrant(NamedTuple):
    """One strategy of a comparison.

    key: its label, or its name with the settings that were given, as the table calls it.
    title: in figures and sentences.
    settings: which make it.
    """

    key: str
    title: str
    settings: "StrategySettings"


def entrants(given: str | Sequence[str | Mapping[str, Any]]) -> list[Entrant]:
    """Read a comparison's strategies, in their order, each once.

    Raises `InputError` for unknown names and settings, and for one label on two strategies.
    """
    parts = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    found: dict[str, Entrant] = {}
    for entrant in map(_entrant, parts):
        other = found.setdefault(entrant.title, entrant)
        if other.settings != entrant.settings:
            raise InputError(f"{SOURCE}: two strategies are called '{entrant.title}': give one another label")
    return list(found.values())


def _entrant(given: str | Mapping[str, Any]) -> Entrant:
    if isinstance(given, str):
        name, *pairs = given.split() or [""]
        for pair in pairs:
            if "=" not in pair:
                raise InputError(
                    f"{SOURCE}: '{pair}' behind {name} is no setting: write key=value, or a comma"
                )
        # As on the command line: `distinct:aging of.population=20` is a strategy of a strategy.
        options = [("strategy", name)]
        options += [(f"strategy.{key}", text) for key, _, text in (pair.partition("=") for pair in pairs)]
        strategy = read.from_options(search.kind(), options, SOURCE).strategy
        return _named(name, strategy, " ".join(pairs), "")
    values: dict[str, Any] = {str(key): value for key, value in given.items()}
    name, label = values.pop("name", None), values.pop("label", "")
    if not isinstance(name, str) or not isinstance(label, str):
        raise InputError(
            f"{SOURCE}: {describe(dict(given))} has no name: write name: aging, and its settings"
        )
    strategy = search.from_mapping({"strategy": {"name": name, **values}}, SOURCE).strategy
    return _named(name, strategy, " ".join(f"{key}={value}" for key, value in values.items()), label)


def _named(name: str, settings: "StrategySettings", written: str, label: str) -> Entrant:
    # A strategy of another one is called by both names.
    title = name.replace("_", " ") if ":" in name else type(settings).spelled()
    return Entrant(label or f"{name} {written}".rstrip(), label or f"{title} {written}".rstrip(), settings)
