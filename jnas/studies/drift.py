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
import numpy as np

from jnas import data as datasets
from jnas import spaces
from jnas.config.read import whole_numbers
from jnas.config.study import StudyConfig
from jnas.errors import InputError
from jnas.estimators import batch_training
from jnas.estimators.compact_table import Table
from jnas.parallel import filled
from jnas.proxies.ntk import condition_number
from jnas.proxies.ntk_spectrum import alignment
from jnas.report.plots import INK
from jnas.run.progress import Progress
from jnas.spaces import nasbench201
from jnas.studies import statistics
from jnas.studies.base import COLOURS, Figure, Findings, convolutions, probe_images, require_space, some_rows
from jnas.theory import empirical_ntk

# Cells trained in one call: few, so that progress shows and an interruption waits little.
CHUNK = 10
# Field and direction of the scores that rank cells.
SCORES = {"condition number": ("condition_number", -1), "alignment": ("alignment", 1)}
# Kendall's tau and its interval.
Tau = tuple[float, float, float]


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
    require_space(table, nasbench201.SPACE.name)
    if max(settings.images, settings.batch) > len(dataset.x_train):
        raise InputError(
            f"batch {settings.batch} and {settings.images} images do not fit: {config.data} has "
            f"{len(dataset.x_train)} images to train on"
        )
    accuracy, space = table.mean(), spaces.get(table.space)
    places = some_rows(table, settings.cells, config.seed)
    images, labels = probe_images(config, settings.images)
    observe = _kernel_taker(images.tobytes(), images.shape)
    choices = np.asarray(space.choices(table.architectures[places]), np.int32)
    rows: list[Row] = []
    with progress.task("training", len(places), "cells") as advance:
        for start in range(0, len(places), CHUNK):
            chunk = choices[start : start + CHUNK]
            reached, kernels = batch_training.observations(
                jax.random.key(config.seed), filled(chunk, CHUNK), dataset,
                epochs=epochs[-1], batch=settings.batch, learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay, channels=settings.channels,
                cells_per_stage=settings.cells_per_stage, stages=settings.stages, observe_at=epochs, observe=observe,
            )  # fmt: skip
            for number in range(len(chunk)):
                place = places[start + number]
                head = (space.to_string(table.architectures[place]), float(accuracy[place]))
                measured = _measured(np.asarray(kernels[number], np.float64), labels)
                rows += [
                    Row(*head, epoch, float(reached[number, at]), *measured[at])
                    for at, epoch in enumerate(epochs)
                ]
            advance(len(chunk))
    ranks = _ranks(rows, epochs, convolutions(table, places), settings.resamples)
    return Findings(
        title=f"Kernels of {len(places)} cells of {table.space} before and after training",
        question=f"How far does the neural tangent kernel move in {epochs[-1]} epochs on {config.data}, and does it "
        "rank architectures better before training or after?",
        columns=Row._fields,
        rows=rows,
        summary=rows[: 6 * len(epochs)],
        figures=[_drift_figure(rows, epochs), _rank_figure(ranks, epochs)],
        paragraphs=_paragraphs(rows, epochs, ranks),
    )


@cache
def _kernel_taker(content: bytes, shape: tuple[int, ...]) -> batch_training.Observe:
    """Kernel of a network on these images. One function a set of images, since a program is compiled for each."""
    images = np.frombuffer(content, np.float32).reshape(shape)

    def kernel(network: Any, params: Any, choice: jax.Array) -> jax.Array:
        rows = empirical_ntk.jacobian(
            lambda params, images: network.apply({"params": params}, images, choice),
            params, jax.numpy.asarray(images), statistics="train", channels=network.channels,
        )  # fmt: skip
        return empirical_ntk.kernel_of(rows, "sum")

    return kernel


def _measured(kernels: np.ndarray, labels: np.ndarray) -> list[tuple[float, float, float]]:
    """(relative change, alignment, condition number) at each epoch, of kernels float64[T, N, N]."""
    first = np.linalg.norm(kernels[0])
    rows = []
    for kernel in kernels:
        usable = bool(np.isfinite(kernel).all()) and np.trace(kernel) > 0
        change = float(np.linalg.norm(kernel - kernels[0]) / first) if usable and first > 0 else float("nan")
        aligned = alignment(kernel, labels) if usable else float("nan")
        rows.append((change, aligned, condition_number(kernel)[0]))
    return rows


