"""The one-shot part of a search: train a supernet, then evaluate candidates with the weights that they inherit.

The training images are split: the supernet learns from one part, candidates are chosen on the other. The test images
are looked at once, at the end. A prior from theory looks at images of both parts, without their labels.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
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
from jnas.oneshot import posterior, supernets
from jnas.oneshot.posterior import Prior
from jnas.oneshot.settings import Posterior, Uniform
from jnas.oneshot.supernets import Supernet
from jnas.proxies.base import status_of
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
    """One for each use. evaluation: has none, but keys depend on how many are split off."""

    weights: Key
    training: Key
    prior: Key
    blind: Key
    tuning: Key
    evaluation: Key


class Setup(NamedTuple):
    """A supernet before its training.

    dataset: all images; split: its training images in two.
    theory: the estimator that a prior from theory asks; None without one.
    """

    dataset: Dataset
    supernet: Supernet
    split: Split
    budget: Budget
    theory: Estimator | None


class Learned(NamedTuple):
    """A trained supernet.

    space: of its architectures; `sample` draws what the method learned.
    inherit: (variables, images=, labels=) -> estimator of the accuracy on these images.
    estimator: accuracy on the held-out images with inherited weights.
    prior: the probabilities that a posterior started from; None for other methods.
    """

    setup: Setup
    keys: Keys
    method: OneShot
    state: Any
    space: Space
    inherit: Callable[..., Estimator]
    estimator: Estimator
    prior: Prior | None


def prepare(config: SearchConfig, dataset: Dataset) -> Setup:
    """The supernet of a one-shot search. Raises `InputError` for a search that cannot be run."""
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
    setup = _setup(config, dataset)
    images = len(setup.split.dataset.x_train)
    counts = {"supernet.batch": config.supernet.batch, "estimator.recalibrate": config.estimator.recalibrate}
    for name, count in counts.items():
        if count > images:
            raise InputError(
                f"{name} {count} does not fit: '{dataset.name}' leaves {images} images to train on; lower {name} or "
                "supernet.validation"
            )
    return setup


def _setup(config: SearchConfig, dataset: Dataset) -> Setup:
    settings = config.supernet
    assert settings is not None
    height, width, channels = dataset.x_train.shape[1:]
    make, size = supernets.SUPERNETS[config.space], settings.width or supernets.SMALL_WIDTHS[config.space]
    supernet = make((height, width, channels), dataset.classes, size, settings.depth)
    split = hold_out(dataset, config.seed, settings.validation)
    theory = None
    if settings.prior != "none":
        theory = kernel_and_regions(config).make(supernet.space, dataset, apart=True)
    budget = Budget(settings.epochs, settings.batch, settings.augment)
    return Setup(dataset, supernet, split, budget, theory)


def learn(config: SearchConfig, setup: Setup, folder: RunFolder, progress: Progress) -> Learned:
    """Train the supernet that a configuration describes, or read it from its checkpoint."""
    assert isinstance(config.estimator, Inherited)
    _, supernet, split, budget, _ = setup
    key = jax.random.fold_in(jax.random.key(config.seed), ONESHOT)
    keys = Keys(*jax.random.split(key, len(Keys._fields)))
    constants = budget.constants(split.dataset)
    probabilities, drop = None, None
    if isinstance(config.oneshot, Posterior):
        probabilities = constants["prior"] = _prior(config, setup, keys.prior, folder, progress)
        drop = _drop
    method = config.oneshot.make(supernet, **constants)  # type: ignore[union-attr]
    progress.say(
        f"training the supernet {supernet.name} on {len(split.dataset.x_train)} images of {split.dataset.name} for "
        f"{budget.epochs} epochs: {supernet.parameters:,} parameters, {supernet.masks} masks in "
        f"{len(supernet.groups)} groups"
    )
    with progress.task("training the supernet", budget.steps(split.dataset), "steps") as advance:
        state = train_supernet(
            method, split, budget, (keys.weights, keys.training), advance, folder=folder, drop=drop,
            groups=supernet.groups,
            diverged="training the supernet: not finite at step {step}: lower oneshot.learning_rate",
        )  # fmt: skip
    draws = Moves(lambda key, n: method.sample(state, key, n), supernet.space.mutate)
    inherit = partial(
        inherited, supernet, dataset=split.dataset, recalibrate=config.estimator.recalibrate,
        batch=config.estimator.batch,
    )  # fmt: skip
    estimator = inherit(method.params(state), images=split.images, labels=split.labels)
    space = replace(supernet.space, moves=draws)
    return Learned(setup, keys, method, state, space, inherit, estimator, probabilities)


def _drop(state: Any) -> Array:
    """The drop probability of each group, [G], in the state of a posterior."""
    return jax.nn.sigmoid(state.logits)


def _prior(config: SearchConfig, setup: Setup, key: Key, folder: RunFolder, progress: Progress) -> Prior:
    """The probabilities that a posterior starts from. Theory is asked where the configuration says so."""
    settings, estimator, space = config.oneshot, setup.theory, setup.supernet.space
    assert config.supernet is not None and isinstance(settings, Posterior)
    if estimator is None:
        return posterior.flat_prior(setup.supernet, settings)
    # Leave out each operation in turn, as the first round of a pruning does. `none` is not among them: the groups are
    # the others, in the same order.
    state = pruning.init(space)
    gates = pruning.ask(state)
    evaluator = Evaluator(estimator, space, folder.records, "prior")
    with progress.task("asking theory for a prior", len(gates), "supernets") as advance:
        values = evaluator(key, 0, Candidates(gates=gates), advance)
    _, decisions = pruning.prune(state, pruning.improvements(np.asarray(values.value), estimator.objectives))
    missed = np.array([sum(decision.ranks) for decision in decisions])
    strength = config.supernet.prior_strength
    return posterior.informed(settings.drop_probability, settings.inclusion, missed, strength)


def record(
    config: SearchConfig, learned: Learned, explored: Any, folder: RunFolder, progress: Progress
) -> dict[str, Any]:
    """The `posterior` part of result.json: groups, candidates beside blind ones, sizes, accuracies of test images.

    explored: the `Outcome` of the search. Raises `RunError` where no candidate has a finite output.
    """
    supernet, best, key = learned.setup.supernet, explored.best, jax.random.key(config.seed)
    rows = {"candidates": explored.architectures}
    accuracy = {"candidates": explored.values[:, 0]}
    if not len(explored.architectures):
        # A search by gates has evaluated no architecture.
        rows["candidates"] = best[None]
        evaluator = Evaluator(learned.estimator, supernet.space, folder.records, "best")
        accuracy["candidates"] = evaluator(key, 0, Candidates(best[None])).value[:, 0]
    if not np.isfinite(accuracy["candidates"]).any():
        raise RunError("no candidate has a finite output: lower oneshot.learning_rate and give another --out")

    # Blind candidates, as large as those of the posterior where masks are channels.
    draw: Callable[[Key, int], Any] = supernet.space.sample
    expected = float("nan")
    if isinstance(config.oneshot, Posterior):
        logits, gating = learned.state.logits, posterior.gating(supernet.sizes, config.oneshot.gates)
        share = posterior.equal_share(supernet, gating, logits)
        of_masks = logits[gating.group][gating.expand]
        expected = float(posterior.expected_parameters(of_masks, supernet.weights_of_mask, supernet.fixed))

        def blind(key: Key, n: int) -> np.ndarray:
            return posterior.blind(key, supernet, gating, share, n)

        draw = blind
    count = config.compare.blind_candidates if config.compare else 0
    rows["blind"] = distinct(draw, learned.keys.blind, count) if count else explored.architectures[:0]
    evaluator = Evaluator(learned.estimator, supernet.space, folder.records, "blind")
    with progress.task("evaluating blind candidates", len(rows["blind"]), "candidates") as advance:
        accuracy["blind"] = evaluator(key, 0, Candidates(rows["blind"]), advance).value[:, 0]

    # The best, also after further epochs with its operations alone; then the test images.
    variables = learned.method.params(learned.state)
    whole = np.ones_like(np.asarray(supernet.space.gates(best[None])))
    subjects = {
        "found": (variables, Candidates(best[None])),
        "whole supernet": (variables, Candidates(gates=whole)),
    }
    if np.isfinite(accuracy["blind"]).any():
        subjects["best blind"] = variables, Candidates(rows["blind"][int(np.argmax(accuracy["blind"]))][None])
    if config.tuning:
        subjects["found, tuned"] = _tune(config, learned, best, folder, progress), Candidates(best[None])
    return {
        "groups": _groups(learned, best),
        "parameters": supernet.parameters,
        "expected_parameters": expected,
        "found_parameters": int(supernet.parameters_of(best[None])[0]),
        "found_validation": float(accuracy["candidates"].max()),
        "test": _test(config, learned, subjects, folder),
    } | {
        name: {
            "accuracy": np.where(np.isfinite(values), values, np.nan).tolist(),
            "parameters": supernet.parameters_of(rows[name]).tolist(),
        }
        for name, values in accuracy.items()
    }


def _groups(learned: Learned, architecture: np.ndarray) -> list[dict[str, Any]]:
    """Each group with its masks, those that the architecture int32[D] has, and the learned probability of dropping."""
    supernet = learned.setup.supernet
    present = np.asarray(supernet.masks_of(architecture[None]))[0] > 0
    drop = inclusion = np.full(len(supernet.groups), np.nan)
    if learned.prior is not None:
        drop, inclusion = np.asarray(_drop(learned.state), np.float64), learned.prior.inclusion
    parts = np.split(present, np.cumsum(supernet.sizes)[:-1])
    return [
        {
            "name": name,
            "masks": len(part),
            "kept": int(part.sum()),
            "drop_probability": float(dropped),
            "inclusion": float(included),
        }
        for name, part, dropped, included in zip(supernet.groups, parts, drop, inclusion, strict=True)
    ]


def _tune(
    config: SearchConfig, learned: Learned, architecture: np.ndarray, folder: RunFolder, progress: Progress
) -> Any:
    """The variables of the supernet after further epochs with the operations of one architecture, int32[D]."""
    assert config.tuning is not None
    split, budget = learned.setup.split, learned.setup.budget._replace(epochs=config.tuning.epochs)
    settings = Uniform(
        learning_rate=config.tuning.learning_rate,
        weight_penalty=config.oneshot.weight_penalty,  # type: ignore[union-attr]
        examples=config.oneshot.examples,  # type: ignore[union-attr]
    )
    method = fixed_path(learned.setup.supernet, settings, split, budget, architecture)
    params, statistics = learned.method.params(learned.state)
    start = jax.jit(method.init)(learned.keys.tuning)._replace(params=params, batch_stats=statistics)
    with progress.task("tuning the best candidate", budget.steps(split.dataset), "steps") as advance:
        state = train_supernet(
            method, split, budget, (learned.keys.tuning,) * 2, advance, stage="tuning", start=start,
            folder=folder, diverged="tuning the best candidate: not finite at step {step}: lower tuning.learning_rate",
        )  # fmt: skip
    return method.params(state)


def _test(
    config: SearchConfig,
    learned: Learned,
    subjects: Mapping[str, tuple[Any, Candidates]],
    folder: RunFolder,
) -> dict[str, float]:
    """Test accuracy in percent by name, of (variables, candidate); nothing else looks at the test images."""
    dataset, known = learned.setup.dataset, folder.records.values("test")
    for place, (name, (variables, candidate)) in enumerate(subjects.items()):
        if (name, "test_accuracy") not in known:
            estimator = learned.inherit(variables, images=dataset.x_test, labels=dataset.y_test)
            values = estimator.evaluate(jax.random.key(config.seed), candidate)
            value = float(values.value[0, 0]) if np.isfinite(values.value[0, 0]) else float("nan")
            evaluation = Evaluation(
                "test", name, "test_accuracy", 0, place, value, status_of(value), float(values.cost[0])
            )
            folder.records.add([evaluation])
            known[name, "test_accuracy"] = evaluation
    return {name: known[name, "test_accuracy"].value for name in subjects}


def of_run(settings: Inherited, space: Space) -> Estimator:
    """Accuracy with the weights of the supernet that a finished search, `settings.run`, trained.

    Raises `InputError` where the folder holds none, or one of another space.
    """
    if not settings.run:
        raise InputError(
            "inherited evaluates the weights of a supernet: write inherited:RUN with the folder of a search that "
            "trained one, or add oneshot"
        )
    path = Path(settings.run)
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
    # Theory has no say in weights that are trained already, and a finished training has nothing to record.
    supernet = replace_settings(config.supernet, prior="none")
    config = replace_settings(config, estimator=settings, supernet=supernet)
    folder = RunFolder(path, cast(Records, None))
    setup = _setup(config, datasets.load(config.data))
    return learn(config, setup, folder, Progress(quiet=True)).estimator
