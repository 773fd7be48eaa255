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
from jnas.run.progress import Advance, Progress
from jnas.run.supernet_training import Budget, Split, hold_out, train_supernet
from jnas.spaces.nasbench201 import SPACE
from jnas.studies.base import COLOURS, Figure, Findings, some_rows
from jnas.studies.statistics import Statistic, interval, kendall, precision_at_top, regret, spearman
from jnas.types import Candidates, Key, OneShot

PARAMETERS = "params"
# The share of the training images that is held out, and cells that are evaluated side by side.
HELD_OUT, AT_ONCE = 0.2, 10
STATISTICS = {"kendall": kendall, "spearman": spearman, "precision": precision_at_top, "regret": regret}
# A row for each supernet, and one for each kind, of seed "mean": means over its supernets, resampled together, and the
# standard deviation of Kendall's tau over them. inherited, stand_alone: mean accuracies of the cells, in percent.
COLUMNS = (
    "score", "seed", *(f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")), "kendall_spread",
    "inherited", "stand_alone", "failed",
)  # fmt: skip


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
    if table.space != SPACE.name:
        raise InputError(f"this study trains supernets of {SPACE.name} alone, the table is of {table.space}")
    places = some_rows(table, settings.cells, config.seed)
    accuracy, cells = table.mean()[places], table.architectures[places]
    work, key = prepare(config, datasets.load(config.data)), jax.random.key(config.seed)
    steps = work.budget.steps(work.split.dataset)
    scores: dict[str, np.ndarray] = {}
    for kind in kinds:
        scores[kind] = np.zeros((len(cells), settings.seeds))
        for seed in range(settings.seeds):
            with progress.task(f"{kind} supernet {seed}: training", steps, "steps") as advance:
                variables = train(work, kind, jax.random.fold_in(key, seed), advance)
            with progress.task(f"{kind} supernet {seed}: evaluating", len(cells), "cells") as advance:
                scores[kind][:, seed] = evaluate(work, variables, key, cells, advance)
    counts = work.supernet.parameters_of(cells)[:, None].astype(float)
    compared = {**scores, PARAMETERS: counts}
    rows = [row for name in compared for row in _rows(name, compared[name], accuracy, settings.resamples)]
    return Findings(
        title=f"What the weights of a supernet say of {len(places):,} trained architectures",
        question=f"Do cells with inherited weights rank as cells that were trained alone on {config.data}?",
        columns=COLUMNS,
        rows=rows,
        summary=[row for row in rows if row[1] in ("mean", None)],
        figures=[_figure(scores, accuracy)],
        paragraphs=[_paragraph(rows, compared, accuracy, settings.resamples)],
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


def evaluate(work: Work, variables: Any, key: Key, cells: np.ndarray, advance: Advance) -> np.ndarray:
    """Percent right of the images held out, for cells int32[A, D]: float64[A], -inf where outputs are not finite."""
    split, parts = work.split, []
    estimator = inherited(
        work.supernet, variables, split.dataset, split.images, split.labels,
        recalibrate=work.recalibrate, batch=AT_ONCE,
    )  # fmt: skip
    for start in range(0, len(cells), AT_ONCE):
        part = cells[start : start + AT_ONCE]
        parts.append(np.asarray(estimator.evaluate(key, Candidates(part)).value[:, 0]))
        advance(len(part), preparing=start == 0)
    accuracy = np.concatenate(parts)
    if not np.isfinite(accuracy).any():
        raise RunError("a supernet diverged: lower oneshot.learning_rate and give another --out")
    return accuracy


def _mean(function: Statistic, cut: int | None = None) -> Statistic:
    """The mean of a statistic over the columns of scores [A, S]; that of the columns from `cut` on is subtracted."""

    def mean(scores: np.ndarray, accuracy: np.ndarray) -> float:
        values = [function(column, accuracy) for column in scores.T]
        return float(np.mean(values[:cut]) - (np.mean(values[cut:]) if cut else 0))

    return mean


def _rows(name: str, scores: np.ndarray, accuracy: np.ndarray, resamples: int) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    single = {} if name == PARAMETERS else {seed: scores[:, [seed]] for seed in range(scores.shape[1])}
    for label, part in [("mean" if single else None, scores), *single.items()]:
        numbers: list[float] = []
        for function in map(_mean, STATISTICS.values()):
            numbers += [function(part, accuracy), *interval(function, part, accuracy, resamples)]
        taus = [kendall(column, accuracy) for column in part.T]
        spread = float(np.std(taus, ddof=1)) if len(taus) > 1 else None
        level = None if name == PARAMETERS else float(part[np.isfinite(part)].mean())
        rows.append((name, label, *numbers, spread, level, float(accuracy.mean()), int(np.isinf(part).sum())))
    return rows


def _figure(scores: dict[str, np.ndarray], accuracy: np.ndarray) -> Figure:
    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(scores), sharex=True, sharey=True))
        for axes, (kind, values), mark, colour in zip(panels, scores.items(), "os", COLOURS, strict=False):
            # A mean with a failure is infinite, and has no place.
            axes.scatter(accuracy, values.mean(axis=1), s=18, marker=mark, color=colour, alpha=0.6)
            axes.axline((accuracy.mean(),) * 2, slope=1, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            tau = _mean(kendall)(values, accuracy)
            axes.set(title=f"{kind}: tau {tau:.3f}", xlabel="stand-alone test accuracy, %")
        panels[0].set_ylabel("inherited validation accuracy, %")

    caption = "A mark is a cell: the mean over supernets, as is tau. Dotted, where both accuracies are equal."
    return Figure("oneshot", caption, draw, (1.2 + 4.4 * len(scores), 4.4))


def _paragraph(rows: list[tuple], scores: dict[str, np.ndarray], accuracy: np.ndarray, resamples: int) -> str:
    whole = [dict(zip(COLUMNS, row, strict=True)) for row in rows if row[1] in ("mean", None)]
    sentences, kinds = [f"Kendall's tau with stand-alone accuracy, of {len(accuracy):,} cells."], []
    for row in sorted(whole, key=lambda row: -row["kendall"]):
        text = "{score}: {kendall:.3f} [{kendall_low:.3f}, {kendall_high:.3f}]".format(**row).capitalize()
        text += f" ± {row['kendall_spread']:.3f} over supernets" if row["kendall_spread"] else ""
        if row["score"] != PARAMETERS:
            kinds.append(row["score"])
            text += ", accuracy {inherited:.2f} % beside {stand_alone:.2f} % stand-alone".format(**row)
        sentences.append(f"{text}; choosing by it costs {row['regret']:.2f} points.")
    for one, other in combinations([*kinds, PARAMETERS], 2):
        both, difference = np.hstack([scores[one], scores[other]]), _mean(kendall, scores[one].shape[1])
        low, high = interval(difference, both, accuracy, resamples)
        said = "surely better than" if low > 0 else "surely worse than" if high < 0 else "not to be told from"
        numbers = f"difference of tau {difference(both, accuracy):+.3f} [{low:.3f}, {high:.3f}]"
        sentences.append(f"{one.capitalize()} is {said} {other}: {numbers}.")
    return " ".join(sentences)
