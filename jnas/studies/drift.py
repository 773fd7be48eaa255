"""The neural tangent kernel before and after training, and the ranking of architectures by it.

Cells of the table train with batch normalisation. At some epochs the study takes the exact kernel Theta_t of the summed
logits on the same training images, with the statistics of their batch, and measures its relative change
||Theta_t - Theta_0|| / ||Theta_0||, its alignment with the labels (`jnas.proxies.ntk_spectrum.alignment`) and its
condition number. The scores rank the cells, whose accuracies in the table come from other trainings than these.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnas import data as datasets
from jnas import spaces
from jnas.config.read import whole_numbers
from jnas.config.study import StudyConfig
from jnas.errors import InputError
from jnas.estimators import batch_training
from jnas.estimators.compact_table import Table
from jnas.proxies.ntk import condition_number
from jnas.proxies.ntk_spectrum import alignment
from jnas.report.plots import INK
from jnas.run.progress import Progress
from jnas.spaces import nasbench201
from jnas.studies import base, statistics
from jnas.studies.base import COLOURS, Figure, Findings
from jnas.studies.statistics import Estimate
from jnas.theory import empirical_ntk

# Cells trained in one call: few, so that progress shows and an interruption waits little.
CHUNK = 10
# Measured fields, and their names in the figure.
MEASURED = {
    "kernel_change": "relative change of the NTK",
    "alignment": "alignment with the labels",
    "condition_number": "condition number",
}
# Field and direction of the scores that rank cells.
SCORES = {"condition number": ("condition_number", -1), "alignment": ("alignment", 1)}


class Row(NamedTuple):
    """Kernel of one cell after some epochs.

    accuracy: in the table, in percent.
    own_accuracy: after these epochs, in percent.
    kernel_change, alignment, condition_number: of the kernel, nan where it is not finite.
    """

    architecture: str
    accuracy: float
    epoch: int
    own_accuracy: float
    kernel_change: float
    alignment: float
    condition_number: float


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Train some cells and take their kernels. Raises `InputError` for too few images or other epochs."""
    settings, dataset = config.drift, datasets.load(config.data)
    epochs = whole_numbers(settings.epochs, "drift.epochs", 0)
    if epochs[0] != 0 or len(epochs) < 2:
        raise InputError(f"drift.epochs is '{settings.epochs}': give 0, before training, and later epochs")
    # The network that trains a batch of cells is NAS-Bench-201's.
    base.require_space(table, nasbench201.SPACE.name)
    if max(settings.images, settings.batch) > len(dataset.x_train):
        raise InputError(
            f"batch {settings.batch} and {settings.images} images do not fit: {config.data} has "
            f"{len(dataset.x_train)} images to train on"
        )
    cells = base.some_cells(table, settings.cells, config.seed)
    images, labels = base.probe_images(config, settings.images)
    observe = _kernel_taker(images.tobytes(), images.shape)
    choices = np.asarray(spaces.get(table.space).choices(cells.architectures), np.int32)

    # Train them, and measure each kernel against that before training.
    rows: list[Row] = []
    with progress.task("training", len(choices), "cells") as advance:
        for start in range(0, len(choices), CHUNK):
            reached, kernels = batch_training.observations(
                jax.random.key(config.seed), choices[start : start + CHUNK], dataset,
                epochs=epochs[-1], batch=settings.batch, learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay, channels=settings.channels,
                cells_per_stage=settings.cells_per_stage, stages=settings.stages, observe_at=epochs, observe=observe,
            )  # fmt: skip
            for cell, (curve, each) in enumerate(
                zip(reached, kernels.astype(np.float64), strict=True), start
            ):
                head, length = (cells.names[cell], float(cells.accuracy[cell])), np.linalg.norm(each[0])
                for epoch, accuracy, kernel in zip(epochs, curve, each, strict=True):
                    usable = bool(np.isfinite(kernel).all()) and np.trace(kernel) > 0
                    change = np.linalg.norm(kernel - each[0]) / length if usable and length > 0 else np.nan
                    aligned = alignment(kernel, labels) if usable else float("nan")
                    condition = condition_number(kernel)[0]
                    rows.append(Row(*head, epoch, float(accuracy), float(change), aligned, condition))
            advance(len(reached))

    # Rank them at each epoch; counting convolutions needs no training.
    def rank(scores: np.ndarray) -> Estimate:
        oriented = np.where(np.isfinite(scores), scores, -np.inf)
        return statistics.with_interval(statistics.kendall, oriented, cells.accuracy, settings.resamples)

    measured = {
        field: np.reshape([getattr(row, field) for row in rows], (-1, len(epochs))) for field in MEASURED
    }
    ranks = {
        name: [rank(sign * column) for column in measured[field].T] for name, (field, sign) in SCORES.items()
    }
    counting = rank(base.convolutions(table, cells.architectures))
    return Findings(
        title=f"Kernels of {len(choices)} cells of {table.space} before and after training",
        question=f"How far does the neural tangent kernel move in {epochs[-1]} epochs on {config.data}, and does it "
        "rank architectures better before training or after?",
        columns=Row._fields,
        rows=rows,
        summary=rows[: 6 * len(epochs)],
        figures=[_drift_figure(measured, epochs), _rank_figure(ranks, counting, epochs)],
        paragraphs=[_paragraph(measured, epochs[-1], ranks, counting)],
    )


