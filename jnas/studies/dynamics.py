"""Training of a network and the prediction of its linearisation.

Normalisation-free cells (`jnas.theory.infinite_width.network`) are trained by gradient descent on the squared loss

    L = 1 / (2 N O) sum ||f(x_n) - y_n||^2,     y one-hot minus 1 / O,     rate eta = share * 2 N O / lambda_max(Theta),

with all N training images in each step. The same network, linearised at its initial weights, has the outputs

    f_t = y + (1 - eta Theta / (N O))^t (f_0 - y),     f'_t = f'_0 - Theta' Theta^-1 (f_0 - f_t),

with Theta [N O, N O] the full kernel and Theta' [M O, N O] that of test images with training images. They are computed
in float64 from the eigenvectors of Theta. The limit of small steps is `predict.gradient_descent_mse` of neural-tangents
(Lee et al., NeurIPS 2019, https://arxiv.org/abs/1902.06720).

The prediction breaks at the first step where the distance of test outputs from it exceeds `BREAK` of the length of its
whole way: ||f' - f'_lin|| over ||f'_lin - f'_0|| after the last step, since the way of the first steps is short.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnas import data as datasets
from jnas.config.read import whole_numbers
from jnas.config.study import StudyConfig
from jnas.estimators.compact_table import Table
from jnas.run.progress import Progress
from jnas.studies.base import COLOURS, Figure, Findings, probe_images, spread_cells
from jnas.theory import infinite_width

BREAK = 0.1


class Step(NamedTuple):
    """A network after some steps.

    train_loss, test_loss: of the trained network.
    _linear: of its linearisation; _flow: of that in the limit of small steps.
    test_accuracy: in percent.
    test_distance: of test outputs from the prediction, relative to its whole way.
    """

    step: int
    train_loss: float
    train_loss_linear: float
    train_loss_flow: float
    test_loss: float
    test_loss_linear: float
    test_accuracy: float
    test_accuracy_linear: float
    test_distance: float


class Curve(NamedTuple):
    """Steps of one network. accuracy: of its cell in the table, in percent; width: channels."""

    architecture: str
    accuracy: float
    width: int
    steps: list[Step]


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Train some cells of the table at some widths. Raises `InputError` for too few images or cells."""
    settings = config.dynamics
    widths = whole_numbers(settings.widths, "dynamics.widths", 1)
    images, labels = probe_images(config, settings.train)
    test = probe_images(config, settings.test, test=True)
    classes = datasets.load(config.data).classes
    targets = np.eye(classes)[labels] - 1 / classes
    steps = np.unique(np.geomspace(1, settings.steps, 30).round().astype(int)).tolist()
    cells = spread_cells(table, settings.cells)
    curves = []
    with progress.task("training", len(cells.names) * len(widths), "networks") as advance:
        for name, accuracy, cell in zip(*cells, strict=True):
            for width in widths:
                followed = beside_linear(
                    jax.random.key(config.seed), tuple(cell.tolist()), width, (images, targets), test, steps,
                    share=settings.rate, depth=settings.depth,
                )  # fmt: skip
                curves.append(Curve(name, float(accuracy), width, followed))
                advance(1)
    rows = [(*curve[:3], *step) for curve in curves for step in curve.steps]
    return Findings(
        title=f"Training and its linearisation, for {len(cells.names)} cells of {table.space}",
        question=f"For how long does the network linearised at initialisation predict training on {settings.train} "
        f"images of {config.data}?",
        columns=(*Curve._fields[:3], *Step._fields),
        rows=rows,
        summary=[row for row in rows if row[3] in (steps[0], steps[-1])],
        figures=[
            _figure(curves, "loss", "test_loss", "test loss (logarithmic)"),
            _figure(curves, "accuracy", "test_accuracy", "test accuracy, %"),
        ],
        paragraphs=[_paragraph(curves, widths, settings.steps)],
    )


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
) -> list[Step]:
    """Train one network and its linearisation; both after each of `steps`, ascending.

    Args:
      key: of the weights.
      train: images [N, H, W, C] and targets [N, O].
      test: images and labels [M].
      share: of the largest stable learning rate of the linearised network, in (0, 1].
    """
    import neural_tangents as nt

    (images, targets), (test_images, labels) = train, test
    outputs, size = targets.shape[1], targets.size
    # The kernels at the initial weights.
    init, apply, _ = infinite_width.network(cell, width, outputs, depth)
    params = init(key, images.shape)
    kernel_fn = jax.jit(
        nt.empirical_ntk_fn(
            apply, trace_axes=(), vmap_axes=0, implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION
        )
    )
    train_kernel, test_kernel = kernel_fn(images, None, params), kernel_fn(test_images, images, params)
    # From [N, M, O, O] to [N O, M O].
    full, across = (
        np.asarray(jnp.swapaxes(kernel, 1, 2).reshape(-1, size), np.float64)
        for kernel in (train_kernel, test_kernel)
    )
    start, test_start = (np.asarray(apply(params, x), np.float64) for x in (images, test_images))
    # The linearised network, in closed form.
    eigenvalues, vectors = np.linalg.eigh(full)
    # Rounding leaves some slightly negative.
    eigenvalues = np.maximum(eigenvalues, 0)
    rate = share * 2 * size / eigenvalues[-1]
    error = vectors.T @ (start - targets).reshape(-1)
    flow = nt.predict.gradient_descent_mse(train_kernel, jnp.asarray(targets, jnp.float32), trace_axes=())
    flowing = flow(rate * jnp.asarray(steps, jnp.float32), jnp.asarray(start, jnp.float32))

    # The network itself, one step a call: within a loop of XLA, derivatives of convolutions are a hundred times slower
    # on a CPU.
    @jax.jit
    def descend(params: Any) -> Any:
        gradient = jax.grad(lambda params: jnp.mean((apply(params, images) - targets) ** 2) / 2)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    outputs_of = jax.jit(lambda params: (apply(params, images), apply(params, test_images)))
    test_targets = np.eye(outputs)[labels] - 1 / outputs
    followed: list[Step] = []
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
        followed.append(
            Step(
                int(step),
                _loss(real, targets), _loss(linear, targets), _loss(flowing[place], targets),
                _loss(real_test, test_targets), _loss(linear_test, test_targets),
                _percent_right(real_test, labels), _percent_right(linear_test, labels),
                float(np.linalg.norm(real_test - linear_test)),
            )
        )  # fmt: skip
    return [row._replace(test_distance=row.test_distance / way if way > 0 else 0.0) for row in followed]


