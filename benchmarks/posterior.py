"""What a posterior over architecture and weights is worth: the tables of the posterior-guided search.

    python benchmarks/posterior.py masks     [--supernet shake_shake] [--data D] [--seeds 3]
    python benchmarks/posterior.py samples   ...
    python benchmarks/posterior.py ablations ...
    python benchmarks/posterior.py cells     --table TABLE.csv.gz [--data D] [--shrink 2] ...
    python benchmarks/posterior.py speed     [--supernet nasbench201]

masks: the error of the best candidate of the posterior beside that of blind masks of equal expected size, with
inherited weights and after tuning. samples: the best of 10, 50, 500, 1500 candidates of the posterior beside the best
of as many blind ones from a supernet that was trained blindly. ablations: temperature, penalty, kind of gates.
cells: accuracy in a table of the cells found, and the rank correlation of inherited with stand-alone accuracy; with
--filter as well the best of equally many candidates that a proxy chose among four times as many.
speed: candidates a second by how many one program evaluates, masked and, cells, by their operations alone; training
steps a second.

Candidates are chosen on held-out training images; errors are those of the test images. Means and standard deviations
over seeds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import posterior_speed
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from jnas import data as datasets
from jnas import spaces
from jnas.config import read
from jnas.config.search import Filter, SearchConfig, Tuning, kind
from jnas.estimators.compact_table import read_accuracies
from jnas.estimators.inherited import inherited
from jnas.estimators.settings import Proxies
from jnas.oneshot import posterior
from jnas.oneshot.settings import Uniform
from jnas.oneshot.uniform import uniform
from jnas.run import loop, oneshot
from jnas.run.compilation_cache import enable_compilation_cache
from jnas.run.progress import Progress, ignored
from jnas.run.supernet_training import Budget, fixed_path, train_supernet
from jnas.store.folder import open_run
from jnas.strategies.listed import distinct
from jnas.types import Candidates

SAMPLES = (10, 50, 500, 1500)
AT_ONCE = 25
console = Console(width=130)


class Trained(NamedTuple):
    """A trained supernet. variables: params and running statistics; sample: (key, B) -> int32[B, D]."""

    config: SearchConfig
    dataset: datasets.Dataset
    learned: oneshot.Learned
    variables: Any
    sample: Callable[[jax.Array, int], np.ndarray]


def train(config: SearchConfig, dataset: datasets.Dataset) -> Trained:
    """The supernet that a configuration describes, trained by variational dropout."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as path, open_run(Path(path) / "run", config) as folder:
        learned = oneshot.learn(config, oneshot.prepare(config, dataset), folder, Progress(quiet=True))
    console.print(f"trained, seed {config.seed}: {time.perf_counter() - start:.0f} s")
    return Trained(config, dataset, learned, learned.method.params(learned.state), learned.space.sample)


def train_blindly(trained: Trained) -> Trained:
    """The same supernet trained for comparison from the same weights on the same batches, without a posterior.

    By one uniform path a batch or, where masks are channels, each kept with one probability: candidates are as large
    as those of the posterior, on average.
    """
    learned, config, start = trained.learned, trained.config, time.perf_counter()

    def draw(key: jax.Array, images: int) -> jax.Array:
        masking = gating(trained)
        kept = jax.random.bernoulli(key, share(trained), (images, len(masking.group)))
        return kept[:, masking.expand]

    budget = of_epochs(config, config.supernet.epochs)
    settings = single_path(config, config.oneshot.learning_rate)
    constants = budget.constants(learned.setup.split.dataset)
    method = uniform(
        learned.setup.supernet, settings, **constants, draw=None if config.space in spaces.SPACES else draw
    )
    state = train_supernet(
        method, learned.setup.split, budget, (learned.keys.weights, learned.keys.training), ignored
    )
    console.print(f"trained blindly, seed {trained.config.seed}: {time.perf_counter() - start:.0f} s")
    return trained._replace(variables=method.params(state), sample=lambda key, n: blind(trained, key, n))


def of_epochs(config: SearchConfig, epochs: int) -> Budget:
    return Budget(epochs, config.supernet.batch, config.supernet.augment)


def single_path(config: SearchConfig, learning_rate: float) -> Uniform:
    """Settings of a training without a posterior, with its penalty of the weights."""
    own = config.oneshot
    return Uniform(learning_rate=learning_rate, weight_penalty=own.weight_penalty, examples=own.examples)


def gating(trained: Trained) -> posterior.Gating:
    return posterior.gating(trained.learned.setup.supernet.sizes, trained.config.oneshot.gates)


def share(trained: Trained) -> float:
    """The probability of keeping a mask at which candidates are as large as the posterior's, on average."""
    learned = trained.learned
    return posterior.equal_share(learned.setup.supernet, gating(trained), learned.state.logits)


def blind(trained: Trained, key: jax.Array, count: int) -> np.ndarray:
    """Architectures int32[B, D] that know nothing of the supernet."""
    return posterior.blind(key, trained.learned.setup.supernet, gating(trained), share(trained), count)


