"""Neural tangent kernels of wide networks against those of infinite width.

The cells are those of the table without normalisation and in the NTK parametrisation (`jnas.theory.infinite_width`), so
that both kernels are of the same network. The study measures, as width w grows, the relative distance between them in
the Frobenius norm, ||Theta_w - Theta|| / ||Theta||, the spectrum and the condition number. It also ranks the table's
architectures by the condition number at infinite width, which does not depend on a draw of weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnas import spaces
from jnas.config.read import whole_numbers
from jnas.config.study import StudyConfig
from jnas.estimators.compact_table import Table
from jnas.proxies.ntk import condition_number
from jnas.report.plots import INK
from jnas.run.progress import Progress
from jnas.studies import statistics
from jnas.studies.base import (
    COLOURS,
    LINES,
    Figure,
    Findings,
    connected_rows,
    convolutions,
    probe_images,
    spread_rows,
    style,
)
from jnas.theory import infinite_width

INFINITE = "infinite"
COUNTING = "counting convolutions"
# Kendall's tau and its interval.
Tau = tuple[float, float, float]


class Row(NamedTuple):
    """Kernels of one cell at one width, from one draw of weights.

    accuracy: in the table, in percent.
    width: channels, or `INFINITE`.
    draw: its number, empty at infinite width.
    ntk_distance, nngp_distance: to the kernel of infinite width, relative.
    condition_number, largest_eigenvalue, smallest_eigenvalue: of the NTK.
    """

    architecture: str
    accuracy: float
    width: int | str
    draw: int | str
    ntk_distance: float
    nngp_distance: float
    condition_number: float
    largest_eigenvalue: float
    smallest_eigenvalue: float


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Follow some cells as width grows, and rank more at infinite width. Raises `InputError`."""
    settings = config.kernel
    widths = whole_numbers(settings.widths, "kernel.widths", 1)
    images, _ = probe_images(config, settings.images)
    followed = spread_rows(table, settings.cells)
    accuracy, space = table.mean(), spaces.get(table.space)
    rows: list[Row] = []
    spectra: dict[int, dict[Any, np.ndarray]] = {}
    with progress.task("kernels", len(followed) * (1 + len(widths)), "kernels") as advance:
        for row in followed:
            cell = tuple(map(int, table.architectures[row]))
            infinite = infinite_width.kernels(cell, images, settings.depth)
            head = (space.to_string(table.architectures[row]), float(accuracy[row]))
            rows.append(Row(*head, INFINITE, "", 0.0, 0.0, *_spectrum(infinite[1])))
            spectra[row] = {INFINITE: np.linalg.eigvalsh(infinite[1])}
            advance(1)
            for width in widths:
                drawn = _drawn(cell, width, config.seed, settings.draws, images, settings.depth)
                for draw, (nngp, ntk) in enumerate(zip(*drawn, strict=True)):
                    apart = (_distance(ntk, infinite[1]), _distance(nngp, infinite[0]))
                    rows.append(Row(*head, width, draw, *apart, *_spectrum(ntk)))
                spectra[row][width] = np.mean([np.linalg.eigvalsh(ntk) for ntk in drawn[1]], axis=0)
                advance(1)
    ranked = _ranked(config, table, images, progress) if settings.ranked else {}
    return Findings(
        title=f"Neural tangent kernels as {table.space} cells widen",
        question=f"How wide must a network be for its kernel on {settings.images} images of {config.data} to be that "
        "of infinite width, and does that kernel rank architectures?",
        columns=Row._fields,
        rows=rows,
        summary=[row for row in rows if row.draw in ("", 0)],
        figures=[_width_figure(rows, widths), _spectrum_figure(rows, spectra)],
        paragraphs=_paragraphs(rows, widths, ranked),
    )


