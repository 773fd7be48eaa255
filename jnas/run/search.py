"""The host loop of a search: score, prune, compare, train, write down what was found.

Every number depends on the configuration alone: the keys are folded from the seed and from where in the search
they are used. So an interrupted run goes on from its records and ends as it would have ended.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jnas
from jnas import data as datasets
from jnas import spaces
from jnas.config.old_search import SearchConfig
from jnas.errors import InputError, RunError, unknown_name
from jnas.estimators.table import read_accuracies
from jnas.nets import cost, trainable
from jnas.nets.families import FAMILIES
from jnas.oneshot import METHODS
from jnas.proxies import PROXIES
from jnas.run import evolving, posterior_search
from jnas.run.progress import Progress
from jnas.run.supernet_scores import STREAMS, Scorer
from jnas.run.training import train_architectures
from jnas.store.folder import FORMAT, RunFolder, open_run
from jnas.strategies import STRATEGIES
from jnas.strategies import old_pruning as pruning

log = logging.getLogger("jnas")

# The authors' code rounds relative changes to three decimals; the paper does not say.
RELEASED_DECIMALS = 3
# The stages of the records that are the search itself, before anything is compared or trained.
SEARCH_STAGES = ("search", "final", "prior", "supernet", "filter", "candidates")


def run(config: SearchConfig, out: str | Path, progress: Progress) -> dict[str, Any]:
    """Search as `config` says in the folder `out`, or go on where an earlier call was interrupted.

    Returns what result.json holds. Raises `InputError` for a configuration that cannot be run, before anything
    is written, and `RunError` when the machine gives up.
    """
    if config.strategy not in STRATEGIES | METHODS:
        raise unknown_name("strategy", config.strategy, STRATEGIES | METHODS)
    # A supernet whose channels are masked is no space of cells.
    cells = config.strategy not in METHODS or config.space in spaces.SPACES
    space = spaces.get(config.space) if cells else None
    table = read_accuracies(config.table) if config.table else {}
    dataset = datasets.load(config.data)
    _check(config, dataset)
    with open_run(out, config) as folder:
        try:
            if space is None:
                return _search_channels(config, dataset, folder, progress)
            return _run(config, space, dataset, table, folder, progress)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            keys = (
                "posterior.width or posterior.batch"
                if config.strategy == "posterior"
                else "ntk.batch, regions.inputs or training.batch"
            )
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise RunError(f"out of memory: lower {keys}, and give another --out") from error
            raise


def _check(config: SearchConfig, dataset: datasets.Dataset) -> None:
    images = len(dataset.x_train)
    height, width = dataset.x_train.shape[1:3]
    if config.strategy == "posterior":
        posterior_search.check(config, dataset)
        if config.space not in spaces.SPACES:
            return
    if config.ntk.batch > images:
        raise InputError(
            f"ntk.batch {config.ntk.batch} does not fit: '{dataset.name}' has {images} training images"
        )
    if config.training.epochs and config.space not in trainable.SPACES:
        raise InputError(
            f"networks of '{config.space}' cannot be trained at the end of a search, only those of "
            f"{' and '.join(trainable.SPACES)}: set training.epochs 0"
        )
    if config.training.epochs and config.training.batch > images:
        raise InputError(
            f"training.batch {config.training.batch} does not fit: '{dataset.name}' has {images} training images"
        )
    if config.regions.crop > min(height, width):
        raise InputError(
            f"regions.crop {config.regions.crop} does not fit into images of {height}x{width}: lower it"
        )
    if config.regions.crop == 0 and config.regions.inputs > images:
        raise InputError(
            f"regions.inputs {config.regions.inputs} does not fit: '{dataset.name}' has {images} training images"
        )
    if config.strategy == "evolution":
        evolving.check(config, dataset)
    FAMILIES[config.space].check_images(dataset.x_train.shape, 3)


def _run(
    config: SearchConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    table: dict[str, float],
    folder: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    scorer = Scorer(config, space, dataset, folder)
    rounds: list[dict[str, Any]] = []
    generations: list[dict[str, Any]] = []
    posterior: dict[str, Any] | None = None
    if config.strategy == "evolution":
        found, generations, evaluations = evolving.evolve(
            config, space, dataset, scorer.key("evolution"), folder, progress
        )
    elif config.strategy == "posterior":
        text, posterior, evaluations = posterior_search.search(
            config, dataset, scorer, scorer.key("posterior"), folder, progress
        )
        found = space.from_string(text)
    else:
        found, rounds, evaluations = _prune(config, space, dataset, scorer, progress)
    random = np.asarray(
        space.sample(scorer.key("random_cells"), config.training.random_cells), np.int32
    ).reshape(-1, len(space.decisions))
    architectures = np.concatenate([found[None], random])
    scores = _compare(config, space, dataset, scorer, architectures, progress)
    training = None
    if config.training.epochs:
        training = train_architectures(
            config.training, dataset, architectures, scorer.key("training"), folder, progress, space
        )
    text = space.to_string(found)
    result = _head(config, text, evaluations, folder) | {
        "rounds": rounds,
        "generations": generations,
        "posterior": posterior,
        "scores": scores,
        "training": training,
        "table": _look_up(table, text, config.table),
    }
    folder.write_result(result)
    return result


def _search_channels(
    config: SearchConfig, dataset: datasets.Dataset, folder: RunFolder, progress: Progress
) -> dict[str, Any]:
    """A posterior-guided search of a supernet whose candidates are networks with fewer channels, not cells."""
    key = jax.random.fold_in(jax.random.key(config.seed), STREAMS["posterior"])
    text, posterior, evaluations = posterior_search.search(config, dataset, None, key, folder, progress)
    result = _head(config, text, evaluations, folder) | {
        "rounds": [],
        "generations": [],
        "posterior": posterior,
        "scores": None,
        "training": None,
        "table": None,
    }
    folder.write_result(result)
    return result


def _head(config: SearchConfig, architecture: str, evaluations: int, folder: RunFolder) -> dict[str, Any]:
    """What the result of every search begins with."""
    records = folder.records.all()
    return {
        "kind": "search",
        "format": FORMAT,
        "jnas": jnas.__version__,
        "space": config.space,
        "strategy": config.strategy,
        "protocol": config.protocol,
        "seed": config.seed,
        "data": config.data,
        "architecture": architecture,
        "seconds": sum(e.seconds for e in records),
        "search_seconds": sum(e.seconds for e in records if e.stage in SEARCH_STAGES),
        "evaluations": evaluations,
    }


def _prune(
    config: SearchConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    scorer: Scorer,
    progress: Progress,
) -> tuple[np.ndarray, list[dict[str, Any]], int]:
    """What the pruning of the supernet leaves, int32[D]; a record of each round; the number of evaluations."""
    state = pruning.init(space)
    rounds: list[dict[str, Any]] = []
    per_round = scorer.planned_rounds()
    repeats = max(config.ntk.repeats, config.regions.repeats)
    progress.say(
        f"pruning {space.name} on {dataset.name}: {len(per_round)} rounds of {', '.join(map(str, per_round))} "
        f"supernets, each scored {config.ntk.repeats} times by ntk (batch {config.ntk.batch}, "
        f"{config.ntk.normalisation}) and {config.regions.repeats} times by regions ({config.regions.inputs} inputs)"
    )
    with progress.task("scoring", sum(per_round) * (config.ntk.repeats + config.regions.repeats)) as advance:
        while not pruning.finished(state):
            gates = pruning.ask(state)
            removed = pruning.removable(state)
            subjects = ["supernet"] + [
                f"cell {cell} edge {space.edges[edge]} without {space.operations[operation]}"
                for cell, edge, operation in removed
            ]
            scores = scorer.score("search", state.round, gates, subjects, advance)
            state, decisions = pruning.tell(
                state,
                scores["ntk"],
                scores["regions"],
                config.prune.operations_per_round,
                RELEASED_DECIMALS if config.protocol == "released" else None,
            )
            rounds.append(_round_record(space, len(rounds), decisions, scores))
    return pruning.result(state), rounds, sum(per_round) * repeats


def _round_record(
    space: spaces.Space, number: int, decisions: list[pruning.Decision], scores: dict[str, np.ndarray]
) -> dict[str, Any]:
    candidates = []
    for decision in decisions:
        source, target = space.edges[decision.edge]
        fields = asdict(decision) | {"operation": space.operations[decision.operation]}
        candidates.append({"source": source, "target": target, **fields})
    supernet = {
        f"{proxy}/{repeat}": PROXIES[proxy].sign * float(value)
        for proxy, values in scores.items()
        for repeat, value in enumerate(values[:, 0])
    }
    return {"round": number, "candidates": candidates, "supernet": supernet}


def _compare(
    config: SearchConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    scorer: Scorer,
    architectures: np.ndarray,
    progress: Progress,
) -> dict[str, Any]:
    """Mean scores and sizes of the found cell (first) and of random ones."""
    gates = np.asarray(space.gates(architectures), np.float32)
    names = [space.to_string(architecture) for architecture in architectures]
    steps = len(names) * (config.ntk.repeats + config.regions.repeats)
    with progress.task("scoring the found cell and random cells", steps) as advance:
        scores = scorer.score("compare", 0, gates, names, advance)
    macro = cost.Macro(
        config.training.channels,
        config.training.cells_per_stage,
        3,
        dataset.x_train.shape[1:],
        dataset.classes,
    )
    family = FAMILIES[space.name]
    choices = np.asarray(space.choices(architectures))
    params, flops, convs = family.params(choices, macro), family.flops(choices, macro), family.convs(choices)
    rows = [
        {
            "architecture": name,
            "ntk": float(scores["ntk"][:, index].mean()),
            "regions": float(scores["regions"][:, index].mean()),
            "params": params[index] / 1e6,
            "flops": flops[index] / 1e6,
            "convs": int(convs[index]),
        }
        for index, name in enumerate(names)
    ]
    return {"found": rows[0], "random": rows[1:]}


def _look_up(table: dict[str, float], architecture: str, path: str) -> dict[str, Any] | None:
    if not table:
        return None
    accuracy = table.get(architecture)
    if accuracy is None:
        log.warning("the table '%s' does not hold the found cell", path)
        return None
    better = sum(value > accuracy for value in table.values())
    return {"test_accuracy": accuracy, "better": better, "size": len(table), "best": max(table.values())}