def seeded(trained: Trained, use: int) -> jax.Array:
    # Far from the keys that a search splits its seed into.
    return jax.random.fold_in(jax.random.key(trained.config.seed), 1000 + use)


def shrunk(dataset: datasets.Dataset, factor: int) -> datasets.Dataset:
    """Images of a `factor`-th of the height and width: each pixel the mean of factor x factor."""

    def mean(images: np.ndarray) -> np.ndarray:
        count, height, width, channels = images.shape
        squares = images.reshape(count, height // factor, factor, width // factor, factor, channels)
        return squares.mean(axis=(2, 4)) / (255 if images.dtype == np.uint8 else 1)

    x_train, x_test = mean(dataset.x_train), mean(dataset.x_test)
    name = f"{dataset.name} / {factor}"
    return datasets.base.dataset(name, x_train, dataset.y_train, x_test, dataset.y_test, dataset.classes)


def accuracies(
    trained: Trained, subjects: Candidates, test: bool = False, variables: Any = None
) -> np.ndarray:
    """Percent of the images held out, or of the test images, that candidates have right; 0 where not finite."""
    split = trained.learned.setup.split
    images, labels = split.images, split.labels
    if test:
        images, labels = trained.dataset.x_test, trained.dataset.y_test
    estimator = inherited(
        trained.learned.setup.supernet, variables or trained.variables, split.dataset, images, labels,
        recalibrate=trained.config.estimator.recalibrate, batch=min(AT_ONCE, loop.size(subjects)),
    )  # fmt: skip
    values = estimator.evaluate(jax.random.key(trained.config.seed), subjects)
    return np.maximum(np.asarray(values.value)[:, 0], 0.0)


def best(trained: Trained, architectures: np.ndarray) -> np.ndarray:
    """The one of int32[B, D] that is best on the images held out: int32[1, D]."""
    place = int(np.argmax(accuracies(trained, Candidates(architectures))))
    return architectures[[place]]


def error(trained: Trained, architectures: np.ndarray, variables: Any = None) -> float:
    """Mean test error in percent."""
    return 100 - accuracies(trained, Candidates(architectures), True, variables).mean()


def parameters(trained: Trained, architectures: np.ndarray) -> float:
    return trained.learned.setup.supernet.parameters_of(architectures).mean()


def tuned(trained: Trained, architecture: np.ndarray, epochs: int) -> float:
    """Test error of one candidate, int32[1, D], after further epochs with its masks."""
    learned, budget = trained.learned, of_epochs(trained.config, epochs)
    settings = single_path(trained.config, Tuning().learning_rate)
    method = fixed_path(learned.setup.supernet, settings, learned.setup.split, budget, architecture[0])
    params, statistics = trained.variables
    start = method.init(learned.keys.tuning)._replace(params=params, batch_stats=statistics)
    state = train_supernet(
        method, learned.setup.split, budget, (learned.keys.tuning,) * 2, ignored, start=start
    )
    return error(trained, architecture, method.params(state))


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def masks(config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace) -> None:
    rows: dict[str, dict[str, list[float]]] = {}

    def note(name: str, **values: float) -> None:
        for key, value in values.items():
            rows.setdefault(name, {}).setdefault(key, []).append(value)

    for seed in range(seeds):
        trained = train(replace(config, seed=seed), dataset)
        supernet = trained.learned.setup.supernet
        whole = np.ones((1, supernet.space.cells, len(supernet.space.edges), len(supernet.space.operations)))
        right = accuracies(trained, Candidates(gates=whole), test=True)
        note("whole supernet", error=100 - right[0], params=supernet.parameters)
        draws = {
            "posterior masks": trained.sample(seeded(trained, 0), options.candidates),
            "blind masks": blind(trained, seeded(trained, 1), options.candidates),
        }
        for name, drawn in draws.items():
            chosen = best(trained, drawn)
            if options.tuning_epochs:
                note(name, tuned=tuned(trained, chosen, options.tuning_epochs))
            note(
                name, error=error(trained, chosen), mean=error(trained, drawn), params=parameters(trained, drawn)
            )  # fmt: skip
    table = Table(
        title=f"{config.space} on {dataset.name}, {seeds} seeds, {options.candidates} candidates each"
    )
    for heading in ("", "error of the best, %", "mean error, %", "best, tuned, %", "parameters"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in rows.items():
        table.add_row(
            name, spread(row["error"]), spread(row["mean"]) if "mean" in row else "",
            spread(row["tuned"]) if "tuned" in row else "", f"{np.mean(row['params']):,.0f}",
        )  # fmt: skip
    console.print(table)


def samples(config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace) -> None:
    errors: dict[tuple[str, int], list[float]] = {}
    for seed in range(seeds):
        learned = train(replace(config, seed=seed), dataset)
        for name, trained in (("posterior", learned), ("blind", train_blindly(learned))):
            drawn = trained.sample(seeded(trained, 0), max(SAMPLES))
            held_out = accuracies(trained, Candidates(drawn))
            for count in SAMPLES:
                place = int(np.argmax(held_out[:count]))
                errors.setdefault((name, count), []).append(error(trained, drawn[[place]]))
    table = Table(title=f"{config.space} on {dataset.name}: test error of the best of so many candidates, %")
    for heading in ("candidates", "posterior", "blind supernet, blind candidates"):
        table.add_column(heading, justify="right")
    for count in SAMPLES:
        table.add_row(str(count), spread(errors["posterior", count]), spread(errors["blind", count]))
    console.print(table)


def ablations(
    config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace
) -> None:
    variants: dict[str, dict[str, Any]] = {
        "as configured": {},
        "temperature 2/3": {"temperature": 2 / 3},
        "constant L2": {"penalty": "constant"},
        "a mask for each group": {"gates": "group"},
    }
    table = Table(
        title=f"{config.space} on {dataset.name}, {seeds} seeds, {options.candidates} candidates each"
    )
    for heading in ("variant", "error of the best, %", "mean error, %", "parameters"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, changes in variants.items():
        errors, means, params = [], [], []
        for seed in range(seeds):
            trained = train(replace(config, seed=seed, oneshot=replace(config.oneshot, **changes)), dataset)
            drawn = trained.sample(seeded(trained, 0), options.candidates)
            errors.append(error(trained, best(trained, drawn)))
            means.append(error(trained, drawn))
            params.append(parameters(trained, drawn))
        table.add_row(name, spread(errors), spread(means), f"{np.mean(params):,.0f}")
    console.print(table)


def cells(config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace) -> None:
    accuracy = read_accuracies(options.table)
    rows: dict[str, dict[str, list[float]]] = {}
    informed = replace(config, supernet=replace(config.supernet, prior="training_free"))
    for seed in range(seeds):
        trained = train(replace(config, seed=seed), dataset)
        kinds = {
            "posterior": trained,
            "posterior, prior from theory": train(replace(informed, seed=seed), dataset),
            "uniform paths": train_blindly(trained),
        }
        space = trained.learned.setup.supernet.space

        def in_table(architectures: np.ndarray, space: Any = space) -> np.ndarray:
            return np.array([accuracy[space.to_string(row)] for row in architectures])

        random = np.asarray(space.sample(jax.random.key(1000 + seed), options.ranked))
        for label, trained in kinds.items():
            ranks = accuracies(trained, Candidates(random))
            tau = float(kendalltau(ranks, in_table(random)).statistic)
            pools = {label: distinct(trained.sample, seeded(trained, 0), options.candidates)}
            if options.filter:
                # The best by a proxy of several times as many draws, as a search with a filter takes them.
                many = distinct(trained.sample, seeded(trained, 0), Filter().factor * options.candidates)
                estimator = Proxies(proxies=options.filter).make(space, dataset)
                values = np.asarray(estimator.evaluate(jax.random.key(0), Candidates(many)).value)[:, 0]
                order = np.argsort(-values, kind="stable")
                pools[f"{label}, filtered by {options.filter}"] = many[order[: options.candidates]]
            for name, pool in pools.items():
                value = in_table(best(trained, pool))[0]
                row = rows.setdefault(name, {})
                for key, number in (("best", value), ("drawn", in_table(pool).mean()), ("tau", tau)):
                    row.setdefault(key, []).append(float(number))
                console.print(f"  {name}, seed {seed}: {value:.2f} %, tau {tau:.3f}")
    table = Table(
        title=f"nasbench201 on {dataset.name}, {seeds} seeds, {options.candidates} candidates drawn"
    )
    for heading in ("supernet", "found, table %", "drawn on average, table %", "tau of random cells"):
        table.add_column(heading, justify="left" if heading == "supernet" else "right")
    for name, row in rows.items():
        table.add_row(name, spread(row["best"]), spread(row["drawn"]), spread(row["tau"], 3))
    console.print(table)


def speed(config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace) -> None:
    trained = train(replace(config, supernet=replace(config.supernet, epochs=1)), dataset)
    posterior_speed.report(trained, blind(trained, seeded(trained, 1), 100), console)


COMMANDS = {"masks": masks, "samples": samples, "ablations": ablations, "cells": cells, "speed": speed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS, nargs="?", default="speed")
    parser.add_argument("--supernet", default="nasbench201")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--tuning_epochs", type=int, default=5)
    parser.add_argument("--ranked", type=int, default=200, help="random cells whose ranks are compared")
    parser.add_argument("--table")
    parser.add_argument("--filter", help="proxy that filters candidates (cells)")
    parser.add_argument("--shrink", type=int, default=1, help="take images of this fraction of the size")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of a search, as supernet.width=4"
    )
    options = parser.parse_args()
    enable_compilation_cache()
    pairs = [("space", options.supernet), ("oneshot", "posterior"), ("data", options.data)]
    if options.supernet == "nasbench201":
        pairs += [("oneshot.gates", "group"), ("estimator.recalibrate", "512")]
    pairs += [tuple(entry.split("=", 1)) for entry in options.set]
    config = read.from_options(kind(), pairs, source="--set")
    dataset = datasets.load(options.data)
    dataset = shrunk(dataset, options.shrink) if options.shrink > 1 else dataset
    COMMANDS[options.command](config, dataset, options.seeds, options)


if __name__ == "__main__":
    main()
