"""Neural tangent kernels of wide networks against those of infinite width.

The cells are those of the table without normalisation and in the NTK parametrisation (`jnas.theory.infinite_width`), so
that both kernels are of the same network: how far apart they are, Theta_w - Theta in the Frobenius norm, as width w
grows; what that does to the spectrum and to the condition number; and whether the condition number at infinite width,
which no draw of weights blurs, ranks the architectures of the table.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnas import data as datasets
from jnas import spaces
from jnas.config.read import whole_numbers
from jnas.config.study import StudyConfig
from jnas.data import transforms
from jnas.errors import InputError
from jnas.estimators.compact_table import Table
from jnas.nets.cost import convs
from jnas.proxies.ntk import condition_number
from jnas.report.plots import INK
from jnas.run.progress import Progress
from jnas.studies import statistics
from jnas.studies.base import COLOURS, LINES, Figure, Findings
from jnas.theory import infinite_width

COLUMNS = (
    "architecture", "accuracy", "width", "draw", "ntk_distance", "nngp_distance", "condition_number",
    "largest_eigenvalue", "smallest_eigenvalue",
)  # fmt: skip
INFINITE = "infinite"


def chosen_cells(table: Table, count: int) -> np.ndarray:
    """`count` rows of the table whose cells pass something on, evenly by accuracy, worst first: int[count].

    Raises `InputError` where it has fewer, or is of a space without a form of infinite width.
    """
    if table.space != "nasbench201":
        raise InputError(f"this study knows the cells of nasbench201 alone, the table is of {table.space}")
    rows = _usable(table)
    usable = rows[np.argsort(table.mean()[rows])]
    if len(usable) < count:
        raise InputError(
            f"the table has {len(usable)} cells that pass something on: ask for fewer than {count}"
        )
    return usable[np.linspace(0, len(usable) - 1, count).round().astype(int)]


def _usable(table: Table) -> np.ndarray:
    """The rows of cells that were trained and pass something on."""
    rows = np.flatnonzero(np.isfinite(table.mean()))
    return rows[[infinite_width.is_connected(table.architectures[row]) for row in rows]]


def standardised(config: StudyConfig, count: int) -> tuple[np.ndarray, np.ndarray, datasets.Dataset]:
    """(`count` training images, drawn by the seed, their labels, the data set). Raises `InputError`."""
    dataset = datasets.load(config.data)
    if count > len(dataset.x_train):
        raise InputError(f"{count} images do not fit: {config.data} has {len(dataset.x_train)} to train on")
    places = np.random.default_rng(config.seed).permutation(len(dataset.x_train))[:count]
    return (
        np.asarray(transforms.normalise(dataset, dataset.x_train[places])),
        dataset.y_train[places],
        dataset,
    )


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Follow some cells as width grows, and rank more at infinite width. Raises `InputError`."""
    settings = config.kernel
    widths = whole_numbers(settings.widths, "kernel.widths", 1)
    images, _, _ = standardised(config, settings.images)
    followed = chosen_cells(table, settings.cells)
    accuracy, space = table.mean(), spaces.get(table.space)
    rows: list[tuple[Any, ...]] = []
    spectra: dict[int, dict[Any, np.ndarray]] = {}
    with progress.task("kernels", len(followed) * (1 + len(widths)), "kernels") as advance:
        for row in followed:
            cell = tuple(map(int, table.architectures[row]))
            infinite = infinite_width.kernels(cell, images, settings.depth)
            head = (space.to_string(table.architectures[row]), float(accuracy[row]))
            rows.append((*head, INFINITE, "", 0.0, 0.0, *_spectrum(infinite[1])))
            spectra[row] = {INFINITE: np.linalg.eigvalsh(infinite[1])}
            advance(1)
            for width in widths:
                drawn = _drawn(cell, width, config.seed, settings.draws, images, settings.depth)
                for draw, (nngp, ntk) in enumerate(zip(*drawn, strict=True)):
                    apart = (_distance(ntk, infinite[1]), _distance(nngp, infinite[0]))
                    rows.append((*head, width, draw, *apart, *_spectrum(ntk)))
                spectra[row][width] = np.mean([np.linalg.eigvalsh(ntk) for ntk in drawn[1]], axis=0)
                advance(1)
    ranked = _ranked(config, table, images, progress) if settings.ranked else None
    return Findings(
        title=f"Neural tangent kernels as {table.space} cells widen",
        question=f"How wide must a network be for its kernel on {settings.images} images of {config.data} to be that "
        "of infinite width, and does that kernel rank architectures?",
        columns=COLUMNS,
        rows=rows,
        summary=[row for row in rows if row[3] in ("", 0)],
        figures=[_width_figure(rows, widths), _spectrum_figure(rows, spectra)],
        paragraphs=_paragraphs(rows, widths, ranked, min(settings.ranked, len(_usable(table)))),
    )


