"""Accuracy with inherited weights against stand-alone accuracy: does a supernet rank cells as training each does?

Supernets are trained with one uniform path a batch (Single Path One-Shot, Guo et al., ECCV 2020,
https://arxiv.org/abs/1904.00420), or as posteriors over architecture and weights (`jnas.oneshot.posterior`), with the
same budget. Cells of the table are evaluated with the weights they inherit, on training images held out; test images
speak through the table alone. Beside both, counting parameters. Letters: A cells, S supernets of a kind.
"""

from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

from jnas import data as datasets
from jnas.config.study import StudyConfig
from jnas.errors import InputError, RunError, unknown_name
from jnas.estimators.compact_table import Table
from jnas.estimators.inherited import inherited
from jnas.oneshot import METHODS
from jnas.oneshot.settings import Posterior, Uniform
from jnas.oneshot.supernets import Supernet, nasbench201_supernet
from jnas.report.plots import INK
from jnas.run.evaluate import Evaluator
from jnas.run.progress import Advance, Progress
from jnas.run.supernet_training import Budget, Split, hold_out, train_supernet
from jnas.spaces.nasbench201 import SPACE
from jnas.studies.base import COLOURS, Figure, Findings, require_space, some_cells, spread
from jnas.studies.statistics import Ranking, kendall, ranking, with_interval
from jnas.types import Candidates, Key, OneShot

PARAMETERS = "params"
# The share of the training images that is held out, and cells that are evaluated side by side.
HELD_OUT, AT_ONCE = 0.2, 10


class Row(NamedTuple):
    """A supernet, or all of a kind.

    seed: of the supernet; "mean" for the means over all of a kind, resampled together; None for the parameters.
    kendall_spread: standard deviation of Kendall's tau over supernets.
    inherited, stand_alone: mean accuracies of the cells, in percent.
    failed: cells without an accuracy.
    """

    score: str
    seed: int | str | None
    ranking: Ranking
    kendall_spread: float | None
    inherited: float | None
    stand_alone: float
    failed: int


