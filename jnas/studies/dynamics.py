"""Training beside what the linearised network predicts of it.

Normalisation-free cells (`jnas.theory.infinite_width.network`) are trained by gradient descent on the squared loss

    L = 1 / (2 N O) sum ||f(x_n) - y_n||^2,     y one-hot minus 1 / O,     rate eta = share * 2 N O / lambda_max(Theta),

with all N training images in each step. Linearised at the weights it starts from, the same network follows, with Theta
[N O, N O] the full kernel and Theta' [M O, N O] that of test images with training images,

    f_t = y + (1 - eta Theta / (N O))^t (f_0 - y),     f'_t = f'_0 - Theta' Theta^-1 (f_0 - f_t),

found in float64 in the eigenvectors of Theta; beside it the limit of small steps, `predict.gradient_descent_mse` of
neural-tangents (Lee et al., NeurIPS 2019, https://arxiv.org/abs/1902.06720). The prediction is said to break at the
first step where test outputs are further from it than `BREAK` of the whole way that it goes: ||f' - f'_lin|| over
||f'_lin - f'_0|| after the last step, so that the short way of the first steps does not decide.
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
from jnas.run.progress import Progress
from jnas.studies.base import COLOURS, Figure, Findings
from jnas.studies.kernel import chosen_cells, standardised
from jnas.theory import infinite_width

COLUMNS = (
    "architecture", "accuracy", "width", "step", "train_loss", "train_loss_linear", "train_loss_flow", "test_loss",
    "test_loss_linear", "test_accuracy", "test_accuracy_linear", "test_distance",
)  # fmt: skip
BREAK = 0.1


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Train some cells of the table at some widths. Raises `InputError` for what does not fit."""
    settings = config.dynamics
    widths = whole_numbers(settings.widths, "dynamics.widths", 1)
    images, labels, dataset = standardised(config, settings.train)
    test = _test_images(config, dataset)
    targets = np.eye(dataset.classes)[labels] - 1 / dataset.classes
    steps = np.unique(np.geomspace(1, settings.steps, 30).round().astype(int))
    space, accuracy = spaces.get(table.space), table.mean()
    followed = chosen_cells(table, settings.cells)
    rows: list[tuple[Any, ...]] = []
    with progress.task("training", len(followed) * len(widths), "networks") as advance:
        for row in followed:
            for width in widths:
                cell = tuple(map(int, table.architectures[row]))
                head = (space.to_string(table.architectures[row]), float(accuracy[row]), width)
                found = beside_linear(
                    jax.random.key(config.seed), cell, width, (images, targets), test, steps.tolist(),
                    share=settings.rate, depth=settings.depth,
                )  # fmt: skip
                rows += [(*head, *values) for values in found]
                advance(1)
    return Findings(
        title=f"Training beside its linearisation, for {len(followed)} cells of {table.space}",
        question=f"For how long does the network linearised at initialisation predict training on {settings.train} "
        f"images of {config.data}?",
        columns=COLUMNS,
        rows=rows,
        summary=[row for row in rows if row[3] in (steps[0], steps[-1])],
        figures=[
            _figure(rows, "loss", 7, "test loss (logarithmic)"),
            _figure(rows, "accuracy", 9, "test accuracy, %"),
        ],
        paragraphs=_paragraphs(rows, widths, settings.steps),
    )


