"""Accuracy with inherited weights against stand-alone accuracy: does a supernet rank cells as training each does?

Supernets are trained with one uniform path a batch (Single Path One-Shot, Guo et al., ECCV 2020,
https://arxiv.org/abs/1904.00420), or as posteriors over architecture and weights (`jnas.oneshot.posterior`), with the
same budget. Cells of the table are evaluated with the weights they inherit, on training images held out; test images
speak through the table alone. Beside both, counting parameters. Letters: A cells, S supernets of a kind.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import jax
import numpy as np
from jax import Array

from jnas import data as datasets
from jnas.config.old_search import from_mapping
from jnas.config.study import StudyConfig
from jnas.errors import InputError, RunError, unknown_name
from jnas.estimators.compact_table import Table
from jnas.oneshot import candidates, posterior
from jnas.oneshot.supernets import nasbench201_supernet
from jnas.oneshot.training import SupernetState
from jnas.report.plots import INK
from jnas.run import posterior_search, supernet_training
from jnas.run.progress import Advance, Progress
from jnas.run.supernet_training import Work
from jnas.spaces.nasbench201 import SPACE
from jnas.studies.base import COLOURS, Figure, Findings, some_rows
from jnas.studies.statistics import Statistic, interval, kendall, precision_at_top, regret, spearman

KINDS, PARAMETERS = ("uniform", "posterior"), "params"
STATISTICS = {"kendall": kendall, "spearman": spearman, "precision": precision_at_top, "regret": regret}
# A row for each supernet, and one for each kind, of seed "mean": means over its supernets, resampled together, and the
# standard deviation of Kendall's tau over them. inherited, stand_alone: mean accuracies of the cells, in percent.
COLUMNS = (
    "score", "seed", *(f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")), "kendall_spread",
    "inherited", "stand_alone", "failed",
)  # fmt: skip
# What the section `posterior` of a search calls alike.
SHARED = "epochs batch learning_rate logits_rate weight_penalty drop_probability recalibrate"


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Train, evaluate, compare. Raises `InputError` for what does not fit, `RunError` where a training diverges."""
    settings = config.oneshot
    kinds = list(dict.fromkeys(name.strip() for name in settings.supernets.split(",")))
    if unknown := [name for name in kinds if name not in KINDS]:
        raise unknown_name("supernet", unknown[0], KINDS)
    if table.space != SPACE.name:
        raise InputError(f"this study trains supernets of {SPACE.name} alone, the table is of {table.space}")
    places = some_rows(table, settings.cells, config.seed)
    accuracy = table.mean()[places]
    work, evaluate = prepare(config, datasets.load(config.data))
    kept = candidates.masks_of_cells(work.supernet, table.architectures[places])
    scores: dict[str, np.ndarray] = {}
    for kind in kinds:
        scores[kind] = np.zeros((len(kept), settings.seeds))
        for seed in range(settings.seeds):
            with progress.task(f"{kind} supernet {seed}: training", settings.epochs, "epochs") as advance:
                state = train(work, kind, jax.random.fold_in(jax.random.key(config.seed), seed), advance)
            with progress.task(f"{kind} supernet {seed}: evaluating", len(kept), "cells") as advance:
                scores[kind][:, seed] = inherited(work, state, evaluate, kept, advance)
    counts = candidates.parameters_of(work.supernet, work.gating, kept)[:, None].astype(float)
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


def prepare(config: StudyConfig, dataset: datasets.Dataset) -> tuple[Work, Callable[..., np.ndarray]]:
    """What all supernets share, the split of the images in it, and `candidates.evaluator`. Raises `InputError`."""
    settings = config.oneshot
    shared = {name: getattr(settings, name) for name in SHARED.split()}
    search = from_mapping({"seed": config.seed, "posterior": shared})
    split, (height, width, planes) = posterior_search.hold_out(search, dataset), dataset.x_train.shape[1:]
    count = len(split.dataset.x_train)
    if max(settings.batch, settings.recalibrate) > count:
        raise InputError(f"oneshot.batch or recalibrate does not fit: {count} images are left to train on")
    sizes = settings.channels, settings.cells_per_stage, settings.stages
    supernet = nasbench201_supernet((height, width, planes), dataset.classes, *sizes)
    gating, inclusion = posterior.gating(supernet.sizes, "group"), search.posterior.inclusion
    work = Work(search.posterior, supernet, gating, split, np.full(len(supernet.groups), inclusion))
    return work, posterior_search.evaluator(work, jax.random.key(config.seed))


def train(work: Work, kind: str, key: Array, advance: Advance) -> SupernetState:
    """A supernet of a kind in `KINDS`; with one key, kinds start from one draw of weights and see the same batches."""
    # Without a draw of their own, masks are the posterior's.
    draws = {"uniform": lambda key, images: SPACE.gates(SPACE.sample(key, 1))[..., 1:].reshape(1, -1)}
    weights_key, training_key = jax.random.split(key)
    logits = posterior.logits_of(np.full(len(work.supernet.groups), work.settings.drop_probability))
    trainer = supernet_training.make_trainer(work, training_key, logits, draw=draws.get(kind))
    state = trainer.init(weights_key)
    for number in range(work.settings.epochs):
        state, _ = trainer.epoch(state, number)
        advance(1, preparing=number == 0)
    return state


def inherited(
    work: Work, state: SupernetState, evaluate: Callable[..., np.ndarray], kept: np.ndarray, advance: Advance
) -> np.ndarray:
    """Of cells bool[A, D] the percent right of the images held out: float64[A], -inf where outputs are not finite."""
    count, parts = work.settings.at_once, []
    for start in range(0, len(kept), count):
        # Filled up, so that one program serves all.
        chunk = kept[(start + np.arange(count)) % len(kept)]
        parts.append(evaluate(state.params, state.batch_stats, chunk, work.split.images, work.split.labels))
        advance(min(count, len(kept) - start), preparing=start == 0)
    accuracy = np.concatenate(parts)[: len(kept)]
    if not np.isfinite(accuracy).any():
        raise RunError("a supernet diverged: lower oneshot.learning_rate and give another --out")
    return np.where(np.isfinite(accuracy), accuracy, -np.inf)


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