def _drawn(
    cell: tuple[int, ...], width: int, seed: int, draws: int, images: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """(NNGP, NTK) of `draws` networks: float64[draws, N, N] each."""
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
    found = [both(key) for key in keys]
    return np.stack([np.asarray(a, np.float64) for a, _ in found]), np.stack(
        [np.asarray(b, np.float64) for _, b in found]
    )


def _distance(kernel: np.ndarray, infinite: np.ndarray) -> float:
    return float(np.linalg.norm(kernel - infinite) / np.linalg.norm(infinite))


def _spectrum(kernel: np.ndarray) -> tuple[float, float, float]:
    eigenvalues = np.linalg.eigvalsh(kernel)
    return condition_number(kernel)[0], float(eigenvalues[-1]), float(eigenvalues[0])


def _ranked(
    config: StudyConfig, table: Table, images: np.ndarray, progress: Progress
) -> dict[str, tuple[float, float, float]]:
    """Kendall's tau with accuracy and its interval, of the condition number at infinite width and of counting."""
    accuracy = table.mean()
    drawn = np.random.default_rng(config.seed).permutation(_usable(table))[: config.kernel.ranked]
    values = []
    with progress.task("infinite width", len(drawn), "cells") as advance:
        for row in drawn:
            _, ntk = infinite_width.kernels(
                tuple(map(int, table.architectures[row])), images, config.kernel.depth
            )
            values.append(-condition_number(ntk)[0])
            advance(1)
    scores = {
        "the condition number at infinite width": np.array(values),
        "counting convolutions": convs(table.architectures[drawn]).astype(float),
    }
    return {
        name: statistics.with_interval(statistics.kendall, score, accuracy[drawn], config.kernel.resamples)
        for name, score in scores.items()
    }


def _labels(rows: Sequence[tuple[Any, ...]]) -> dict[str, str]:
    """How the figures call each architecture: by its accuracy."""
    return {row[0]: f"{row[1]:.1f} %" for row in rows}


def _width_figure(rows: Sequence[tuple[Any, ...]], widths: Sequence[int]) -> Figure:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for number, (cell, label) in enumerate(_labels(rows).items()):
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}
            own = {width: [row for row in rows if row[:1] == (cell,) and row[2] == width] for width in widths}
            # Beside each other, so that the ranges of cells do not hide one another.
            places = np.array(widths) * 1.06 ** (number - 2)
            for axes, place in ((left, 4), (right, 6)):
                low, middle, high = np.array(
                    [np.percentile([row[place] for row in own[width]], [0, 50, 100]) for width in widths]
                ).T
                axes.errorbar(
                    places, middle, [middle - low, high - middle], marker="o", markersize=4, elinewidth=0.8, capsize=2,
                    label=label if axes is left else None, **style,
                )  # fmt: skip
            limit = next(row for row in rows if row[0] == cell and row[2] == INFINITE)
            right.axhline(limit[6], color=style["color"], linewidth=1, linestyle=":")
        reference = np.median([row[4] for row in rows if row[2] == widths[0]])
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


def _spectrum_figure(rows: Sequence[tuple[Any, ...]], spectra: dict[int, dict[Any, np.ndarray]]) -> Figure:
    labels = list(_labels(rows).values())

    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(spectra), sharey=True))
        for axes, label, own in zip(panels, labels, spectra.values(), strict=True):
            for number, (width, eigenvalues) in enumerate(own.items()):
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


def _paragraphs(
    rows: Sequence[tuple[Any, ...]],
    widths: Sequence[int],
    ranked: dict[str, tuple[float, float, float]] | None,
    cells: int,
) -> list[str]:
    """`ranked`, where it is there, is over so many cells."""

    def typical(width: int, place: int) -> float:
        return float(np.median([row[place] for row in rows if row[2] == width]))

    first, last = widths[0], widths[-1]
    sentences = [
        f"From {first} to {last} channels the NTK's distance to infinite width falls from {typical(first, 4):.2f} to "
        f"{typical(last, 4):.2f} of its norm, the NNGP kernel's from {typical(first, 5):.2f} to {typical(last, 5):.2f}."
    ]
    if last > first:
        slope = np.polyfit(np.log(widths), [np.log(typical(width, 4)) for width in widths], 1)[0]
        sentences.append(f"The NTK's falls as width to the power of {slope:.2f}, where theory has -0.5.")
    ratios = {
        cell: float(
            np.median([row[6] for row in rows if row[0] == cell and row[2] == last])
            / next(row[6] for row in rows if row[0] == cell and row[2] == INFINITE)
        )
        for cell in _labels(rows)
    }
    sentences.append(
        f"At {last} channels condition numbers are {min(ratios.values()):.2f} to {max(ratios.values()):.2f} times "
        "those of infinite width."
    )
    if ranked:
        name, counting = "the condition number at infinite width", "counting convolutions"
        tau, low, high = ranked[name]
        sentences.append(
            f"Over {cells} cells {name} ranks accuracy with tau {tau:.3f} [{low:.3f}, {high:.3f}], "
            f"{counting} with {ranked[counting][0]:.3f} [{ranked[counting][1]:.3f}, {ranked[counting][2]:.3f}]."
        )
    return [" ".join(sentences)]
