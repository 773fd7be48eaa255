"""The host loop of the posterior-guided search: train the supernet, draw candidates, evaluate, keep the best.

The training images are split: the supernet learns from one part, candidates are chosen on the other. The test images
are looked at once, at the end. Blind candidates are evaluated alike, for comparison. A prior from theory looks at
images of both parts, without their labels.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jnas import data as datasets
from jnas.config import score as scoring_config
from jnas.config.old_search import SearchConfig
from jnas.data.base import stratified_split
from jnas.errors import InputError, RunError, unknown_name
from jnas.oneshot import candidates, posterior, prior, supernets
from jnas.oneshot.supernets import Supernet
from jnas.oneshot.training import SupernetState
from jnas.proxies import PROXIES
from jnas.run import evolving, scoring, supernet_training
from jnas.run.progress import Progress
from jnas.run.supernet_scores import Scorer
from jnas.run.supernet_training import Split, Work
from jnas.store.folder import RunFolder
from jnas.store.records import Evaluation
from jnas.strategies import old_pruning as pruning

log = logging.getLogger("jnas")

# A sharp posterior draws the same candidate again and again: after so many times as many draws as are wanted, those
# that differ are all there are.
ROUNDS_OF_DRAWING = 8


class Keys(NamedTuple):
    """One for each thing that is drawn."""

    weights: Array
    training: Array
    candidates: Array
    blind: Array
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
    if supernet.space is None:
        given = {"posterior.filter": settings.filter, "table": config.table}
        given["posterior.prior"] = "" if settings.prior == "none" else settings.prior
        for key, value in given.items():
            if value:
                raise InputError(
                    f"{key} '{value}' is of cells, and '{config.space}' has channels for candidates: leave it away"
                )
    if settings.filter:
        if settings.filter not in PROXIES:
            raise unknown_name("proxy", settings.filter, PROXIES)
        scoring.check(_filter_config(config), (settings.filter,), split.dataset)


def build(config: SearchConfig, dataset: datasets.Dataset) -> Supernet:
    """The supernet that a configuration describes."""
    height, width, channels = dataset.x_train.shape[1:]
    settings = config.posterior
    size = settings.width or supernets.SMALL_WIDTHS[config.space]
    return supernets.SUPERNETS[config.space]((height, width, channels), dataset.classes, size, settings.depth)


def hold_out(config: SearchConfig, dataset: datasets.Dataset) -> Split:
    """The training images without a share of each class, and that share."""
    train, held = stratified_split(dataset.y_train, config.seed, config.posterior.validation)
    kept = replace(dataset, x_train=dataset.x_train[train], y_train=dataset.y_train[train])
    return Split(kept, dataset.x_train[held], dataset.y_train[held])


def evaluator(work: Work, key: Array) -> Callable[..., np.ndarray]:
    """`candidates.evaluator`, with the training images of `posterior.recalibrate` where it asks for some."""
    images = work.split.dataset.x_train
    count = work.settings.recalibrate
    chosen = np.asarray(jax.random.permutation(key, len(images))[:count])
    return candidates.evaluator(
        work.supernet, work.gating, work.split.dataset, images[chosen] if count else None
    )


def search(
    config: SearchConfig,
    dataset: datasets.Dataset,
    scorer: Scorer | None,
    key: Array,
    folder: RunFolder,
    progress: Progress,
) -> tuple[str, dict[str, Any], int]:
    """What was found, as text; the `posterior` part of result.json; the number of candidates evaluated."""
    settings = config.posterior
    supernet, split = build(config, dataset), hold_out(config, dataset)
    gating = posterior.gating(supernet.sizes, settings.gates)
    keys = Keys(*jax.random.split(key, len(Keys._fields)))
    drop, inclusion = prior_of(config, supernet, scorer, progress)
    work = Work(settings, supernet, gating, split, inclusion)
    trainer = supernet_training.make_trainer(work, keys.training, posterior.logits_of(drop))
    progress.say(
        f"training the supernet {supernet.name} on {len(split.dataset.x_train)} images of {dataset.name} for "
        f"{settings.epochs} epochs: {supernet.parameters:,} parameters, {len(gating.group)} masks in "
        f"{len(supernet.groups)} groups"
    )
    state = supernet_training.train(
        "supernet", trainer, trainer.init(keys.weights), settings.epochs, supernet.groups, folder, progress
    )
    kept = {
        "candidates": _draw(config, work, keys.candidates, state.logits, folder, progress),
        "blind": _draw_blind(work, keys.blind, state.logits),
    }
    evaluate = evaluator(work, keys.recalibrate)
    accuracy = {
        stage: _evaluate(work, state, evaluate, stage, own, folder, progress) for stage, own in kept.items()
    }
    if not np.isfinite(accuracy["candidates"]).any():
        raise RunError(
            "no candidate has a finite output: lower posterior.learning_rate and give another --out"
        )
    best = {
        stage: int(np.nanargmax(values)) for stage, values in accuracy.items() if np.isfinite(values).any()
    }
    found = kept["candidates"][best["candidates"]]
    tuned = supernet_training.tune(work, keys.tuning, state, found, folder, progress)
    subjects = {"found": (state, found), "whole supernet": (state, np.ones_like(found))}
    if "blind" in best:
        subjects["best blind"] = state, kept["blind"][best["blind"]]
    if tuned is not None:
        subjects["found, tuned"] = tuned, found
    sizes = {stage: candidates.parameters_of(supernet, gating, own).tolist() for stage, own in kept.items()}
    own = candidates.weights_of_draws(supernet, gating)
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
        "expected_parameters": float(
            posterior.expected_parameters(state.logits[gating.group], own, supernet.fixed)
        ),
        "found_parameters": sizes["candidates"][best["candidates"]],
        "found_validation": float(accuracy["candidates"][best["candidates"]]),
        "test": _test(evaluate, dataset, subjects, folder),
    } | {
        stage: {"accuracy": values.tolist(), "parameters": sizes[stage]} for stage, values in accuracy.items()
    }
    return candidates.to_text(supernet, found), record, len(kept["candidates"])


def prior_of(
    config: SearchConfig, supernet: Supernet, scorer: Scorer | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Drop probability that training starts from and the prior's inclusion, float64[G] each."""
    settings, groups = config.posterior, len(supernet.groups)
    drop, inclusion = settings.drop_probability, settings.inclusion
    if settings.prior == "none" or scorer is None or supernet.space is None:
        return np.full(groups, drop), np.full(groups, inclusion)
    state = pruning.init(supernet.space)
    gates = pruning.ask(state)
    # Of the operations that can be left out, `none` is not one: the groups are the others, in the same order.
    subjects = ["supernet", *(f"supernet without {name}" for name in supernet.groups)]
    repeats = config.ntk.repeats + config.regions.repeats
    with progress.task("asking theory for a prior", len(gates) * repeats) as advance:
        scores = scorer.score("prior", 0, gates, subjects, advance)
    _, decisions = pruning.tell(state, scores["ntk"], scores["regions"])
    missed = np.array([decision.ntk_rank + decision.regions_rank for decision in decisions])
    return prior.informed(drop, inclusion, missed, settings.prior_strength)


