"""The host loop of a search: score, prune, compare, train, write down what was found.

Every number depends on the configuration alone: the keys are folded from the seed and from where in the search
they are used. So an interrupted run goes on from its records and ends as it would have ended.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jnas
from jnas import data as datasets
from jnas import spaces
from jnas.data import transforms
from jnas.errors import InputError, unknown_name
from jnas.estimators.table import read_accuracies
from jnas.nets import cost
from jnas.nets.nasbench201 import check_images
from jnas.proxies import ntk, regions
from jnas.strategies import STRATEGIES, pruning
from jnas.study import evolving
from jnas.study.config import SearchConfig
from jnas.study.progress import Progress
from jnas.study.records import Evaluation, RunError
from jnas.study.run_folder import RunFolder, open_run
from jnas.study.training import train_architectures

log = logging.getLogger("jnas")

# The authors' code rounds relative changes to three decimals; the paper does not say.
RELEASED_DECIMALS = 3
# What each use of the seed folds in first, so that no two draw the same numbers.
STREAMS = {
    "ntk_weights": 0,
    "ntk_images": 1,
    "regions_weights": 2,
    "regions_inputs": 3,
    "random_cells": 4,
    "training": 5,
    "evolution": 6,
}
# The stages of the records that are the search itself, before anything is compared or trained.
SEARCH_STAGES = ("search", "final")


def run(config: SearchConfig, out: str | Path, progress: Progress) -> dict[str, Any]:
    """Search as `config` says in the folder `out`, or go on where an earlier call was interrupted.

    Returns what result.json holds. Raises `InputError` for a configuration that cannot be run, before anything
    is written, and `RunError` when the machine gives up.
    """
    space = spaces.get(config.space)
    if config.strategy not in STRATEGIES:
        raise unknown_name("strategy", config.strategy, STRATEGIES)
    table = read_accuracies(config.table) if config.table else {}
    dataset = datasets.load(config.data)
    _check(config, dataset)
    with open_run(out, config) as folder:
        try:
            return _run(config, space, dataset, table, folder, progress)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise RunError(
                    "out of memory: lower ntk.batch, regions.inputs or training.batch, and give another --out"
                ) from error
            raise


def _check(config: SearchConfig, dataset: datasets.Dataset) -> None:
    images = len(dataset.x_train)
    height, width = dataset.x_train.shape[1:3]
    if config.ntk.batch > images:
        raise InputError(
            f"ntk.batch {config.ntk.batch} does not fit: '{dataset.name}' has {images} training images"
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
    check_images(dataset.x_train.shape, 3)


def _run(
    config: SearchConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    table: dict[str, float],
    folder: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    scorer = _Scorer(config, space, dataset, folder)
    if config.strategy == "evolution":
        found, generations, evaluations = evolving.evolve(
            config, space, dataset, scorer.key("evolution"), folder, progress
        )
        rounds: list[dict[str, Any]] = []
    else:
        found, rounds, evaluations = _prune(config, space, dataset, scorer, progress)
        generations = []
    random = np.asarray(
        space.sample(scorer.key("random_cells"), config.training.random_cells), np.int32
    ).reshape(-1, len(space.decisions))
    architectures = np.concatenate([found[None], random])
    scores = _compare(config, space, dataset, scorer, architectures, progress)
    training = None
    if config.training.epochs:
        training = train_architectures(
            config.training, dataset, architectures, scorer.key("training"), folder, progress, space.to_string
        )
    records = folder.records.all()
    text = space.to_string(found)
    result = {
        "jnas": jnas.__version__,
        "space": space.name,
        "strategy": config.strategy,
        "protocol": config.protocol,
        "seed": config.seed,
        "data": config.data,
        "architecture": text,
        "seconds": sum(e.seconds for e in records),
        "search_seconds": sum(e.seconds for e in records if e.stage in SEARCH_STAGES),
        "evaluations": evaluations,
        "rounds": rounds,
        "generations": generations,
        "scores": scores,
        "training": training,
        "table": _look_up(table, text, config.table),
    }
    folder.write_result(result)
    return result


def _prune(
    config: SearchConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    scorer: "_Scorer",
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
    return np.array(pruning.result(state)[0], np.int32), rounds, sum(per_round) * repeats


class _Scorer:
    """The compiled scores of one run: shapes never change, so each program compiles once."""

    def __init__(
        self, config: SearchConfig, space: spaces.Space, dataset: datasets.Dataset, folder: RunFolder
    ):
        self._config, self._space, self._dataset, self._folder = config, space, dataset, folder
        self._root = jax.random.key(config.seed)
        self._room = pruning.largest_ask(space)

    def key(self, stream: str, *where: int) -> Array:
        key = jax.random.fold_in(self._root, STREAMS[stream])
        for index in where:
            key = jax.random.fold_in(key, index)
        return key

    def planned_rounds(self) -> list[int]:
        """How many supernets each round of the pruning scores."""
        state, counts = pruning.init(self._space), []
        while not pruning.finished(state):
            asked = 1 + len(pruning.removable(state))
            counts.append(asked)
            flat = np.ones((1, asked))
            state, _ = pruning.tell(state, flat, flat, self._config.prune.operations_per_round)
        return counts

    def score(
        self, stage: str, round: int, gates: np.ndarray, subjects: list[str], advance: Callable[[int], None]
    ) -> dict[str, np.ndarray]:
        """Both proxies of gates [M, cells, E, K], from the records where they are: float64[repeats, M] each."""
        scores = {}
        for proxy, repeats in (("ntk", self._config.ntk.repeats), ("regions", self._config.regions.repeats)):
            rows = []
            for repeat in range(repeats):
                stored = self._folder.records.values(stage, round, proxy, repeat)
                if len(stored) < len(gates):
                    start = time.perf_counter()
                    values = getattr(self, f"_{proxy}")(stage, round, repeat, gates)
                    each = (time.perf_counter() - start) / len(gates)
                    self._folder.records.add(
                        Evaluation(stage, round, repeat, index, proxy, subject, float(value), each)
                        for index, (subject, value) in enumerate(zip(subjects, values, strict=True))
                    )
                    stored = dict(enumerate(values))
                rows.append([stored[index] for index in range(len(gates))])
                advance(len(gates))
            scores[proxy] = np.array(rows, np.float64)
        return scores

    def _in_parts(self, gates: np.ndarray, score: Callable[[Array, Array], np.ndarray]) -> np.ndarray:
        """`score(padded gates, count)` over parts that fit the program's room."""
        parts = []
        for start in range(0, len(gates), self._room):
            part = gates[start : start + self._room]
            padded = np.zeros((self._room, *part.shape[1:]), np.float32)
            padded[: len(part)] = part
            parts.append(score(jnp.asarray(padded), jnp.int32(len(part)))[: len(part)])
        return np.concatenate(parts)

    def _draw(self, key: Array, count: int) -> Array:
        """Up to `count` different training images, standardised."""
        chosen = jax.random.permutation(key, len(self._dataset.x_train))[:count]
        return transforms.normalise(self._dataset, self._dataset.x_train[np.asarray(chosen)])

    def _ntk(self, stage: str, round: int, repeat: int, gates: np.ndarray) -> np.ndarray:
        settings = self._config.ntk
        where = (0 if stage == "search" else 1, round, repeat)
        weights = where if settings.fresh_weights else where[:2]
        images = self._draw(self.key("ntk_images", *where), settings.batch)

        def score(padded, count):
            kernels = ntk.kernels(
                self.key("ntk_weights", *weights),
                padded,
                count,
                images,
                classes=self._dataset.classes,
                channels=settings.channels,
                cells_per_stage=settings.cells_per_stage,
                normalisation=settings.normalisation,
                logits=settings.logits,
                parameters=settings.parameters,
                initialisation=settings.initialisation,
                implementation=settings.implementation,
            )
            return ntk.condition_numbers(kernels[: int(count)])[0]

        return self._in_parts(gates, score)

    def _regions(self, stage: str, round: int, repeat: int, gates: np.ndarray) -> np.ndarray:
        settings = self._config.regions
        where = (0 if stage == "search" else 1, round, repeat)
        weights = where if self._config.ntk.fresh_weights else where[:2]
        image_key, crop_key = jax.random.split(self.key("regions_inputs", *where))
        inputs = self._draw(image_key, settings.inputs)
        if settings.crop:
            inputs = transforms.crops(crop_key, inputs, settings.inputs, settings.crop)

        def score(padded, count):
            return np.asarray(
                regions.counts(
                    self.key("regions_weights", *weights),
                    padded,
                    count,
                    inputs,
                    channels=settings.channels,
                    cells_per_stage=settings.cells_per_stage,
                    initialisation=self._config.ntk.initialisation,
                ),
                np.float64,
            )

        return self._in_parts(gates, score)


def _round_record(
    space: spaces.Space, number: int, decisions: list[pruning.Decision], scores: dict[str, np.ndarray]
) -> dict[str, Any]:
    candidates = []
    for decision in decisions:
        source, target = space.edges[decision.edge]
        fields = asdict(decision) | {"operation": space.operations[decision.operation]}
        candidates.append({"source": source, "target": target, **fields})
    supernet = {proxy: values[:, 0].tolist() for proxy, values in scores.items()}
    return {"round": number, "candidates": candidates, "supernet": supernet}


def _compare(
    config: SearchConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    scorer: _Scorer,
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
    params, flops = cost.params(architectures, macro), cost.flops(architectures, macro)
    convs = cost.convs(architectures)
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
