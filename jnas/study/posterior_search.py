"""The host loop of the posterior-guided search: train the supernet, draw candidates, evaluate, keep the best.

The training images are split: the supernet learns from one part, candidates are chosen on the other. The test images
are looked at once, at the end. Candidates that were drawn blindly are evaluated alike, for comparison.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jnas import data as datasets
from jnas.data.base import stratified_split
from jnas.errors import InputError, unknown_name
from jnas.oneshot import candidates, posterior, prior, supernets
from jnas.oneshot.posterior import Gating
from jnas.oneshot.supernets import Supernet
from jnas.oneshot.training import SupernetState
from jnas.proxies import PROXIES
from jnas.proxies.combination import oriented
from jnas.strategies import pruning
from jnas.study import scoring, supernet_training
from jnas.study.config import PosteriorConfig, SearchConfig
from jnas.study.evolving import score_config
from jnas.study.progress import Progress
from jnas.study.records import Evaluation
from jnas.study.run_folder import RunFolder
from jnas.study.supernet_scores import Scorer
from jnas.study.supernet_training import Split

# Draws are cheap; equal ones are evaluated once, so that many are different as are asked for.
OVERSAMPLING = 4


class Keys(NamedTuple):
    """One for each thing that is drawn."""

    weights: Array
    training: Array
    candidates: Array
    random: Array
    tuning: Array
    recalibrate: Array


def check(config: SearchConfig, dataset: datasets.Dataset) -> None:
    """Raise `InputError` for a posterior search that cannot be run, before anything is written."""
    settings = config.posterior
    if config.space not in supernets.SUPERNETS:
        raise InputError(
            f"strategy posterior needs a space with gates, not '{config.space}': choose one of "
            f"{', '.join(sorted(supernets.SUPERNETS))} (jnas list supernets)"
        )
    supernet = build(config, dataset)
    split = hold_out(config, dataset)
    for key, count in (("batch", settings.batch), ("recalibrate", settings.recalibrate)):
        if count > len(split.dataset.x_train):
            raise InputError(
                f"posterior.{key} {count} does not fit: '{dataset.name}' leaves {len(split.dataset.x_train)} images "
                f"to train on; lower posterior.{key} or posterior.validation"
            )
    if supernet.space is None and (settings.filter or settings.prior != "none"):
        option = "filter" if settings.filter else "prior"
        raise InputError(
            f"posterior.{option} needs training-free scores, which there are for cells, not for the channels of "
            f"'{config.space}': leave it away"
        )
    if settings.filter:
        if settings.filter not in PROXIES:
            raise unknown_name("proxy", settings.filter, PROXIES)
        scoring.check(score_config(config, config.network, 0), (settings.filter,), dataset)


def build(config: SearchConfig, dataset: datasets.Dataset) -> Supernet:
    """The supernet that a configuration describes."""
    height, width, channels = dataset.x_train.shape[1:]
    settings = config.posterior
    return supernets.SUPERNETS[config.space](
        (height, width, channels), dataset.classes, settings.width, settings.depth
    )


def hold_out(config: SearchConfig, dataset: datasets.Dataset) -> Split:
    """The training images without a share of each class, and that share."""
    train, held = stratified_split(dataset.y_train, config.seed, config.posterior.validation)
    kept = replace(dataset, x_train=dataset.x_train[train], y_train=dataset.y_train[train])
    return Split(kept, dataset.x_train[held], dataset.y_train[held])


def search(
    config: SearchConfig,
    dataset: datasets.Dataset,
    scorer: Scorer | None,
    key: Array,
    folder: RunFolder,
    progress: Progress,
) -> tuple[np.ndarray, str, dict[str, Any], int]:
    """What was found, bool[D], and as text; the `posterior` part of result.json; the number of evaluations."""
    settings = config.posterior
    supernet, split = build(config, dataset), hold_out(config, dataset)
    gating = posterior.gating(supernet.sizes, settings.gates)
    keys = Keys(*jax.random.split(key, len(Keys._fields)))
    drop, inclusion = _prior(config, supernet, scorer, progress)
    logits = posterior.logits_of(drop)
    trainer = supernet_training.make_trainer(
        settings, supernet, split, gating, keys.training, logits, inclusion
    )
    progress.say(
        f"training the supernet {supernet.name} on {len(split.dataset.x_train)} images of {dataset.name} for "
        f"{settings.epochs} epochs: {supernet.parameters:,} parameters, {len(gating.group)} masks in "
        f"{len(supernet.groups)} groups"
    )
    state = supernet_training.train(settings, supernet, trainer, keys.weights, folder, progress)
    recalibrate = None
    if settings.recalibrate:
        order = np.asarray(jax.random.permutation(keys.recalibrate, len(split.dataset.x_train)))
        recalibrate = split.dataset.x_train[order[: settings.recalibrate]]
    evaluate = candidates.evaluator(supernet, gating, split.dataset, recalibrate)
    drawn = _draw(config, supernet, gating, keys.candidates, state.logits, dataset, folder, progress)
    share = candidates.equal_share(supernet, gating, state.logits)
    blind = _distinct(
        candidates.blind(keys.random, supernet, gating, share, OVERSAMPLING * settings.random_candidates),
        settings.random_candidates,
    )
    accuracy = {}
    for stage, kept in (("candidates", drawn), ("random", blind)):
        accuracy[stage] = _evaluate(settings, supernet, state, evaluate, split, stage, kept, folder, progress)
    best = int(np.argmax(np.nan_to_num(accuracy["candidates"], nan=-1.0)))
    found = drawn[best]
    tuned = supernet_training.tune(
        settings, supernet, split, gating, keys.tuning, inclusion, state, found, folder, progress
    )
    subjects = {"found": (state, found), "whole supernet": (state, np.ones_like(found))}
    if len(blind):
        subjects["best blind"] = state, blind[int(np.argmax(np.nan_to_num(accuracy["random"], nan=-1.0)))]
    if tuned is not None:
        subjects["found, tuned"] = tuned, found
    tested = _test(supernet, gating, dataset, recalibrate, subjects, folder)
    sizes = {
        stage: candidates.parameters_of(supernet, gating, kept).tolist()
        for stage, kept in (("candidates", drawn), ("random", blind))
    }
    record = {
        "groups": [
            {
                "name": name,
                "masks": int(count),
                "kept": int(found[gating.group == group].sum()),
                "drop_probability": float(jax.nn.sigmoid(state.logits[group])),
                "inclusion": float(inclusion[group]),
            }
            for group, (name, count) in enumerate(zip(supernet.groups, gating.counts, strict=True))
        ],
        "parameters": supernet.parameters,
        "found_parameters": sizes["candidates"][best],
        "found_validation": float(accuracy["candidates"][best]),
        "candidates": {"accuracy": accuracy["candidates"].tolist(), "parameters": sizes["candidates"]},
        "random": {"accuracy": accuracy["random"].tolist(), "parameters": sizes["random"]},
        "test": tested,
    }
    return found, candidates.to_text(supernet, found), record, len(drawn) + len(blind)


def _prior(
    config: SearchConfig, supernet: Supernet, scorer: Scorer | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Drop probability that training starts from and the prior's inclusion, float64[G] each."""
    settings, groups = config.posterior, len(supernet.groups)
    drop, inclusion = settings.drop_probability, settings.inclusion
    if settings.prior == "none" or scorer is None or supernet.space is None:
        return np.full(groups, drop), np.full(groups, inclusion)
    state = pruning.init(supernet.space)
    gates, removed = pruning.ask(state), pruning.removable(state)
    subjects = ["supernet", *(f"supernet without {number}" for number in range(len(removed)))]
    repeats = config.ntk.repeats + config.regions.repeats
    with progress.task("asking theory for a prior", len(gates) * repeats) as advance:
        scores = scorer.score("prior", 0, gates, subjects, advance)
    _, decisions = pruning.tell(state, scores["ntk"], scores["regions"])
    missed = np.array(
        [
            decision.ntk_rank + decision.regions_rank
            for decision in decisions
            if supernet.space.operations[decision.operation] != "none"
        ]
    )
    return prior.informed(drop, inclusion, missed, settings.prior_strength)


