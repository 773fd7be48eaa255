"""A search: any strategy, any estimator, any space, and the parts that a configuration adds to them.

    one-shot    train a supernet; candidates are evaluated with the weights that they inherit      (`oneshot`)
    search      ask, evaluate, tell                                              (`strategy`, `estimator`, `budget`)
    final       evaluate the best again by another estimator                                        (`final`)
    compare     score the best architecture beside random ones                                      (`compare`)
    training    train these                                                                         (`training`)
    table       look the best up                                                                    (`table`)

Every number depends on the configuration alone. So an interrupted run goes on from its records, and ends as it would
have ended.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

import jnas
from jnas import data as datasets
from jnas import spaces
from jnas.config.search import Final, SearchConfig, kernel_and_regions
from jnas.data import Dataset
from jnas.errors import InputError, RunError
from jnas.estimators.compact_table import Table, open_table
from jnas.estimators.proxies import sizes
from jnas.estimators.settings import Inherited, Training
from jnas.estimators.wraps import averaged, mean, repeated
from jnas.parallel import out_of_memory
from jnas.proxies import sign
from jnas.proxies.combination import fitness
from jnas.run import loop, oneshot
from jnas.run.evaluate import Evaluator
from jnas.run.progress import Progress
from jnas.run.train import check as check_training
from jnas.run.train import train_architectures
from jnas.spaces import Space
from jnas.spaces.subset import subset
from jnas.store.folder import FORMAT, RunFolder, open_run
from jnas.store.records import Records
from jnas.strategies import archive
from jnas.strategies.listed import distinct, listed
from jnas.strategies.settings.sampling import Draw
from jnas.types import (
    STATUSES,
    Candidates,
    Estimator,
    EstimatorSettings,
    Info,
    Key,
    Strategy,
    StrategySettings,
    Values,
    fidelities,
)

log = logging.getLogger("jnas")

# Folded into the key of the seed, so that no two parts draw the same numbers. The search has the key itself.
FINAL, RANDOM, TRAINING = 11, 12, 13
# The stages of the records that are the search itself, before anything is compared or trained.
SEARCH_STAGES = ("supernet", "prior", "filter", "search", "final", "blind")
OUT_OF_MEMORY = "out of memory: lower the batch of the part that was running, and give another --out"


class Outcome(NamedTuple):
    """A finished exploration.

    best: int32[D].
    architectures: int32[B, D] in the order told, without candidates that were gates; values: float64[B, P], theirs;
      seconds, fidelity: float64[B]; a fidelity is 1 where the strategy asks for none.
    rounds: what the strategy said of each.
    """

    best: np.ndarray
    evaluations: int
    architectures: np.ndarray
    values: np.ndarray
    seconds: np.ndarray
    fidelity: np.ndarray
    rounds: list[dict[str, Any]]

    @property
    def paid(self) -> float:
        """The trainings in full that those of the search amount to, of shares in 32 bits."""
        return round(float(self.fidelity.sum()), 4)


def require_fit(strategy: Strategy, estimator: Estimator) -> None:
    """Raise `InputError` where the estimator does not take what the strategy asks for."""
    if strategy.asks not in estimator.takes:
        short = ", or a table of several epochs" if strategy.asks == "trainings" else ""
        raise InputError(
            f"strategy {strategy.name} asks for {strategy.asks}, and an estimator of {', '.join(estimator.objectives)} "
            f"takes {' and '.join(estimator.takes)}: choose another of the two{short} (jnas list shows which fit)"
        )


def require_end(strategy: Strategy, budget: int) -> int:
    """Candidates that a search asks for in all. Raises `InputError` where it would go on for ever."""
    total = min(budget or strategy.total, strategy.total or budget)
    if not total:
        raise InputError(f"strategy {strategy.name} does not end by itself: give a budget of evaluations")
    return total


def within(space: Space, estimator: Estimator) -> Space:
    """The space restricted to the architectures that the estimator has values for."""
    return space if estimator.members is None else subset(space, estimator.members())


def make(
    space: Space,
    strategy: StrategySettings | Strategy,
    estimator: EstimatorSettings | Estimator,
    dataset: Dataset | None,
    budget: int,
) -> tuple[Space, Strategy, Estimator]:
    """Make a strategy and an estimator of their settings; objects stay as they are. dataset: None for no settings.

    The space comes back restricted to the architectures that the estimator has values for. Raises `InputError` where
    the two do not fit, and for a strategy that does not end by itself without a budget.
    """
    if isinstance(estimator, Inherited):
        estimator = oneshot.of_run(estimator, space)
    elif not isinstance(estimator, Estimator):
        estimator = estimator.make(space, dataset, apart=strategy.asks == "gates")
    space = within(space, estimator)
    if not isinstance(strategy, Strategy):
        strategy = strategy.make(space, estimator.objectives, budget)
    require_fit(strategy, estimator)
    require_end(strategy, budget)
    return space, strategy, estimator


def explore(
    space: Space,
    strategy: Strategy,
    estimator: Estimator,
    key: Key,
    *,
    budget: int = 0,
    records: Records | None = None,
    stage: str = "search",
    progress: Progress | None = None,
) -> Outcome:
    """Run a strategy on an estimator, with values from the records where they are.

    Raises `InputError` where the two do not fit, and for a strategy that does not end by itself without a budget;
    `RunError` where no candidate of a round fits into memory.
    """
    require_fit(strategy, estimator)
    total, evaluator = require_end(strategy, budget), Evaluator(estimator, space, records, stage)
    rounds: list[dict[str, Any]] = []
    empty = np.zeros((0, len(space.decisions)), np.int32), np.zeros((0, len(estimator.objectives)))
    told: list[tuple[Any, ...]] = [(*empty, np.zeros(0), np.zeros(0))]

    def note(number: int, info: Info) -> None:
        if "best" in info:
            info = {**info, "best": space.to_string(info["best"])}
        rounds.append({"round": number, **info})
        if records is not None:
            records.note(stage, number, info)

    with (progress or Progress(quiet=True)).task(stage, total, "candidates") as advance:

        def evaluate(number: int, candidates: Candidates) -> Values:
            values = evaluator(loop.round_key(key, number, candidates), number, candidates, advance)
            if (values.status == STATUSES.index("out_of_memory")).all():
                raise RunError(OUT_OF_MEMORY)
            if candidates.gates is None:
                share = np.asarray(fidelities(candidates), np.float64)
                told.append((np.asarray(candidates.architectures), values.value, values.cost, share))
            return values

        result = loop.run(strategy, evaluate, key, budget=budget, note=note)
    rows, values, seconds, share = map(np.concatenate, zip(*told, strict=True))
    return Outcome(result.best, result.evaluations, rows, values, seconds, share, rounds)


def run(config: SearchConfig, out: str | Path, progress: Progress) -> dict[str, Any]:
    """Search as `config` says in the folder `out`, or go on where an earlier call was interrupted.

    Returns the content of result.json. Raises `InputError` for a configuration that cannot be run, before anything
    is written, and `RunError` when the machine gives up.
    """
    dataset = datasets.load(config.data)
    table = open_table(config.table, config.space) if config.table else None
    parts = prepare(config, dataset)
    with open_run(out, config) as folder:
        try:
            result = _run(config, parts, folder, progress)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise RunError(OUT_OF_MEMORY) from error
            raise
        result["table"] = _look_up(table, result["architecture"]) if table else None
        folder.write_result(result)
        return result


class Parts(NamedTuple):
    """Parts of a search that are made, and checked, before anything is written.

    dataset: all images.
    setup: the supernet, where one is trained first: it is the estimator then, and strategy and estimator are None.
    space: of the architectures.
    filter: of the draws, before they are evaluated.
    """

    dataset: Dataset
    setup: oneshot.Setup | None
    space: Space
    strategy: Strategy | None
    estimator: Estimator | None
    filter: Estimator | None
    final: Estimator | None
    comparison: Estimator | None


def prepare(config: SearchConfig, dataset: Dataset) -> Parts:
    """Make the parts of a search. Raises `InputError` for parts that do not fit each other or the data."""
    # Sections that the others leave nothing to do.
    for section, value in {"supernet": config.supernet, "tuning": config.tuning}.items():
        if value and not config.oneshot:
            raise InputError(
                f"{section} is for a supernet, and this search trains none: add oneshot, or leave {section} out"
            )
    if config.filter and not isinstance(config.strategy, Draw):
        raise InputError("filter chooses among draws: make strategy draw, or leave filter out")
    if config.final and config.strategy.asks == "gates":
        raise InputError(
            "final evaluates the best architectures again, and the strategy asks for gates: leave final out"
        )

    # The parts, each on the space.
    setup = oneshot.prepare(config, dataset) if config.oneshot else None
    space = setup.supernet.space if setup else spaces.get(config.space)
    if config.training:
        check_training(config.training, space, dataset)
    final = config.final.estimator.make(space, dataset) if config.final else None
    theory = kernel_and_regions(config)
    chooser = None
    if config.filter:
        chooser = msgspec.structs.replace(theory, proxies=config.filter.proxies).make(space, dataset)
    strategy, estimator, comparison = None, None, None
    if setup:
        if config.strategy.asks not in Inherited.takes:
            raise InputError("a supernet has no trainings of single architectures: leave oneshot out")
        # Made again on what the supernet learns; here to refuse one that does not end.
        require_end(config.strategy.make(space, ("accuracy",), config.budget), config.budget)
    else:
        space, strategy, estimator = make(space, config.strategy, config.estimator, dataset, config.budget)
    if config.compare and config.space in spaces.SPACES:
        # The program that the search has compiled is not compiled again.
        same = estimator is not None and theory == config.estimator
        comparison = mean(estimator) if same and estimator else theory.make(space, dataset)
    return Parts(dataset, setup, space, strategy, estimator, chooser, final, comparison)


def _run(config: SearchConfig, parts: Parts, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    key, records, dataset = jax.random.key(config.seed), folder.records, parts.dataset
    space, strategy, estimator = parts.space, parts.strategy, parts.estimator

    # A supernet first, where the configuration has one: it is the estimator, and draws are those of its posterior.
    learned = None
    if parts.setup:
        learned = oneshot.learn(config, parts.setup, folder, progress)
        space, estimator = learned.space, learned.estimator
        strategy = config.strategy.make(space, estimator.objectives, config.budget)
    assert strategy is not None and estimator is not None
    ask = partial(explore, records=records, progress=progress)
    if config.filter and parts.filter:
        strategy = _filtered(config.filter.factor, strategy.total, parts.filter, space, key, ask)

    # The search itself, and a final of its best.
    total = require_end(strategy, config.budget)
    progress.say(
        f"searching {space.name} on {dataset.name}: {strategy.name} asks for {total:,} {strategy.asks}, by "
        f"{', '.join(dict.fromkeys(name.partition('/')[0] for name in estimator.objectives))}"
    )
    explored = ask(space, strategy, estimator, key, budget=config.budget)
    best, evaluations = explored.best, explored.evaluations
    if config.final and parts.final:
        best, more = _final(config.final, parts, explored, key, ask)
        evaluations += more
    posterior = oneshot.record(config, learned, explored, folder, progress) if learned else None

    # Random architectures beside the best: scores, and trainings.
    count = config.compare.random_cells if config.compare and parts.comparison else 0
    random = np.asarray(parts.space.sample(jax.random.fold_in(key, RANDOM), count), np.int32)
    architectures = np.concatenate([best[None], random])
    scores, trained = None, None
    if parts.comparison:
        scores = _compare(config, parts, parts.comparison, architectures, key, records, progress)
    if config.training:
        trained = train_architectures(
            config.training, dataset, architectures, jax.random.fold_in(key, TRAINING), folder, progress, parts.space
        )  # fmt: skip
    stored = records.all()
    return {
        "kind": "search",
        "format": FORMAT,
        "jnas": jnas.__version__,
        "space": config.space,
        "strategy": strategy.name,
        "estimator": ",".join(estimator.objectives),
        "protocol": config.protocol,
        "seed": config.seed,
        "data": config.data,
        "architecture": space.to_string(best),
        "seconds": sum(e.seconds for e in stored),
        "search_seconds": sum(e.seconds for e in stored if e.stage in SEARCH_STAGES),
        "evaluations": evaluations,
        "paid": explored.paid if strategy.asks == "trainings" else None,
        "rounds": explored.rounds,
        "scores": scores,
        "training": trained,
        "posterior": posterior,
    }


def _filtered(
    factor: int, count: int, estimator: Estimator, space: Space, key: Key, ask: Callable[..., Outcome]
) -> Strategy:
    """The best by some proxies of `factor` times `count` draws, in the order in which they were drawn."""
    draws = listed(lambda key: distinct(space.sample, key, factor * count), factor * count)
    drawn = ask(space, draws, estimator, key, stage="filter")
    best = np.sort(np.argsort(-fitness(drawn.values), kind="stable")[:count])
    return listed(lambda key: drawn.architectures[best], count, "draw")


def _final(
    settings: Final, parts: Parts, explored: Outcome, key: Key, ask: Callable[..., Outcome]
) -> tuple[np.ndarray, int]:
    """The best of the best longest trainings, int32[D], by the mean of further evaluations, and how many these are."""
    assert parts.final is not None
    longest = np.asarray(archive.longest(explored.values, explored.fidelity))
    architectures, values = explored.architectures[longest], explored.values[longest]
    order = np.argsort(-fitness(values), kind="stable")
    _, first = np.unique(architectures[order], axis=0, return_index=True)
    finalists = architectures[order[np.sort(first)[: settings.candidates]]]
    strategy = listed(lambda key: finalists, len(finalists), "final")
    estimator = repeated(parts.final, settings.repeats)
    values = ask(parts.space, strategy, estimator, jax.random.fold_in(key, FINAL), stage="final").values
    best = int(np.argmax(fitness(averaged(values, estimator.objectives))))
    return finalists[best], settings.repeats * len(finalists)


def _compare(
    config: SearchConfig,
    parts: Parts,
    estimator: Estimator,
    architectures: np.ndarray,
    key: Key,
    records: Records,
    progress: Progress,
) -> dict[str, Any]:
    """Kernel, regions and sizes of the best architecture (first) and of random ones."""
    # Straight to the evaluator: random architectures may be equal. As gates where the search has a program for gates.
    candidates = Candidates(architectures)
    if config.strategy.asks == "gates":
        candidates = Candidates(gates=np.asarray(parts.space.gates(architectures), np.float32))
    with progress.task("comparing", len(architectures), "architectures") as advance:
        evaluator = Evaluator(estimator, parts.space, records, "compare")
        values = evaluator(key, 0, candidates, advance).value
    counted = sizes(parts.space, parts.dataset, config.training or Training(), architectures)
    rows = [
        {
            "architecture": parts.space.to_string(architecture),
            **{
                name: sign(name) * float(value) if np.isfinite(value) else None
                for name, value in zip(estimator.objectives, values[row], strict=True)
            },
            "params": float(counted["params"][row]) / 1e6,
            "flops": float(counted["flops"][row]) / 1e6,
            "convs": int(counted["convs"][row]),
        }
        for row, architecture in enumerate(architectures)
    ]
    return {"found": rows[0], "random": rows[1:]}


def _look_up(table: Table, architecture: str) -> dict[str, Any] | None:
    accuracy = table.mean()
    row = int(table.rows(spaces.get(table.space).from_string(architecture)[None])[0])
    if row < 0 or not np.isfinite(accuracy[row]):
        log.warning("the table does not hold the best architecture, %s", architecture)
        return None
    return {
        "test_accuracy": float(accuracy[row]),
        "better": int((accuracy > accuracy[row]).sum()),
        "size": int(np.isfinite(accuracy).sum()),
        "best": float(np.nanmax(accuracy)),
    }