class Work(NamedTuple):
    """Parts that all supernets share; methods: by the kind of supernet."""

    supernet: Supernet
    split: Split
    budget: Budget
    methods: dict[str, OneShot]
    recalibrate: int


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Train, evaluate, compare. Raises `InputError` for what does not fit, `RunError` where a training diverges."""
    settings = config.oneshot
    kinds = list(dict.fromkeys(name.strip() for name in settings.supernets.split(",")))
    if unknown := [name for name in kinds if name not in METHODS]:
        raise unknown_name("supernet", unknown[0], METHODS)
    require_space(table, SPACE.name)
    cells = some_cells(table, settings.cells, config.seed)
    work, key = prepare(config, datasets.load(config.data)), jax.random.key(config.seed)
    steps = work.budget.steps(work.split.dataset)
    scores: dict[str, np.ndarray] = {}
    for kind in kinds:
        by_seed = []
        for seed in range(settings.seeds):
            with progress.task(f"{kind} supernet {seed}: training", steps, "steps") as advance:
                variables = train(work, kind, jax.random.fold_in(key, seed), advance)
            with progress.task(f"{kind} supernet {seed}: evaluating", len(cells.names), "cells") as advance:
                by_seed.append(accuracies(work, variables, key, cells.architectures, advance))
        scores[kind] = np.stack(by_seed, axis=1)
    counts = work.supernet.parameters_of(cells.architectures)[:, None].astype(float)
    compared = {**scores, PARAMETERS: counts}
    rows = [
        row for name in compared for row in _rows(name, compared[name], cells.accuracy, settings.resamples)
    ]
    columns, flat = spread(rows)
    whole = [row for row in rows if row.seed in ("mean", None)]
    return Findings(
        title=f"What the weights of a supernet say of {len(cells.names):,} trained architectures",
        question=f"Do cells with inherited weights rank as cells that were trained alone on {config.data}?",
        columns=columns,
        rows=flat,
        summary=spread(whole)[1],
        figures=[_figure(scores, cells.accuracy, whole)],
        paragraphs=[_paragraph(whole, compared, cells.accuracy, settings.resamples)],
    )


def prepare(config: StudyConfig, dataset: datasets.Dataset) -> Work:
    """The supernet, the split of the images and the methods. Raises `InputError`."""
    settings, image = config.oneshot, dataset.x_train.shape[1:]
    split = hold_out(dataset, config.seed, HELD_OUT)
    count = len(split.dataset.x_train)
    if max(settings.batch, settings.recalibrate) > count:
        raise InputError(f"oneshot.batch or recalibrate does not fit: {count} images are left to train on")
    supernet = nasbench201_supernet(
        (image[0], image[1], image[2]), dataset.classes, settings.channels, settings.cells_per_stage, settings.stages
    )  # fmt: skip
    budget = Budget(settings.epochs, settings.batch, augment=True)
    constants = budget.constants(split.dataset)
    methods = {
        "uniform": Uniform(
            learning_rate=settings.learning_rate, weight_penalty=settings.weight_penalty
        ).make(supernet, **constants),
        "posterior": Posterior(
            learning_rate=settings.learning_rate, weight_penalty=settings.weight_penalty, gates="group",
            logits_rate=settings.logits_rate, drop_probability=settings.drop_probability,
        ).make(supernet, **constants),
    }  # fmt: skip
    return Work(supernet, split, budget, methods, settings.recalibrate)


def train(work: Work, kind: str, key: Key, advance: Advance) -> Any:
    """Variables of a supernet; with one key, kinds start from one draw of weights and see the same batches."""
    weights_key, training_key = jax.random.split(key)
    method = work.methods[kind]
    return method.params(
        train_supernet(method, work.split, work.budget, (weights_key, training_key), advance)
    )


def accuracies(work: Work, variables: Any, key: Key, cells: np.ndarray, advance: Advance) -> np.ndarray:
    """Percent right of the images held out, for cells int32[A, D]: float64[A], -inf where outputs are not finite."""
    split = work.split
    estimator = inherited(
        work.supernet, variables, split.dataset, split.images, split.labels,
        recalibrate=work.recalibrate, batch=AT_ONCE,
    )  # fmt: skip
    evaluate = Evaluator(estimator, SPACE, None, "oneshot")
    accuracy = np.asarray(evaluate(key, 0, Candidates(cells), advance).value[:, 0])
    if not np.isfinite(accuracy).any():
        raise RunError("a supernet diverged: lower oneshot.learning_rate and give another --out")
    return accuracy


def _rows(name: str, scores: np.ndarray, accuracy: np.ndarray, resamples: int) -> list[Row]:
    if name == PARAMETERS:
        return [Row(name, None, ranking(scores, accuracy, resamples), None, None, float(accuracy.mean()), 0)]
    parts: list[tuple[int | str, np.ndarray]] = [("mean", scores)]
    parts += enumerate(scores.T[:, :, None])
    rows = []
    for seed, part in parts:
        taus = [kendall(column, accuracy) for column in part.T]
        rows.append(
            Row(
                name, seed, ranking(part, accuracy, resamples), float(np.std(taus, ddof=1)) if len(taus) > 1 else None,
                float(part[np.isfinite(part)].mean()), float(accuracy.mean()), int(np.isinf(part).sum()),
            )
        )  # fmt: skip
    return rows


def _figure(scores: dict[str, np.ndarray], accuracy: np.ndarray, rows: list[Row]) -> Figure:
    taus = {row.score: row.ranking.kendall.value for row in rows}

    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(scores), sharex=True, sharey=True))
        for axes, (kind, values), mark, colour in zip(panels, scores.items(), "os", COLOURS, strict=False):
            # A mean with a failure is infinite, and has no place.
            axes.scatter(accuracy, values.mean(axis=1), s=18, marker=mark, color=colour, alpha=0.6)
            axes.axline((accuracy.mean(),) * 2, slope=1, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            axes.set(title=f"{kind}: tau {taus[kind]:.3f}", xlabel="stand-alone test accuracy, %")
        panels[0].set_ylabel("inherited validation accuracy, %")

    caption = "A mark is a cell: the mean over supernets, as is tau. Dotted, where both accuracies are equal."
    return Figure("oneshot", caption, draw, (1.2 + 4.4 * len(scores), 4.4))


def _paragraph(rows: list[Row], scores: dict[str, np.ndarray], accuracy: np.ndarray, resamples: int) -> str:
    sentences, kinds = [f"Kendall's tau with stand-alone accuracy, of {len(accuracy):,} cells."], []
    for row in sorted(rows, key=lambda row: -row.ranking.kendall.value):
        text = f"{row.score}: {row.ranking.kendall}".capitalize()
        text += f" ± {row.kendall_spread:.3f} over supernets" if row.kendall_spread else ""
        if row.score != PARAMETERS:
            kinds.append(row.score)
            text += f", accuracy {row.inherited:.2f} % beside {row.stand_alone:.2f} % stand-alone"
        sentences.append(f"{text}; choosing by it costs {row.ranking.regret.value:.2f} points.")
    for one, other in combinations([*kinds, PARAMETERS], 2):
        both, cut = np.hstack([scores[one], scores[other]]), scores[one].shape[1]

        def difference(both: np.ndarray, accuracy: np.ndarray, cut: int = cut) -> float:
            taus = [kendall(column, accuracy) for column in both.T]
            return float(np.mean(taus[:cut]) - np.mean(taus[cut:]))

        tau, low, high = with_interval(difference, both, accuracy, resamples)
        verdict = (
            "surely better than" if low > 0 else "surely worse than" if high < 0 else "not to be told from"
        )
        numbers = f"difference of tau {tau:+.3f} [{low:.3f}, {high:.3f}]"
        sentences.append(f"{one.capitalize()} is {verdict} {other}: {numbers}.")
    return " ".join(sentences)