def _draw(
    config: SearchConfig,
    supernet: Supernet,
    gating: Gating,
    key: Array,
    logits: Array,
    dataset: datasets.Dataset,
    folder: RunFolder,
    progress: Progress,
) -> np.ndarray:
    """Candidates bool[., D], all different, drawn from the posterior and filtered by a proxy where one is named."""
    settings = config.posterior
    wanted = settings.candidates * (settings.filter_factor if settings.filter else 1)
    kept = candidates.from_posterior(key, supernet, gating, logits, OVERSAMPLING * wanted)
    kept = _distinct(kept, wanted)
    if not settings.filter or len(kept) <= settings.candidates:
        return kept
    name = settings.filter
    cells = candidates.cells_of_masks(supernet, kept)
    stored = folder.records.values("filter", 0, name, 0)
    size = scoring.chunk_size(jax.local_devices())
    score = None
    with progress.task(f"filtering by {name}", len(cells), "candidates") as advance:
        for start in range(0, len(cells), size):
            chunk = cells[start : start + size]
            if any(start + index not in stored for index in range(len(chunk))):
                began = time.perf_counter()
                score = score or scoring.chunk_scorer(
                    score_config(config, config.network, 0), (name,), dataset
                )
                values = score(chunk)[name][0]
                each = (time.perf_counter() - began) / len(chunk)
                folder.records.add(
                    Evaluation(
                        "filter", 0, 0, start + index, name, _subject(supernet, chunk[index]), float(v), each
                    )
                    for index, v in enumerate(values)
                )
                stored.update(zip(range(start, start + len(chunk)), values.tolist(), strict=True))
            advance(len(chunk))
    scores = oriented(np.array([stored[index] for index in range(len(cells))]), None, PROXIES[name].sign)
    # In the order in which they were drawn, whatever the scores.
    return kept[np.sort(np.argsort(-scores, kind="stable")[: settings.candidates])]