@cache
def _kernel_taker(content: bytes, shape: tuple[int, ...]) -> batch_training.Observe:
    """Kernel of a network on these images. One function a set of images, since a program is compiled for each."""
    images = jnp.asarray(np.frombuffer(content, np.float32).reshape(shape))

    def kernel(network: Any, params: Any, choice: jax.Array) -> jax.Array:
        rows = empirical_ntk.jacobian(
            lambda params, images: network.apply({"params": params}, images, choice),
            params, images, statistics="train", channels=network.channels,
        )  # fmt: skip
        return empirical_ntk.kernel_of(rows, "sum")

    return kernel


def _quartiles(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    # Without a finite value there is no quartile; ones keep the axes drawable.
    return np.percentile(finite, [25, 50, 75]) if len(finite) else np.ones(3)


def _drift_figure(measured: dict[str, np.ndarray], epochs: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 3)
        for axes, (field, name), colour in zip(panels, MEASURED.items(), COLOURS, strict=False):
            low, middle, high = np.array([_quartiles(column) for column in measured[field].T]).T
            axes.plot(epochs, middle, marker="o", color=colour)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.set_xticks(epochs)
            axes.set(xlabel="epochs trained", ylabel=name)
        panels[2].set_yscale("log")

    return Figure("drift", "Median over cells, bands from quartile to quartile.", draw, (10.6, 3.6))


def _rank_figure(ranks: dict[str, list[Estimate]], counting: Estimate, epochs: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for number, (name, estimates) in enumerate(ranks.items()):
            tau, low, high = np.array(estimates).T
            # Shifted, so that intervals do not hide one another.
            places = np.arange(len(epochs)) + 0.08 * (2 * number - 1)
            axes.errorbar(
                places, tau, [tau - low, high - tau], marker="os"[number], capsize=3, color=COLOURS[number], label=name
            )  # fmt: skip
        axes.axhspan(counting.low, counting.high, color=INK, alpha=0.12, linewidth=0)
        axes.axhline(counting.value, color=INK, linestyle="--", linewidth=1, label="counting convolutions")
        axes.set_xticks(range(len(epochs)), [str(epoch) for epoch in epochs])
        axes.set_xlabel("epochs trained before the kernel was taken")
        axes.set_ylabel("Kendall's tau with accuracy")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)

    caption = "With 95 % bootstrap intervals over architectures."
    return Figure("ranks", caption, draw, (7.2, 4.2))


def _paragraph(
    measured: dict[str, np.ndarray], last: int, ranks: dict[str, list[Estimate]], counting: Estimate
) -> str:
    change, aligned, condition = (
        [_quartiles(column)[1] for column in measured[field].T] for field in MEASURED
    )
    sentences = [
        f"In {last} epochs the kernel of the median cell moves by {change[-1]:.2f} of its norm, its alignment with the "
        f"labels from {aligned[0]:.3f} to {aligned[-1]:.3f}, its condition number from {condition[0]:.0f} to "
        f"{condition[-1]:.0f}."
    ]
    for name, (before, *_, after) in ranks.items():
        verdict = "ranks as well before as after, within the intervals"
        if after.differs(before):
            better = "after training" if after.value > before.value else "at initialisation"
            verdict = f"ranks better {better}"
        sentences.append(
            f"The {name} {verdict}: tau {before} at initialisation, {after} after {last} epochs."
        )
    return " ".join([*sentences, f"Counting convolutions has {counting}."])