def _loss(outputs: Any, targets: np.ndarray) -> float:
    return float(np.mean((np.asarray(outputs, np.float64) - targets) ** 2) / 2)


def _percent_right(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(100 * np.mean(np.argmax(outputs, axis=1) == labels))


def breaks_at(steps: Sequence[Step]) -> Step | None:
    """The first step of one network where test outputs have left the prediction; None where they never do."""
    return next((step for step in steps if not step.test_distance <= BREAK), None)


def _figure(curves: Sequence[Curve], name: str, field: str, label: str) -> Figure:
    cells = list(dict.fromkeys((curve.architecture, curve.accuracy) for curve in curves))

    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(1, len(cells), sharey=True))
        for axes, (cell, accuracy) in zip(panels, cells, strict=True):
            for number, curve in enumerate(curve for curve in curves if curve.architecture == cell):
                places, colour = [step.step for step in curve.steps], COLOURS[number % len(COLOURS)]
                for suffix, line, text in (("", "-", "trained"), ("_linear", "--", "linearised")):
                    values = [getattr(step, field + suffix) for step in curve.steps]
                    axes.plot(places, values, line, color=colour, label=f"{curve.width} channels, {text}")
                broken = breaks_at(curve.steps)
                if broken is not None:
                    axes.plot(broken.step, getattr(broken, field), "x", markersize=8, color=colour)
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


def _paragraph(curves: Sequence[Curve], widths: Sequence[int], steps: int) -> str:
    def percent(shares: Sequence[float]) -> str:
        return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"

    sentences = []
    for width in widths:
        networks = [curve.steps for curve in curves if curve.width == width]
        broken = sorted(step.step for step in map(breaks_at, networks) if step is not None)
        when = f", after {broken[0]} to {broken[-1]} steps" if broken else ""
        ends = [network[-1] for network in networks]
        furthest = [max(step.test_distance for step in network) for network in networks]
        sentences.append(
            f"With {width} channels the prediction breaks for {len(broken)} of {len(networks)} cells in {steps} steps"
            f"{when}; test outputs are off by at most {percent(furthest)} of the way that the linearised network "
            f"goes, by {percent([step.test_distance for step in ends])} in the end, where training reaches "
            f"{np.mean([step.test_accuracy for step in ends]):.1f} % on test images and linearised it would reach "
            f"{np.mean([step.test_accuracy_linear for step in ends]):.1f} %."
        )
    return " ".join(sentences)