def _ranks(
    rows: Sequence[Row], epochs: Sequence[int], counted: np.ndarray, resamples: int
) -> dict[str, list[Tau]]:
    """Kendall's tau with the table's accuracy by score and epoch; that of convolutions once."""
    accuracy = np.array([row.accuracy for row in rows if row.epoch == 0])

    def rank(scores: np.ndarray) -> Tau:
        oriented = np.where(np.isfinite(scores), scores, -np.inf)
        return statistics.with_interval(statistics.kendall, oriented, accuracy, resamples)

    ranks = {
        name: [rank(sign * _column(rows, epoch, field)) for epoch in epochs]
        for name, (field, sign) in SCORES.items()
    }
    return ranks | {"convolutions": [rank(counted)]}


def _column(rows: Sequence[Row], epoch: int, field: str) -> np.ndarray:
    return np.array([getattr(row, field) for row in rows if row.epoch == epoch])


def _quartiles(rows: Sequence[Row], epoch: int, field: str) -> np.ndarray:
    values = _column(rows, epoch, field)
    finite = values[np.isfinite(values)]
    # Without a finite value there is no quartile; ones keep the axes drawable.
    return np.percentile(finite, [25, 50, 75]) if len(finite) else np.ones(3)


def _drift_figure(rows: Sequence[Row], epochs: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 3)
        fields = {
            "kernel_change": "relative change of the NTK",
            "alignment": "alignment with the labels",
            "condition_number": "condition number",
        }
        for number, (axes, (field, name)) in enumerate(zip(panels, fields.items(), strict=True)):
            low, middle, high = np.array([_quartiles(rows, epoch, field) for epoch in epochs]).T
            axes.plot(epochs, middle, marker="o", color=COLOURS[number])
            axes.fill_between(epochs, low, high, color=COLOURS[number], alpha=0.2, linewidth=0)
            axes.set_xticks(epochs)
            axes.set_xlabel("epochs trained")
            axes.set_ylabel(name)
        panels[2].set_yscale("log")

    return Figure("drift", "Median over cells, bands from quartile to quartile.", draw, (10.6, 3.6))


def _rank_figure(ranks: dict[str, list[Tau]], epochs: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for number, name in enumerate(SCORES):
            tau, low, high = np.array(ranks[name]).T
            # Shifted, so that intervals do not hide one another.
            places = np.arange(len(epochs)) + 0.08 * (2 * number - 1)
            axes.errorbar(
                places, tau, [tau - low, high - tau], marker="os"[number], capsize=3, color=COLOURS[number], label=name
            )  # fmt: skip
        tau, low, high = ranks["convolutions"][0]
        axes.axhspan(low, high, color=INK, alpha=0.12, linewidth=0)
        axes.axhline(tau, color=INK, linestyle="--", linewidth=1, label="counting convolutions")
        axes.set_xticks(range(len(epochs)), [str(epoch) for epoch in epochs])
        axes.set_xlabel("epochs trained before the kernel was taken")
        axes.set_ylabel("Kendall's tau with accuracy")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)

    caption = "With 95 % bootstrap intervals over architectures."
    return Figure("ranks", caption, draw, (7.2, 4.2))


def _paragraphs(
    rows: Sequence[Row],
    epochs: Sequence[int],
    ranks: dict[str, list[Tau]],
) -> list[str]:
    last = epochs[-1]

    def median(epoch: int, field: str) -> float:
        return float(_quartiles(rows, epoch, field)[1])

    sentences = [
        f"In {last} epochs the kernel of the median cell moves by {median(last, 'kernel_change'):.2f} of its norm, its "
        f"alignment with the labels from {median(0, 'alignment'):.3f} to {median(last, 'alignment'):.3f}, its "
        f"condition number from {median(0, 'condition_number'):.0f} to {median(last, 'condition_number'):.0f}."
    ]
    for name in SCORES:
        before, after = ranks[name][0], ranks[name][-1]
        apart = after[1] > before[2] or after[2] < before[1]
        better = "after training" if after[0] > before[0] else "at initialisation"
        verdict = f"ranks better {better}" if apart else "ranks as well before as after, within the intervals"
        sentences.append(
            f"The {name} {verdict}: tau {before[0]:.3f} [{before[1]:.3f}, {before[2]:.3f}] at initialisation, "
            f"{after[0]:.3f} [{after[1]:.3f}, {after[2]:.3f}] after {last} epochs."
        )
    tau, low, high = ranks["convolutions"][0]
    sentences.append(f"Counting convolutions has {tau:.3f} [{low:.3f}, {high:.3f}].")
    return [" ".join(sentences)]