def _test_images(config: StudyConfig, dataset: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    count = config.dynamics.test
    if count > len(dataset.x_test):
        raise InputError(f"{count} images do not fit: {config.data} has {len(dataset.x_test)} to test on")
    places = np.random.default_rng(config.seed).permutation(len(dataset.x_test))[:count]
    return np.asarray(transforms.normalise(dataset, dataset.x_test[places])), dataset.y_test[places]


def beside_linear(
    key: jax.Array,
    cell: Sequence[int],
    width: int,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    steps: Sequence[int],
    *,
    share: float,
    depth: int,
) -> list[tuple[float, ...]]:
    """What `COLUMNS` has from `step` on, after each of `steps`, ascending.

    key: of the weights. train: images [N, H, W, C] and targets [N, O]; test: images and labels [M]. share: of the
    largest stable learning rate of the linearised network, in (0, 1].
    """
    import neural_tangents as nt

    (images, targets), (test_images, labels) = train, test
    outputs, size = targets.shape[1], targets.size
    init, apply, _ = infinite_width.network(cell, width, outputs, depth)
    params = init(key, images.shape)
    kernel_fn = jax.jit(
        nt.empirical_ntk_fn(
            apply, trace_axes=(), vmap_axes=0, implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION
        )
    )
    train_kernel, test_kernel = kernel_fn(images, None, params), kernel_fn(test_images, images, params)
    full, across = (np.asarray(_flat(kernel), np.float64) for kernel in (train_kernel, test_kernel))
    start, test_start = (np.asarray(apply(params, x), np.float64) for x in (images, test_images))
    eigenvalues, vectors = np.linalg.eigh(full)
    # Rounding leaves some slightly negative.
    eigenvalues = np.maximum(eigenvalues, 0)
    rate = share * 2 * size / eigenvalues[-1]
    error = vectors.T @ (start - targets).reshape(-1)
    flow = nt.predict.gradient_descent_mse(train_kernel, jnp.asarray(targets, jnp.float32), trace_axes=())
    flowing = flow(rate * jnp.asarray(steps, jnp.float32), jnp.asarray(start, jnp.float32))

    # One step a call: within a loop of XLA the derivatives of convolutions are a hundred times slower on a CPU.
    @jax.jit
    def descend(params: Any) -> Any:
        gradient = jax.grad(lambda params: jnp.mean((apply(params, images) - targets) ** 2) / 2)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    outputs_of = jax.jit(lambda params: (apply(params, images), apply(params, test_images)))
    test_targets = np.eye(outputs)[labels] - 1 / outputs
    found: list[tuple[float, ...]] = []
    done, way = 0, 0.0
    for place, step in enumerate(steps):
        for _ in range(done, step):
            params = descend(params)
        done = step
        real, real_test = (np.asarray(x, np.float64) for x in outputs_of(params))
        decay = (1 - rate * eigenvalues / size) ** step
        linear = targets + (vectors @ (decay * error)).reshape(targets.shape)
        # (1 - decay) / eigenvalue tends to the number of steps where the eigenvalue vanishes.
        weight = np.where(
            eigenvalues > 0, (1 - decay) / np.where(eigenvalues > 0, eigenvalues, 1), rate / size * step
        )
        linear_test = test_start - (across @ (vectors @ (weight * error))).reshape(test_start.shape)
        way = float(np.linalg.norm(linear_test - test_start))
        found.append(
            (
                int(step),
                _loss(real, targets), _loss(linear, targets), _loss(np.asarray(flowing[place], np.float64), targets),
                _loss(real_test, test_targets), _loss(linear_test, test_targets),
                _hits(real_test, labels), _hits(linear_test, labels),
                float(np.linalg.norm(real_test - linear_test)),
            )
        )  # fmt: skip
    return [(*values, distance / way if way > 0 else 0.0) for *values, distance in found]


def _flat(kernel: jax.Array) -> jax.Array:
    """[N, M, O, O] to [N O, M O]."""
    return jnp.swapaxes(kernel, 1, 2).reshape(kernel.shape[0] * kernel.shape[2], -1)


def _loss(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean((outputs - targets) ** 2) / 2)


def _hits(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(100 * np.mean(np.argmax(outputs, axis=1) == labels))


def _of(rows: Sequence[tuple[Any, ...]], cell: str, width: int) -> list[tuple[Any, ...]]:
    return [row for row in rows if row[0] == cell and row[2] == width]


def breaks_at(rows: Sequence[tuple[Any, ...]]) -> int | None:
    """The first step of one network where test outputs have left the prediction, None where they have not."""
    return next((row[3] for row in rows if not row[11] <= BREAK), None)


def _figure(rows: Sequence[tuple[Any, ...]], name: str, place: int, label: str) -> Figure:
    cells = list(dict.fromkeys((row[0], row[1]) for row in rows))
    widths = list(dict.fromkeys(row[2] for row in rows))

    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(cells), sharey=True))
        for axes, (cell, accuracy) in zip(panels, cells, strict=True):
            for number, width in enumerate(widths):
                own = _of(rows, cell, width)
                steps, colour = [row[3] for row in own], COLOURS[number % len(COLOURS)]
                axes.plot(
                    steps, [row[place] for row in own], color=colour, label=f"{width} channels, trained"
                )
                axes.plot(
                    steps, [row[place + 1] for row in own], color=colour, linestyle="--", label=f"{width}, linearised"
                )  # fmt: skip
                broken = breaks_at(own)
                if broken is not None:
                    at = next(row for row in own if row[3] == broken)
                    axes.plot([broken], [at[place]], marker="x", markersize=8, color=colour, linestyle="")
            axes.set_xscale("log")
            axes.set_xlabel("steps (logarithmic)")
            axes.set_title(f"cell of {accuracy:.1f} %", fontsize=10)
            if name == "loss":
                axes.set_yscale("log")
        panels[0].set_ylabel(label)
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
        )

    caption = (
        f"Crosses: test outputs are further from the linearised network's than {100 * BREAK:g} % of the whole way that "
        "it goes."
    )
    return Figure(name, caption, draw, (max(5.0, 2.9 * len(cells)), 3.9))


def _paragraphs(rows: Sequence[tuple[Any, ...]], widths: Sequence[int], steps: int) -> list[str]:
    cells = list(dict.fromkeys(row[0] for row in rows))
    sentences = []
    for width in widths:
        networks = [_of(rows, cell, width) for cell in cells]
        found = [breaks_at(own) for own in networks]
        broken = sorted(step for step in found if step is not None)
        when = f"after {broken[0]} to {broken[-1]} steps" if broken else "nowhere"
        ends, furthest = [own[-1] for own in networks], [max(row[11] for row in own) for own in networks]
        sentences.append(
            f"With {width} channels the prediction breaks for {len(broken)} of {len(cells)} cells in {steps} steps"
            f"{', ' + when if broken else ''}; test outputs are off by at most {_percent(furthest)} of the "
            f"way that the linearised network goes, by {_percent([row[11] for row in ends])} in the end, "
            f"where training reaches {np.mean([row[9] for row in ends]):.1f} % on test images and linearised it would "
            f"reach {np.mean([row[10] for row in ends]):.1f} %."
        )
    return [" ".join(sentences)]


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"
