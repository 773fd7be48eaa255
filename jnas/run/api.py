"""A search from Python: names, settings or objects of one's own, with a data frame and a picture of the outcome.

result = jnas.search("nasbench201", "aging", "table:digits", budget=100)
result.frame()
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jnas import data as datasets
from jnas import spaces
from jnas.config.search import from_mapping
from jnas.errors import InputError
from jnas.estimators.wraps import averaged
from jnas.report.evaluations import Evaluations, read
from jnas.report.result import SearchResult
from jnas.run.progress import Progress
from jnas.run.search import explore, make, run
from jnas.spaces import Space
from jnas.store.records import read_records
from jnas.types import Estimator, EstimatorSettings, Strategy, StrategySettings


def search(
    space: str | Space = "nasbench201",
    strategy: str | Mapping[str, Any] | StrategySettings | Strategy = "random",
    estimator: str | Mapping[str, Any] | EstimatorSettings | Estimator = "proxies:ntk,regions",
    *,
    budget: int = 0,
    seed: int = 0,
    data: str = "digits",
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search a space by a strategy with an estimator.

    Args:
      space: a name (`jnas list spaces`), or a `Space`.
      strategy: a name (`jnas list strategies`), a mapping such as `{"name": "aging", "population": 50}`, its settings,
        or a `Strategy`.
      estimator: such as `"table:digits"`, `"train"` or `"proxies:naswot"`, a mapping, its settings, or an `Estimator`.
      budget: evaluations; 0 until the strategy ends by itself.
      seed: of everything random. data: a name (`jnas list data`), or the path of a file or folder.
      out: a folder as `jnas search` leaves it, from which the same call goes on; None keeps nothing.
      settings: further sections of `jnas.config.search.SearchConfig`, such as `{"training": {"epochs": 2}}`.

    Raises `InputError` for what does not fit, and for objects of one's own together with `out` or `settings`.
    """
    progress = progress or Progress()
    named = {"space": space, "strategy": strategy, "estimator": estimator}
    own = [name for name, value in named.items() if not isinstance(value, str | Mapping)]
    if not own:
        mapping = {**named, "budget": budget, "seed": seed, "data": data, **(settings or {})}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(out or folder)
            result = run(from_mapping(mapping), path, progress)
            evaluations = read(read_records(path / "records.sqlite"))
        return SearchResult(result["architecture"], spaces.get(result["space"]), evaluations, result)
    if out is not None or settings:
        raise InputError(
            f"{own[0]} is an object, which no folder can describe: register it and give its name, or leave out and "
            "settings away"
        )

    # Names and mappings among the objects are read as a configuration reads them.
    space = spaces.get(space) if isinstance(space, str) else space
    if isinstance(strategy, str | Mapping):
        strategy = from_mapping({"strategy": strategy}).strategy
    if isinstance(estimator, str | Mapping):
        estimator = from_mapping({"strategy": "random", "estimator": estimator}).estimator
    images = None if isinstance(estimator, Estimator) else datasets.load(data)
    members, strategy, estimator = make(space, strategy, estimator, images, budget)
    key = jax.random.key(seed)
    outcome = explore(members, strategy, estimator, key, budget=budget, progress=progress)
    text = space.to_string(outcome.best)
    names = tuple(dict.fromkeys(name.partition("/")[0] for name in estimator.objectives))
    evaluations = Evaluations(
        [space.to_string(row) for row in outcome.architectures],
        names,
        averaged(outcome.values, estimator.objectives),
        outcome.fidelity,
        outcome.seconds,
    )
    result = {
        "space": space.name,
        "strategy": strategy.name,
        "architecture": text,
        "evaluations": outcome.evaluations,
        "paid": outcome.paid if strategy.asks == "trainings" else None,
        "rounds": outcome.rounds,
    }
    return SearchResult(text, space, evaluations, result)
