"""The one-shot part of a search: train a supernet, then evaluate candidates with the weights that they inherit.

The training images are split: the supernet learns from one part, candidates are chosen on the other. The test images
are looked at once, at the end. A prior from theory looks at images of both parts, without their labels.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax import Array
from msgspec.structs import replace as replace_settings

from jnas import data as datasets
from jnas import spaces
from jnas.config import read
from jnas.config.search import SearchConfig, kernel_and_regions, kind
from jnas.data import Dataset
from jnas.errors import InputError, RunError
from jnas.estimators.inherited import inherited
from jnas.estimators.settings import Inherited
from jnas.oneshot import candidates, posterior, prior, supernets
from jnas.oneshot.posterior import Prior
from jnas.oneshot.settings import Posterior, Uniform
from jnas.oneshot.supernets import Supernet
from jnas.run.evaluate import Evaluator
from jnas.run.progress import Progress
from jnas.run.supernet_training import Budget, Split, fixed_path, hold_out, train_supernet
from jnas.spaces import Space
from jnas.spaces.base import Moves
from jnas.store.folder import RunFolder, read_run
from jnas.store.records import Evaluation, Records
from jnas.strategies import pruning
from jnas.strategies.listed import distinct
from jnas.types import Candidates, Estimator, Key, OneShot

# Folded into the key of the seed for all that the supernet draws.
ONESHOT = 14


class Keys(NamedTuple):
    """One for each use."""

    weights: Key
    training: Key
    prior: Key
    blind: Key
    tuning: Key
    evaluation: Key


class Learned(NamedTuple):
    """A trained supernet.

    space: of its architectures; `sample` draws what the method learned.
    estimator: accuracy on the held-out images with inherited weights.
    prior: the probabilities that a posterior started from; None for other methods.
    """

    supernet: Supernet
    split: Split
    keys: Keys
    method: OneShot
    state: Any
    space: Space
    estimator: Estimator
    prior: Prior | None


def check(config: SearchConfig, dataset: Dataset) -> Space:
    """The space of a one-shot search. Raises `InputError` for a search that cannot be run."""
    if config.space not in supernets.SUPERNETS:
        raise InputError(
            f"a one-shot search needs a supernet, and '{config.space}' is none: choose one of "
            f"{', '.join(sorted(supernets.SUPERNETS))} (jnas list supernets)"
        )
    if not isinstance(config.estimator, Inherited):
        raise InputError(
            "a one-shot search evaluates inherited weights: leave estimator out, or name it inherited"
        )
    assert config.supernet is not None
    images = len(_split(config, dataset).dataset.x_train)
    counts = {"supernet.batch": config.supernet.batch, "estimator.recalibrate": config.estimator.recalibrate}
    for name, count in counts.items():
        if count > images:
            raise InputError(
                f"{name} {count} does not fit: '{dataset.name}' leaves {images} images to train on; lower {name} or "
                "supernet.validation"
            )
    if config.space not in spaces.SPACES:
        theory = config.supernet.prior if config.supernet.prior != "none" else ""
        parts: Mapping[str, Any] = {
            "filter": config.filter, "final": config.final, "table": config.table, "supernet.prior": theory,
            "training": config.training,
        }  # fmt: skip
        for name, value in parts.items():
            if value:
                raise InputError(
                    f"{name} is for cells, and '{config.space}' has channels for candidates: leave it out"
                )
    space = _build(config, dataset).space
    if config.supernet.prior != "none":
        kernel_and_regions(config).make(space, dataset, apart=True)
    return space


def _build(config: SearchConfig, dataset: Dataset) -> Supernet:
    assert config.supernet is not None
    height, width, channels = dataset.x_train.shape[1:]
    size = config.supernet.width or supernets.SMALL_WIDTHS[config.space]
    make = supernets.SUPERNETS[config.space]
    return make((height, width, channels), dataset.classes, size, config.supernet.depth)


def _split(config: SearchConfig, dataset: Dataset) -> Split:
    assert config.supernet is not None
    return hold_out(dataset, config.seed, config.supernet.validation)


def learn(config: SearchConfig, dataset: Dataset, key: Key, folder: RunFolder, progress: Progress) -> Learned:
    """Train the supernet that a configuration describes, or read it from its checkpoint."""
    assert config.supernet is not None and isinstance(config.estimator, Inherited)
    settings, supernet, split = config.supernet, _build(config, dataset), _split(config, dataset)
    keys = Keys(*jax.random.split(key, len(Keys._fields)))
    budget = Budget(settings.epochs, settings.batch, settings.augment)
    constants = budget.constants(split.dataset)
    probabilities, drop = None, None
    if isinstance(config.oneshot, Posterior):
        probabilities = _prior(config, supernet, dataset, keys.prior, folder, progress)
        method = config.oneshot.make(supernet, **constants, prior=probabilities)

        def drop(state: Any) -> Array:
            return jax.nn.sigmoid(state.logits)

    else:
        method = config.oneshot.make(supernet, **constants)  # type: ignore[union-attr]
    progress.say(
        f"training the supernet {supernet.name} on {len(split.dataset.x_train)} images of {dataset.name} for "
        f"{settings.epochs} epochs: {supernet.parameters:,} parameters, {supernet.masks} masks in "
        f"{len(supernet.groups)} groups"
    )
    with progress.task("training the supernet", budget.steps(split.dataset), "steps") as advance:
        state = train_supernet(
            method, split, budget, (keys.weights, keys.training), advance, folder=folder, drop=drop,
            groups=supernet.groups,
            diverged="training the supernet: not finite at step {step}: lower oneshot.learning_rate",
        )  # fmt: skip
    learned = replace(
        supernet.space,
        moves=Moves(lambda key, n: method.sample(state, key, n), supernet.space.mutate),
    )
    estimator = _inherited(config, supernet, split, method.params(state), split.images, split.labels)
    return Learned(supernet, split, keys, method, state, learned, estimator, probabilities)


def _inherited(
    config: SearchConfig,
    supernet: Supernet,
    split: Split,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
) -> Estimator:
    assert isinstance(config.estimator, Inherited)
    return inherited(
        supernet, variables, split.dataset, images, labels,
        recalibrate=config.estimator.recalibrate, batch=config.estimator.batch,
    )  # fmt: skip


def _prior(
    config: SearchConfig,
    supernet: Supernet,
    dataset: Dataset,
    key: Key,
    folder: RunFolder,
    progress: Progress,
) -> Prior:
    """The probabilities that a posterior starts from. Theory is asked where the configuration says so."""
    assert config.supernet is not None and isinstance(config.oneshot, Posterior)
    if config.supernet.prior == "none":
        return posterior.flat_prior(supernet, config.oneshot)
    # Leave out each operation in turn, as the first round of a pruning does. `none` is not among them: the groups are
    # the others, in the same order.
    estimator = kernel_and_regions(config).make(supernet.space, dataset, apart=True)
    state = pruning.init(supernet.space)
    gates = pruning.ask(state)
    evaluator = Evaluator(estimator, supernet.space, folder.records, "prior")
    with progress.task("asking theory for a prior", len(gates), "supernets") as advance:
        values = evaluator(key, 0, Candidates(gates=gates), advance)
    _, decisions = pruning.prune(state, pruning.improvements(np.asarray(values.value), estimator.objectives))
    missed = np.array([sum(decision.ranks) for decision in decisions])
    settings = config.oneshot
    return Prior(
        *prior.informed(settings.drop_probability, settings.inclusion, missed, config.supernet.prior_strength)
    )


def record(
    config: SearchConfig,
    learned: Learned,
    explored: Any,
    dataset: Dataset,
    folder: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    """The `posterior` part of result.json: groups, candidates beside blind ones, sizes, accuracies of test images.

    explored: the `Outcome` of the search. Raises `RunError` where no candidate has a finite output.
    """
    supernet, best = learned.supernet, explored.best
    variables = learned.method.params(learned.state)
    rows = {"candidates": explored.architectures}
    accuracy = {"candidates": explored.values[:, 0]}
    if not len(explored.architectures):
        # A search by gates has evaluated no architecture.
        rows["candidates"] = best[None]
        evaluator = Evaluator(learned.estimator, supernet.space, folder.records, "best")
        accuracy["candidates"] = evaluator(jax.random.key(config.seed), 0, Candidates(best[None])).value[:, 0]
    if not np.isfinite(accuracy["candidates"]).any():
        raise RunError("no candidate has a finite output: lower oneshot.learning_rate and give another --out")

    # Blind candidates, as large as those of the posterior where masks are channels.
    count = config.compare.blind_candidates if config.compare else 0
    rows["blind"] = _blind(config, learned, count)
    evaluator = Evaluator(learned.estimator, supernet.space, folder.records, "blind")
    with progress.task("evaluating blind candidates", len(rows["blind"]), "candidates") as advance:
        blind = evaluator(jax.random.key(config.seed), 0, Candidates(rows["blind"]), advance)
    accuracy["blind"] = blind.value[:, 0]

    # The best, also after further epochs with its operations alone; then the test images.
    whole = np.ones_like(np.asarray(supernet.space.gates(best[None])))
    subjects = {
        "found": (variables, Candidates(best[None])),
        "whole supernet": (variables, Candidates(gates=whole)),
    }
    if np.isfinite(accuracy["blind"]).any():
        subjects["best blind"] = variables, Candidates(rows["blind"][int(np.argmax(accuracy["blind"]))][None])
    if config.tuning:
        tuned = _tune(config, learned, best, folder, progress)
        subjects["found, tuned"] = tuned, Candidates(best[None])
    place = int(np.argmax(accuracy["candidates"]))
    sizes = {name: candidates.parameters(supernet, own).tolist() for name, own in rows.items()}
    return {
        "groups": _groups(learned, best),
        "parameters": supernet.parameters,
        "expected_parameters": _expected_parameters(config, learned),
        "found_parameters": int(candidates.parameters(supernet, best[None])[0]),
        "found_validation": float(accuracy["candidates"][place]),
        "test": _test(config, learned, dataset, subjects, folder),
    } | {
        name: {"accuracy": np.where(np.isfinite(values), values, np.nan).tolist(), "parameters": sizes[name]}
        for name, values in accuracy.items()
    }


def _blind(config: SearchConfig, learned: Learned, count: int) -> np.ndarray:
    """Different architectures int32[., D] that know nothing of the supernet."""
    supernet = learned.supernet
    if not count:
        return np.zeros((0, len(supernet.space.decisions)), np.int32)
    if not isinstance(config.oneshot, Posterior):
        return distinct(supernet.space.sample, learned.keys.blind, count)
    gating = posterior.gating(supernet.sizes, config.oneshot.gates)
    share = candidates.equal_share(supernet, gating, learned.state.logits)
    return distinct(
        lambda key, n: candidates.blind(key, supernet, gating, share, n), learned.keys.blind, count
    )


def _groups(learned: Learned, architecture: np.ndarray) -> list[dict[str, Any]]:
    """Each group with its masks, those that the architecture int32[D] has, and the learned probability of dropping."""
    supernet = learned.supernet
    present = np.asarray(supernet.masks_of(architecture[None]))[0] > 0
    ends = np.cumsum(supernet.sizes)
    drop = np.full(len(ends), np.nan)
    if learned.prior is not None:
        drop = np.asarray(jax.nn.sigmoid(learned.state.logits), np.float64)
    return [
        {
            "name": name,
            "masks": size,
            "kept": int(present[end - size : end].sum()),
            "drop_probability": float(drop[group]),
            "inclusion": float(learned.prior.inclusion[group]) if learned.prior else float("nan"),
        }
        for group, (name, size, end) in enumerate(zip(supernet.groups, supernet.sizes, ends, strict=True))
    ]


def _expected_parameters(config: SearchConfig, learned: Learned) -> float:
    if not isinstance(config.oneshot, Posterior):
        return float("nan")
    supernet, gating = learned.supernet, posterior.gating(learned.supernet.sizes, config.oneshot.gates)
    logits = learned.state.logits[gating.group][gating.expand]
    return float(posterior.expected_parameters(logits, supernet.weights_of_mask, supernet.fixed))


def _tune(
    config: SearchConfig, learned: Learned, architecture: np.ndarray, folder: RunFolder, progress: Progress
) -> Any:
    """The variables of the supernet after further epochs with the operations of one architecture, int32[D]."""
    assert config.tuning is not None and config.supernet is not None
    budget = Budget(config.tuning.epochs, config.supernet.batch, config.supernet.augment)
    settings = Uniform(
        learning_rate=config.tuning.learning_rate,
        weight_penalty=config.oneshot.weight_penalty,  # type: ignore[union-attr]
        examples=config.oneshot.examples,  # type: ignore[union-attr]
    )
    method = fixed_path(learned.supernet, settings, learned.split, budget, architecture)
    params, statistics = learned.method.params(learned.state)
    start = jax.jit(method.init)(learned.keys.tuning)._replace(params=params, batch_stats=statistics)
    steps = budget.steps(learned.split.dataset)
    with progress.task("tuning the best candidate", steps, "steps") as advance:
        state = train_supernet(
            method, learned.split, budget, (learned.keys.tuning,) * 2, advance, stage="tuning", start=start,
            folder=folder, diverged="tuning the best candidate: not finite at step {step}: lower tuning.learning_rate",
        )  # fmt: skip
    return method.params(state)


def _test(
    config: SearchConfig,
    learned: Learned,
    dataset: Dataset,
    subjects: Mapping[str, tuple[Any, Candidates]],
    folder: RunFolder,
) -> dict[str, float]:
    """Test accuracy in percent by name, of (variables, candidate); nothing else looks at the test images."""
    tested = {}
    for place, (name, (variables, candidate)) in enumerate(subjects.items()):
        estimator = _inherited(
            config, learned.supernet, learned.split, variables, dataset.x_test, dataset.y_test
        )
        values = estimator.evaluate(jax.random.key(config.seed), candidate)
        value = float(values.value[0, 0])
        tested[name] = value if np.isfinite(value) else float("nan")
        status = "ok" if np.isfinite(value) else "not_finite"
        folder.records.add(
            [Evaluation("test", name, "test_accuracy", 0, place, tested[name], status, float(values.cost[0]))]
        )
    return tested


def of_run(path: str | Path, space: Space, progress: Progress, settings: Inherited) -> Estimator:
    """Accuracy with the weights of the supernet that a finished search in a folder trained.

    Raises `InputError` where the folder holds none, or one of another space.
    """
    if not path:
        raise InputError(
            "inherited evaluates the weights of a supernet: write inherited:RUN with the folder of a search that "
            "trained one, or add oneshot"
        )
    path = Path(path)
    read_run(path)
    if not (path / "checkpoints" / "supernet").is_dir():
        raise InputError(
            f"'{path}' holds no trained supernet: give the folder of a search with a oneshot section"
        )
    config = read.from_file(kind(), path / "config.yaml")
    if config.space != space.name or config.oneshot is None or config.supernet is None:
        raise InputError(
            f"the supernet in '{path}' is of {config.space}, the search of {space.name}: choose one space"
        )
    # Theory has no say in weights that are trained already.
    config = replace_settings(
        config, estimator=settings, supernet=replace_settings(config.supernet, prior="none")
    )
    key = jax.random.fold_in(jax.random.key(config.seed), ONESHOT)
    # A finished training has nothing to record.
    unused = cast(Records, None)
    return learn(config, datasets.load(config.data), key, RunFolder(path, unused), progress).estimator