def _drawn(
    cell: tuple[int, ...], width: int, seed: int, draws: int, images: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Kernels (NNGP, NTK) of `draws` networks: float64[draws, N, N] each."""
    init, apply, features = infinite_width.network(cell, width, depth=depth)

    @jax.jit
    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = init(key, images.shape)
        read = features(params, images)
        rows = jax.lax.map(
            lambda image: jnp.concatenate(
                [
                    leaf.reshape(-1)
                    for leaf in jax.tree.leaves(jax.grad(lambda p: apply(p, image[None])[0, 0])(params))
                ]
            ),
            jnp.asarray(images),
        )
        exactly = jax.lax.Precision.HIGHEST
        variance = infinite_width.WEIGHT**2 / width
        return variance * jnp.matmul(read, read.T, precision=exactly), jnp.matmul(
            rows, rows.T, precision=exactly
        )

    keys = jax.random.split(jax.random.key(seed), draws)
    nngp, ntk = zip(*(both(key) for key in keys), strict=True)
    return np.asarray(nngp, np.float64), np.asarray(ntk, np.float64)


def _distance(kernel: np.ndarray, infinite: np.ndarray) -> float:
    return float(np.linalg.norm(kernel - infinite) / np.linalg.norm(infinite))


def _spectrum(kernel: np.ndarray) -> tuple[float, float, float]:
    eigenvalues = np.linalg.eigvalsh(kernel)
    return condition_number(kernel)[0], float(eigenvalues[-1]), float(eigenvalues[0])


def _ranked(config: StudyConfig, table: Table, images: np.ndarray, progress: Progress) -> dict[str, Tau]:
    """Kendall's tau with accuracy, of the condition number at infinite width and of counting, by the score's name."""
    accuracy = table.mean()
    drawn = np.random.default_rng(config.seed).permutation(connected_rows(table))[: config.kernel.ranked]
    values = []
    with progress.task("infinite width", len(drawn), "cells") as advance:
        for row in drawn:
            _, ntk = infinite_width.kernels(
                tuple(map(int, table.architectures[row])), images, config.kernel.depth
            )
            values.append(-condition_number(ntk)[0])
            advance(1)
    scores = {
        f"Over {len(drawn)} cells the condition number at infinite width": np.array(values),
        COUNTING: convolutions(table, drawn),
    }
    return {
        name: statistics.with_interval(statistics.kendall, score, accuracy[drawn], config.kernel.resamples)
        for name, score in scores.items()
    }


def _labels(rows: Sequence[Row]) -> dict[str, str]:
    """Label of each architecture in the figures: its accuracy."""
    return {row.architecture: f"{row.accuracy:.1f} %" for row in rows}


def _width_figure(rows: Sequence[Row], widths: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for number, (cell, label) in enumerate(_labels(rows).items()):
            drawn = [
                [row for row in rows if row.architecture == cell and row.width == width] for width in widths
            ]
            # Shifted, so that the ranges of cells do not hide one another.
            places = np.array(widths) * 1.06 ** (number - 2)
            for axes, field in ((left, "ntk_distance"), (right, "condition_number")):
                low, middle, high = np.array(
                    [np.percentile([getattr(row, field) for row in draws], [0, 50, 100]) for draws in drawn]
                ).T
                axes.errorbar(
                    places, middle, [middle - low, high - middle], marker="o", markersize=4, elinewidth=0.8, capsize=2,
                    label=label if axes is left else None, **style(number),
                )  # fmt: skip
            limit = next(row for row in rows if row.architecture == cell and row.width == INFINITE)
            right.axhline(limit.condition_number, color=style(number)["color"], linewidth=1, linestyle=":")
        reference = np.median([row.ntk_distance for row in rows if row.width == widths[0]])
        left.plot(
            widths,
            reference * np.sqrt(widths[0] / np.array(widths)),
            color=INK,
            linewidth=1,
            label="1 / √width",
        )
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.set_xlabel("channels")
        left.set_ylabel("distance to the kernel of infinite width, relative")
        right.set_ylabel("condition number (dotted: infinite width)")
        figure.legend(loc="outside upper center", ncols=len(_labels(rows)) + 1, frameon=False)

    caption = "Median over draws, with the least and the largest. Cells are named by their accuracy."
    return Figure("width", caption, draw, (10.6, 4.4))


def _spectrum_figure(rows: Sequence[Row], spectra: dict[int, dict[Any, np.ndarray]]) -> Figure:
    labels = list(_labels(rows).values())

    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(spectra), sharey=True))
        for axes, label, spectrum in zip(panels, labels, spectra.values(), strict=True):
            for number, (width, eigenvalues) in enumerate(spectrum.items()):
                places = np.arange(1, len(eigenvalues) + 1)
                positive = np.where(eigenvalues > 0, eigenvalues, np.nan)[::-1]
                infinite = width == INFINITE
                axes.plot(
                    places, positive / positive[0], label=f"{width}", linewidth=2.5 if infinite else 1.3,
                    color=INK if infinite else COLOURS[(number - 1) % len(COLOURS)],
                    linestyle="-" if infinite else LINES[number % len(LINES)],
                )  # fmt: skip
            axes.set_yscale("log")
            axes.set_title(f"cell of {label}", fontsize=10)
            axes.set_xlabel("eigenvalue, by size")
        panels[0].set_ylabel("share of the largest eigenvalue")
        panels[-1].legend(frameon=False, fontsize=8, title="channels")

    return Figure(
        "spectrum",
        "Eigenvalues of the NTK, mean over draws.",
        draw,
        (max(4.0, 2.4 * len(spectra)), 3.6),
    )


def _paragraphs(rows: Sequence[Row], widths: Sequence[int], ranked: Mapping[str, Tau]) -> list[str]:
    def typical(width: int, field: str) -> float:
        return float(np.median([getattr(row, field) for row in rows if row.width == width]))

    first, last = widths[0], widths[-1]
    sentences = [
        f"From {first} to {last} channels the NTK's distance to infinite width falls from "
        f"{typical(first, 'ntk_distance'):.2f} to {typical(last, 'ntk_distance'):.2f} of its norm, the NNGP kernel's "
        f"from {typical(first, 'nngp_distance'):.2f} to {typical(last, 'nngp_distance'):.2f}."
    ]
    if last > first:
        distances = [np.log(typical(width, "ntk_distance")) for width in widths]
        slope = np.polyfit(np.log(widths), distances, 1)[0]
        sentences.append(f"The NTK's falls as width to the power of {slope:.2f}, where theory has -0.5.")
    ratios = []
    for cell in _labels(rows):
        numbers: dict[int | str, list[float]] = {last: [], INFINITE: []}
        for row in rows:
            if row.architecture == cell and row.width in numbers:
                numbers[row.width].append(row.condition_number)
        ratios.append(float(np.median(numbers[last]) / numbers[INFINITE][0]))
    sentences.append(
        f"At {last} channels condition numbers are {min(ratios):.2f} to {max(ratios):.2f} times those of infinite "
        "width."
    )
    if ranked:
        (name, (tau, low, high)), (_, counted) = ranked.items()
        sentences.append(
            f"{name} ranks accuracy with tau {tau:.3f} [{low:.3f}, {high:.3f}], "
            f"{COUNTING} with {counted[0]:.3f} [{counted[1]:.3f}, {counted[2]:.3f}]."
        )
    return [" ".join(sentences)]