def _draw(
    config: SearchConfig, work: Work, key: Array, logits: Array, folder: RunFolder, progress: Progress
) -> np.ndarray:
    """Candidates bool[., D], all different, drawn from the posterior and filtered by a proxy where one is named."""
    settings, supernet = work.settings, work.supernet
    wanted = settings.candidates * (settings.filter_factor if settings.filter else 1)
    kept = _distinct(
        lambda part: candidates.from_posterior(part, supernet, work.gating, logits, wanted), key, wanted
    )
    if len(kept) < wanted:
        progress.say(f"the posterior is sharp: {len(kept)} different candidates, {wanted} were asked for")
    if not settings.filter or len(kept) <= settings.candidates:
        return kept
    assert supernet.space is not None
    cells = candidates.cells_of_masks(supernet, kept)
    score = evolving.StoredScorer(
        _filter_config(config), supernet.space, work.split.dataset, folder, (settings.filter,)
    )
    with progress.task(f"filtering by {settings.filter}", len(cells), "candidates") as advance:
        scores = score("filter", 0, 0, cells, advance)[:, 0]
    # In the order in which they were drawn, whatever the scores.
    return kept[np.sort(np.argsort(-scores, kind="stable")[: settings.candidates])]


def _draw_blind(work: Work, key: Array, logits: Array) -> np.ndarray:
    """Blind candidates bool[., D], all different, as large as the posterior's on average where masks are channels."""
    share = candidates.equal_share(work.supernet, work.gating, logits)
    count = work.settings.blind_candidates
    return _distinct(
        lambda part: candidates.blind(part, work.supernet, work.gating, share, count), key, count
    )


