"""What a study is configured by: a YAML file with the kind of the study and a section for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jnas.study import strict
from jnas.study.config import read_as
from jnas.study.strict import option


@dataclass(frozen=True)
class SearchStudyConfig:
    """Strategies on a table, over many seeds at once."""

    strategies: str = option(
        "random_search,aging_evolution,local_search",
        "strategies compared; random search is always among them",
    )
    seeds: int = option(500, "searches by each strategy", minimum=2)
    evaluations: int = option(500, "evaluations of one search", minimum=2)
    epoch: int = option(0, "epochs that an evaluation trains for; 0: as many as the table has", minimum=0)


@dataclass(frozen=True)
class RankStudyConfig:
    """Training-free scores against trained accuracies."""

    proxies: str = option(
        "naswot,swap,synflow,regions", "proxies, separated by commas; sizes are always there"
    )
    variants: str = option(
        "", "further scorings: network.batch=16; ntk.channels=1 ntk.logits=trace; ..., each with all proxies"
    )
    cells: int = option(0, "cells of the table that are scored, at random; 0: all", minimum=0)
    top: float = option(0.05, "share of the cells that precision is counted among", above=0, maximum=1)
    resamples: int = option(200, "bootstrap samples of each interval", minimum=20)


_SEARCH, _RANK = SearchStudyConfig(), RankStudyConfig()


@dataclass(frozen=True)
class StudyConfig:
    """A study; `read_config` builds it."""

    kind: Literal["search", "rank"] = option("search", "what is studied")
    table: str = option(
        "", "table of trained accuracies: .npz of jnas table, or a CSV with architecture and test_acc"
    )
    data: str = option("digits", "images that scores are measured on: those of the table")
    seed: int = option(0, "seed of everything random", minimum=0, maximum=2**32 - 1)
    search: SearchStudyConfig = _SEARCH
    rank: RankStudyConfig = _RANK


def read_config(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> StudyConfig:
    """The configuration in a YAML file, with `(dotted key, text)` pairs of the command line on top. `InputError`."""
    config: StudyConfig = read_as(StudyConfig, from_mapping, path, overrides)
    return config


def from_mapping(mapping: Mapping[str, Any], source: str = "configuration") -> StudyConfig:
    """The configuration that a nested mapping describes; raises `InputError` for what it does not know."""
    config: StudyConfig = strict.build(StudyConfig, mapping, source)
    return config


def describe_options() -> Iterator[tuple[str, str, str, str]]:
    """`strict.describe_options` of a study."""
    yield from strict.describe_options(StudyConfig)
