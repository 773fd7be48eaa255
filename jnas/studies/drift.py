"""What training does to the neural tangent kernel, and whether the kernel ranks better before it or after.

Cells of the table train with batch normalisation; at some epochs the exact kernel Theta_t of the summed logits is
taken on the same training images, with the statistics of their batch: its relative change
||Theta_t - Theta_0|| / ||Theta_0||, its alignment with the labels (`jnas.proxies.ntk_spectrum.alignment`), its
condition number. Scores are then held against what the table says of the cells, whose trainings are others than these.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import numpy as np

from jnas import data as datasets
from jnas import spaces
from jnas.config.read import whole_numbers
from jnas.config.study import StudyConfig
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators import batch_training
from jnas.estimators.compact_table import Table
from jnas.nets.cost import convs
from jnas.proxies.ntk import condition_number
from jnas.proxies.ntk_spectrum import alignment
from jnas.report.plots import INK
from jnas.run.progress import Progress
from jnas.studies import statistics
from jnas.studies.base import COLOURS, Figure, Findings, some_rows
from jnas.theory import empirical_ntk

COLUMNS = (
    "architecture", "accuracy", "epoch", "own_accuracy", "kernel_change", "alignment", "condition_number",
)  # fmt: skip
# Cells trained in one call, so that progress shows and an interruption waits little.
CHUNK = 10
SCORES = {"condition number": (6, -1), "alignment": (5, 1)}


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Train some cells and take their kernels. Raises `InputError` for what does not fit."""
    settings, dataset = config.drift, datasets.load(config.data)
    epochs = whole_numbers(settings.epochs, "drift.epochs", 0)
    if epochs[0] != 0 or len(epochs) < 2:
        raise InputError(f"drift.epochs is '{settings.epochs}': give 0, before training, and later epochs")
    if table.space != "nasbench201":
        raise InputError(f"this study trains the cells of nasbench201 alone, the table is of {table.space}")
    if max(settings.images, settings.batch) > len(dataset.x_train):
        raise InputError(
            f"batch {settings.batch} and {settings.images} images do not fit: {config.data} has "
            f"{len(dataset.x_train)} images to train on"
        )
    accuracy, space = table.mean(), spaces.get(table.space)
    places = some_rows(table, settings.cells, config.seed)
    probe = np.random.default_rng(config.seed).permutation(len(dataset.x_train))[: settings.images]
    images, labels = transforms.normalise(dataset, dataset.x_train[probe]), dataset.y_train[probe]
    observe = _kernel_taker(np.asarray(images).tobytes(), images.shape)
    choices = np.argmax(np.asarray(space.gates(table.architectures[places])), axis=-1).astype(np.int32)
    rows: list[tuple[Any, ...]] = []
    with progress.task("training", len(places), "cells") as advance:
        for start in range(0, len(places), CHUNK):
            own = choices[start : start + CHUNK]
            # Always of one size, or the last call would compile again.
            filled = own[np.arange(CHUNK) % len(own)]
            reached, kernels = batch_training.observations(
                jax.random.key(config.seed), filled, dataset,
                epochs=epochs[-1], batch=settings.batch, learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay, channels=settings.channels,
                cells_per_stage=settings.cells_per_stage, stages=settings.stages, observe_at=epochs, observe=observe,
            )  # fmt: skip
            for number in range(len(own)):
                place = places[start + number]
                head = (space.to_string(table.architectures[place]), float(accuracy[place]))
                measured = _measured(np.asarray(kernels[number], np.float64), labels)
                rows += [
                    (*head, epoch, float(reached[number, at]), *measured[at])
                    for at, epoch in enumerate(epochs)
                ]
            advance(len(own))
    ranks = _ranks(rows, epochs, convs(table.architectures[places]).astype(float), settings.resamples)
    return Findings(
        title=f"What training does to the kernels of {len(places)} cells of {table.space}",
        question=f"How far does the neural tangent kernel move in {epochs[-1]} epochs on {config.data}, and does it "
        "rank architectures better before training or after?",
        columns=COLUMNS,
        rows=rows,
        summary=rows[: 6 * len(epochs)],
        figures=[_drift_figure(rows, epochs), _rank_figure(ranks, epochs)],
        paragraphs=_paragraphs(rows, epochs, ranks),
    )


@cache
def _kernel_taker(content: bytes, shape: tuple[int, ...]) -> batch_training.Observe:
    """The kernel of a network on these images; one function for each set of images, as a program is compiled for it."""
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
    found = []
    for kernel in kernels:
        usable = bool(np.isfinite(kernel).all()) and np.trace(kernel) > 0
        change = float(np.linalg.norm(kernel - kernels[0]) / first) if usable and first > 0 else float("nan")
        aligned = alignment(kernel, labels) if usable else float("nan")
        found.append((change, aligned, condition_number(kernel)[0]))
    return found


def _ranks(
    rows: Sequence[tuple[Any, ...]], epochs: Sequence[int], counted: np.ndarray, resamples: int
) -> dict[str, list[tuple[float, float, float]]]:
    """Kendall's tau with the table's accuracy and its interval, by score and epoch; convolutions once."""
    accuracy = np.array([row[1] for row in rows if row[2] == 0])

    def rank(scores: np.ndarray) -> tuple[float, float, float]:
        own = np.where(np.isfinite(scores), scores, -np.inf)
        return statistics.with_interval(statistics.kendall, own, accuracy, resamples)

    ranks = {
        name: [rank(sign * np.array([row[place] for row in rows if row[2] == epoch])) for epoch in epochs]
        for name, (place, sign) in SCORES.items()
    }
    return ranks | {"convolutions": [rank(counted)]}


def _quartiles(rows: Sequence[tuple[Any, ...]], epoch: int, place: int) -> np.ndarray:
    values = np.array([row[place] for row in rows if row[2] == epoch])
    return (
        np.percentile(values[np.isfinite(values)], [25, 50, 75]) if np.isfinite(values).any() else np.ones(3)
    )


def _drift_figure(rows: Sequence[tuple[Any, ...]], epochs: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 3)
        names = ("relative change of the NTK", "alignment with the labels", "condition number")
        for number, (axes, name) in enumerate(zip(panels, names, strict=True)):
            low, middle, high = np.array([_quartiles(rows, epoch, 4 + number) for epoch in epochs]).T
            axes.plot(epochs, middle, marker="o", color=COLOURS[number])
            axes.fill_between(epochs, low, high, color=COLOURS[number], alpha=0.2, linewidth=0)
            axes.set_xticks(epochs)
            axes.set_xlabel("epochs trained")
            axes.set_ylabel(name)
        panels[2].set_yscale("log")

    return Figure("drift", "Median over cells, bands from quartile to quartile.", draw, (10.6, 3.6))


def _rank_figure(ranks: dict[str, list[tuple[float, float, float]]], epochs: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for number, name in enumerate(SCORES):
            tau, low, high = np.array(ranks[name]).T
            # Beside each other, so that intervals do not hide one another.
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
    rows: Sequence[tuple[Any, ...]],
    epochs: Sequence[int],
    ranks: dict[str, list[tuple[float, float, float]]],
) -> list[str]:
    last = epochs[-1]

    def median(epoch: int, place: int) -> float:
        return float(_quartiles(rows, epoch, place)[1])

    sentences = [
        f"In {last} epochs the kernel of the median cell moves by {median(last, 4):.2f} of its norm, its alignment "
        f"with the labels from {median(0, 5):.3f} to {median(last, 5):.3f}, its condition number from "
        f"{median(0, 6):.0f} to {median(last, 6):.0f}."
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