def _filter_config(config: SearchConfig) -> scoring_config.ScoreConfig:
    return evolving.score_config(config, config.network, 0)


def _distinct(draw: Callable[[Array], np.ndarray], key: Array, count: int) -> np.ndarray:
    """The first `count` different rows of `draw(key)`, `draw(another key)`, ... in their order; fewer if there are."""
    seen: dict[bytes, np.ndarray] = {}
    for part in range(ROUNDS_OF_DRAWING):
        if part == 0 or len(seen) < count:
            rows = draw(jax.random.fold_in(key, part))
            for row in rows:
                seen.setdefault(np.packbits(row).tobytes(), row)
    return np.array(list(seen.values())[:count]).reshape(-1, rows.shape[1])


def _evaluate(
    work: Work,
    state: SupernetState,
    evaluate: Callable[..., np.ndarray],
    stage: str,
    kept: np.ndarray,
    folder: RunFolder,
    progress: Progress,
) -> np.ndarray:
    """Validation accuracy of candidates bool[B, D], from the records where they are: float64[B].

    Where `posterior.at_once` of them do not fit into memory, half as many are tried.
    """
    stored = folder.records.values(stage, 0, "validation_accuracy", 0)
    text = {"candidates": "evaluating candidates", "blind": "evaluating blind candidates"}[stage]
    together = work.settings.at_once
    with progress.task(text, len(kept), "candidates") as advance:
        start = 0
        while start < len(kept):
            chunk = kept[start : start + together]
            places = range(start, start + len(chunk))
            if any(place not in stored for place in places):
                began = time.perf_counter()
                # Filled up, so that one program serves all.
                filled = chunk[np.arange(together) % len(chunk)]
                try:
                    values = evaluate(
                        state.params, state.batch_stats, filled, work.split.images, work.split.labels
                    )
                except jax.errors.JaxRuntimeError as error:
                    if together == 1 or "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    together //= 2
                    log.warning("out of memory: trying %d candidates side by side", together)
                    continue
                each = (time.perf_counter() - began) / len(chunk)
                folder.records.add(
                    Evaluation(
                        stage, 0, 0, place, "validation_accuracy",
                        candidates.to_text(work.supernet, masks), float(value), each,
                    )
                    for place, masks, value in zip(places, chunk, values, strict=False)
                )  # fmt: skip
                stored.update(zip(places, values.tolist(), strict=False))
            start += len(chunk)
            advance(len(chunk))
    return np.array([stored[index] for index in range(len(kept))])


def _test(
    evaluate: Callable[..., np.ndarray],
    dataset: datasets.Dataset,
    subjects: dict[str, tuple[SupernetState, np.ndarray]],
    folder: RunFolder,
) -> dict[str, float]:
    """Test accuracy in percent by name; the only place that looks at the test images."""
    tested = {}
    for index, (name, (state, kept)) in enumerate(subjects.items()):
        start = time.perf_counter()
        (value,) = evaluate(state.params, state.batch_stats, kept[None], dataset.x_test, dataset.y_test)
        tested[name] = float(value)
        seconds = time.perf_counter() - start
        folder.records.add([Evaluation("test", 0, 0, index, "test_accuracy", name, float(value), seconds)])
    return tested
