"""Neural tangent kernels of wide networks against those of infinite width.

The cells are those of the table without normalisation and in the NTK parametrisation (`jnas.theory.infinite_width`), so
that both kernels are of the same network. The study measures, as width w grows, the relative distance between them in
the Frobenius norm, ||Theta_w - Theta|| / ||Theta||, the spectrum and the condition number. It also ranks the table's
architectures by the condition number at infinite width, which does not depend on a draw of weights.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnas.config.read import whole_numbers
from jnas.config.study import StudyConfig
from jnas.estimators.compact_table import Table
from jnas.proxies.ntk import condition_number
from jnas.report.plots import INK
from jnas.run.progress import Progress
from jnas.studies import base
from jnas.studies.base import COLOURS, LINES, Figure, Findings
from jnas.studies.statistics import kendall, with_interval
from jnas.theory import infinite_width

INFINITE = "infinite"


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


# Eigenvalues by size float64[N], the mean over draws, of one cell by width.
Spectra = dict[int | str, np.ndarray]


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Follow some cells as width grows, and rank more at infinite width. Raises `InputError`."""
    settings = config.kernel
    widths = whole_numbers(settings.widths, "kernel.widths", 1)
    images, _ = base.probe_images(config, settings.images)
    cells = base.spread_cells(table, settings.cells)
    rows: list[Row] = []
    spectra: list[Spectra] = []
    every: list[int | str] = [INFINITE, *widths]
    with progress.task("kernels", len(cells.names) * (1 + len(widths)), "kernels") as advance:
        for name, accuracy, architecture in zip(*cells, strict=True):
            cell = tuple(architecture.tolist())
            # One draw at infinite width, where the kernels are the limit themselves.
            limit = infinite_width.kernels(cell, images, settings.depth)
            spectra.append({})
            for width in every:
                draws = [limit]
                if isinstance(width, int):
                    draws = _drawn(cell, width, config.seed, settings.draws, images, settings.depth)
                eigenvalues = [np.linalg.eigvalsh(ntk) for _, ntk in draws]
                spectra[-1][width] = np.mean(eigenvalues, axis=0)
                for draw, (kernels, values) in enumerate(zip(draws, eigenvalues, strict=True)):
                    nngp_distance, ntk_distance = (
                        float(np.linalg.norm(kernel - infinite) / np.linalg.norm(infinite))
                        for kernel, infinite in zip(kernels, limit, strict=True)
                    )
                    rows.append(
                        Row(
                            name, float(accuracy), width, "" if width == INFINITE else draw, ntk_distance,
                            nngp_distance, condition_number(kernels[1])[0], float(values[-1]), float(values[0]),
                        )
                    )  # fmt: skip
                advance(1)
    # By cell, width and draw.
    shape = len(cells.names), len(widths), settings.draws
    measured = {
        field: np.reshape([getattr(row, field) for row in rows if row.width != INFINITE], shape)
        for field in ("ntk_distance", "nngp_distance", "condition_number")
    }
    limits = np.array([row.condition_number for row in rows if row.width == INFINITE])
    labels = [f"{accuracy:.1f} %" for accuracy in cells.accuracy]
    paragraph = _paragraph(widths, measured, limits)
    if settings.ranked:
        paragraph += " " + _ranking(config, table, images, progress)
    return Findings(
        title=f"Neural tangent kernels as {table.space} cells widen",
        question=f"How wide must a network be for its kernel on {settings.images} images of {config.data} to be that "
        "of infinite width, and does that kernel rank architectures?",
        columns=Row._fields,
        rows=rows,
        summary=[row for row in rows if row.draw in ("", 0)],
        figures=[_width_figure(labels, widths, measured, limits), _spectrum_figure(labels, spectra)],
        paragraphs=[paragraph],
    )