def _subject(supernet: Supernet, cell: np.ndarray) -> str:
    assert supernet.space is not None
    return supernet.space.to_string(cell)


def _distinct(kept: np.ndarray, count: int) -> np.ndarray:
    """The first `count` different rows, in their order."""
    _, first = np.unique(kept, axis=0, return_index=True)
    return kept[np.sort(first)[:count]]


def _evaluate(
    settings: PosteriorConfig,
    supernet: Supernet,
    state: SupernetState,
    evaluate: Callable[..., np.ndarray],
    split: Split,
    stage: str,
    kept: np.ndarray,
    folder: RunFolder,
    progress: Progress,
) -> np.ndarray:
    """Validation accuracy of candidates bool[B, D], from the records where they are: float64[B]."""
    stored = folder.records.values(stage, 0, "validation_accuracy", 0)
    text = {"candidates": "evaluating candidates", "random": "evaluating blind candidates"}[stage]
    with progress.task(text, len(kept), "candidates") as advance:
        for start in range(0, len(kept), settings.at_once):
            chunk = kept[start : start + settings.at_once]
            places = range(start, start + len(chunk))
            if any(place not in stored for place in places):
                began = time.perf_counter()
                # Filled up, so that one program serves all.
                filled = chunk[np.arange(settings.at_once) % len(chunk)]
                values = evaluate(state.params, state.batch_stats, filled, split.images, split.labels)
                each = (time.perf_counter() - began) / len(chunk)
                folder.records.add(
                    Evaluation(
                        stage, 0, 0, place, "validation_accuracy",
                        candidates.to_text(supernet, masks), float(value), each,
                    )
                    for place, masks, value in zip(places, chunk, values, strict=False)
                )  # fmt: skip
                stored.update(zip(places, values.tolist(), strict=False))
            advance(len(chunk))
    return np.array([stored[index] for index in range(len(kept))])


def _test(
    supernet: Supernet,
    gating: Gating,
    dataset: datasets.Dataset,
    recalibrate: np.ndarray | None,
    subjects: dict[str, tuple[SupernetState, np.ndarray]],
    folder: RunFolder,
) -> dict[str, float]:
    """Test accuracy in percent by name; the only place that looks at the test images."""
    evaluate = candidates.evaluator(supernet, gating, dataset, recalibrate)
    tested = {}
    for index, (name, (state, kept)) in enumerate(subjects.items()):
        start = time.perf_counter()
        (value,) = evaluate(state.params, state.batch_stats, kept[None], dataset.x_test, dataset.y_test)
        tested[name] = float(value)
        seconds = time.perf_counter() - start
        folder.records.add([Evaluation("test", 0, 0, index, "test_accuracy", name, float(value), seconds)])
    return tested