def _drawn(
    cell: tuple[int, ...], width: int, seed: int, draws: int, images: np.ndarray, depth: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels (NNGP, NTK) of `draws` networks: float64[N, N] each."""
    init, apply, features = infinite_width.network(cell, width, depth=depth)

    @jax.jit
    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = init(key, images.shape)
        read = features(params, images)

        def gradient(image: jax.Array) -> jax.Array:
            leaves = jax.tree.leaves(jax.grad(lambda p: apply(p, image[None])[0, 0])(params))
            return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])

        rows = jax.lax.map(gradient, jnp.asarray(images))
        exactly = jax.lax.Precision.HIGHEST
        variance = infinite_width.WEIGHT**2 / width
        return variance * jnp.matmul(read, read.T, precision=exactly), jnp.matmul(
            rows, rows.T, precision=exactly
        )

    drawn = [both(key) for key in jax.random.split(jax.random.key(seed), draws)]
    return [(np.asarray(nngp, np.float64), np.asarray(ntk, np.float64)) for nngp, ntk in drawn]


def _ranking(config: StudyConfig, table: Table, images: np.ndarray, progress: Progress) -> str:
    """A sentence: Kendall's tau with accuracy, of the condition number at infinite width and of counting."""
    settings = config.kernel
    rows = np.random.default_rng(config.seed).permutation(base.connected_rows(table))[: settings.ranked]
    cells = base.cells_at(table, rows)
    conditions = []
    with progress.task("infinite width", len(rows), "cells") as advance:
        for architecture in cells.architectures:
            _, ntk = infinite_width.kernels(tuple(architecture.tolist()), images, settings.depth)
            conditions.append(-condition_number(ntk)[0])
            advance(1)
    scores = np.array(conditions), base.convolutions(table, cells.architectures)
    infinite, counting = (
        with_interval(kendall, score, cells.accuracy, settings.resamples) for score in scores
    )
    return (
        f"Over {len(rows)} cells the condition number at infinite width ranks accuracy with tau {infinite}, "
        f"counting convolutions with {counting}."
    )


def _width_figure(
    labels: Sequence[str], widths: Sequence[int], measured: dict[str, np.ndarray], limits: np.ndarray
) -> Figure:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for number, (label, limit) in enumerate(zip(labels, limits, strict=True)):
            look = base.style(number)
            # Shifted, so that the ranges of cells do not hide one another.
            places = np.array(widths) * 1.06 ** (number - 2)
            for axes, field in ((left, "ntk_distance"), (right, "condition_number")):
                low, middle, high = np.percentile(measured[field][number], [0, 50, 100], axis=1)
                axes.errorbar(
                    places, middle, [middle - low, high - middle], marker="o", markersize=4, elinewidth=0.8, capsize=2,
                    label=label if axes is left else None, **look,
                )  # fmt: skip
            right.axhline(limit, color=look["color"], linewidth=1, linestyle=":")
        reference = np.median(measured["ntk_distance"][:, 0]) * np.sqrt(widths[0] / np.array(widths))
        left.plot(widths, reference, color=INK, linewidth=1, label="1 / √width")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.set_xlabel("channels")
        left.set_ylabel("distance to the kernel of infinite width, relative")
        right.set_ylabel("condition number (dotted: infinite width)")
        figure.legend(loc="outside upper center", ncols=len(labels) + 1, frameon=False)

    caption = "Median over draws, with the least and the largest. Cells are named by their accuracy."
    return Figure("width", caption, draw, (10.6, 4.4))


def _spectrum_figure(labels: Sequence[str], spectra: Sequence[Spectra]) -> Figure:
    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(spectra), sharey=True))
        for axes, label, spectrum in zip(panels, labels, spectra, strict=True):
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

    size = (max(4.0, 2.4 * len(spectra)), 3.6)
    return Figure("spectrum", "Eigenvalues of the NTK, mean over draws.", draw, size)


def _paragraph(widths: Sequence[int], measured: dict[str, np.ndarray], limits: np.ndarray) -> str:
    first, last = widths[0], widths[-1]
    ntk, nngp = (np.median(measured[field], axis=(0, 2)) for field in ("ntk_distance", "nngp_distance"))
    sentences = [
        f"From {first} to {last} channels the NTK's distance to infinite width falls from {ntk[0]:.2f} to "
        f"{ntk[-1]:.2f} of its norm, the NNGP kernel's from {nngp[0]:.2f} to {nngp[-1]:.2f}."
    ]
    if last > first:
        slope = np.polyfit(np.log(widths), np.log(ntk), 1)[0]
        sentences.append(f"The NTK's falls as width to the power of {slope:.2f}, where theory has -0.5.")
    ratios = np.median(measured["condition_number"][:, -1], axis=1) / limits
    sentences.append(
        f"At {last} channels condition numbers are {ratios.min():.2f} to {ratios.max():.2f} times those of infinite "
        "width."
    )
    return " ".join(sentences)
