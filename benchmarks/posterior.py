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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import posterior_speed
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from jnas import data as datasets
from jnas import spaces
from jnas.config import read
from jnas.config import score as scoring_config
from jnas.config.old_search import SearchConfig
from jnas.estimators.table import read_accuracies
from jnas.oneshot import candidates, posterior
from jnas.oneshot.supernets import Supernet
from jnas.proxies import PROXIES
from jnas.run import posterior_search, scoring, supernet_training
from jnas.run.compilation_cache import enable_compilation_cache
from jnas.run.progress import Progress
from jnas.run.supernet_scores import Scorer
from jnas.store.folder import open_run

SAMPLES = (10, 50, 500, 1500)
AT_ONCE = 25
console = Console(width=130)


class Trained(NamedTuple):
    """A trained supernet with all that evaluates its candidates."""

    config: SearchConfig
    work: supernet_training.Work
    dataset: datasets.Dataset
    state: Any
    evaluate: Any


def train(
    config: SearchConfig, dataset: datasets.Dataset, blind: bool = False, share: float = 0.5
) -> Trained:
    """The supernet that a configuration describes, by variational dropout or, for comparison, blindly.

    Blindly: one uniform path a batch or, where masks are channels, each kept with probability `share`.
    """
    settings = config.posterior
    supernet = posterior_search.build(config, dataset)
    gating = posterior.gating(supernet.sizes, settings.gates)
    keys = posterior_search.Keys(
        *jax.random.split(jax.random.key(config.seed), len(posterior_search.Keys._fields))
    )
    drop, inclusion = prior_of(config, supernet, dataset)
    work = supernet_training.Work(
        settings, supernet, gating, posterior_search.hold_out(config, dataset), inclusion
    )

    def draw(key, images):
        if supernet.space:
            return supernet.space.gates(supernet.space.sample(key, 1))[..., 1:].reshape(1, -1)
        return jax.random.bernoulli(key, share, (images, len(gating.group)))

    trainer = supernet_training.make_trainer(
        work, keys.training, posterior.logits_of(drop), draw=draw if blind else None
    )
    start = time.perf_counter()
    state = trainer.init(keys.weights)
    for number in range(settings.epochs):
        state, record = trainer.epoch(state, number)
    jax.block_until_ready(state)
    print(
        f"trained {'blindly' if blind else 'by variational dropout'}, seed {config.seed}: "
        f"{time.perf_counter() - start:.0f} s, cross-entropy {float(record.cross_entropy):.3f}, "
        f"right {float(record.accuracy):.1f} %",
        flush=True,
    )
    return Trained(config, work, dataset, state, posterior_search.evaluator(work, keys.recalibrate))


def prior_of(
    config: SearchConfig, supernet: Supernet, dataset: datasets.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Drop and inclusion probabilities before training; theory is asked where the configuration says so."""
    progress = Progress(quiet=True)
    if config.posterior.prior == "none" or supernet.space is None:
        return posterior_search.prior_of(config, supernet, None, progress)
    with tempfile.TemporaryDirectory() as path, open_run(path, config) as folder:
        scorer = Scorer(config, supernet.space, dataset, folder)
        return posterior_search.prior_of(config, supernet, scorer, progress)


def shrunk(dataset: datasets.Dataset, factor: int) -> datasets.Dataset:
    """Images of a `factor`-th of the height and width: each pixel the mean of factor x factor."""

    def mean(images: np.ndarray) -> np.ndarray:
        count, height, width, channels = images.shape
        squares = images.reshape(count, height // factor, factor, width // factor, factor, channels)
        return squares.mean(axis=(2, 4)) / (255 if images.dtype == np.uint8 else 1)

    x_train, x_test = mean(dataset.x_train), mean(dataset.x_test)
    name = f"{dataset.name} / {factor}"
    return datasets.base.dataset(name, x_train, dataset.y_train, x_test, dataset.y_test, dataset.classes)


def accuracies(trained: Trained, kept: np.ndarray, test: bool = False, state: Any = None) -> np.ndarray:
    """Of candidates, on the images held out or on the test images."""
    state = state or trained.state
    images, labels = trained.work.split.images, trained.work.split.labels
    if test:
        images, labels = trained.dataset.x_test, trained.dataset.y_test
    parts = []
    for start in range(0, len(kept), AT_ONCE):
        part = kept[start : start + AT_ONCE]
        filled = part[np.arange(AT_ONCE) % len(part)]
        parts.append(trained.evaluate(state.params, state.batch_stats, filled, images, labels)[: len(part)])
    return np.nan_to_num(np.concatenate(parts), nan=0.0)


def drawn(trained: Trained, count: int, blind: bool) -> np.ndarray:
    # Far from the keys that a search splits its seed into.
    key = jax.random.fold_in(jax.random.key(trained.config.seed), 1000 + blind)
    supernet, gating, logits = trained.work.supernet, trained.work.gating, trained.state.logits
    if blind:
        share = candidates.equal_share(supernet, gating, logits)
        return candidates.blind(key, supernet, gating, share, count)
    return candidates.from_posterior(key, supernet, gating, logits, count)


def tuned(trained: Trained, kept: np.ndarray, epochs: int) -> float:
    """Test accuracy of one candidate after further epochs with its own masks."""
    work = trained.work._replace(settings=replace(trained.config.posterior, tuning_epochs=epochs))
    trainer = supernet_training.make_trainer(
        work, jax.random.key(7), trained.state.logits, draw=lambda key, images: jnp.asarray(kept)[None],
        tuning=True,
    )  # fmt: skip
    state = trainer.init(jax.random.key(0))._replace(
        params=trained.state.params, batch_stats=trained.state.batch_stats
    )
    for number in range(epochs):
        state, _ = trainer.epoch(state, number)
    return float(accuracies(trained, kept[None], test=True, state=state)[0])


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.2f}"


def masks(config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace) -> None:
    rows: dict[str, dict[str, list[float]]] = {}

    def note(name: str, **values: float) -> None:
        for key, value in values.items():
            rows.setdefault(name, {}).setdefault(key, []).append(value)

    for seed in range(seeds):
        trained = train(replace(config, seed=seed), dataset)
        whole = np.ones((1, len(trained.work.gating.group)), bool)
        note(
            "whole supernet", error=100 - accuracies(trained, whole, test=True)[0],
            params=trained.work.supernet.parameters,
        )  # fmt: skip
        for name, blind in (("posterior masks", False), ("blind masks", True)):
            kept = drawn(trained, options.candidates, blind)
            found = kept[int(np.argmax(accuracies(trained, kept)))]
            own = (
                {"tuned": 100 - tuned(trained, found, options.tuning_epochs)} if options.tuning_epochs else {}
            )
            note(
                name,
                error=100 - accuracies(trained, found[None], test=True)[0],
                mean=100 - accuracies(trained, kept, test=True).mean(),
                params=candidates.parameters_of(trained.work.supernet, trained.work.gating, kept).mean(),
                **own,
            )
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
    errors: dict[tuple[bool, int], list[float]] = {}
    for seed in range(seeds):
        learned = train(replace(config, seed=seed), dataset)
        # Candidates as large as the posterior's, on average.
        share = candidates.equal_share(learned.work.supernet, learned.work.gating, learned.state.logits)
        for blind in (False, True):
            trained = train(replace(config, seed=seed), dataset, True, share) if blind else learned
            key = jax.random.fold_in(jax.random.key(seed), 1001)
            kept = (
                candidates.blind(key, trained.work.supernet, trained.work.gating, share, max(SAMPLES))
                if blind
                else drawn(trained, max(SAMPLES), blind=False)
            )
            held_out = accuracies(trained, kept)
            for count in SAMPLES:
                best = int(np.argmax(held_out[:count]))
                error = 100 - accuracies(trained, kept[best][None], test=True)[0]
                errors.setdefault((blind, count), []).append(error)
    table = Table(title=f"{config.space} on {dataset.name}: test error of the best of so many candidates, %")
    for heading in ("candidates", "posterior", "blind supernet, blind candidates"):
        table.add_column(heading, justify="right")
    for count in SAMPLES:
        table.add_row(str(count), spread(errors[False, count]), spread(errors[True, count]))
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
        best, mean, params = [], [], []
        for seed in range(seeds):
            own = replace(config, seed=seed, posterior=replace(config.posterior, **changes))
            trained = train(own, dataset)
            kept = drawn(trained, options.candidates, blind=False)
            found = kept[int(np.argmax(accuracies(trained, kept)))]
            best.append(100 - accuracies(trained, found[None], test=True)[0])
            mean.append(100 - accuracies(trained, kept, test=True).mean())
            params.append(candidates.parameters_of(trained.work.supernet, trained.work.gating, kept).mean())
        table.add_row(name, spread(best), spread(mean), f"{np.mean(params):,.0f}")
    console.print(table)


def distinct(kept: np.ndarray) -> np.ndarray:
    _, first = np.unique(kept, axis=0, return_index=True)
    return np.asarray(kept[np.sort(first)])


def worth(score: Any, trained: Trained, kept: np.ndarray, proxy: str) -> np.ndarray:
    """Scores of the cells of candidates, higher is better, -inf where they failed."""
    space, size = spaces.get("nasbench201"), scoring.chunk_size(jax.local_devices())
    architectures = np.stack(
        [space.from_string(candidates.to_text(trained.work.supernet, own)) for own in kept]
    )
    parts = [score(architectures[start : start + size])[proxy] for start in range(0, len(kept), size)]
    values = PROXIES[proxy].sign * np.concatenate([values for values, _ in parts])
    return np.where([status == "ok" for _, statuses in parts for status in statuses], values, -np.inf)


def cells(config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace) -> None:
    known = read_accuracies(options.table)
    rows: dict[str, dict[str, list[float]]] = {}
    informed = replace(config, posterior=replace(config.posterior, prior="training_free"))
    kinds = [("posterior", config, False), ("posterior, prior from theory", informed, False)]
    kinds.append(("uniform paths", config, True))
    score = (
        scoring.chunk_scorer(scoring_config.from_mapping({}), (options.filter,), dataset)
        if options.filter
        else None
    )
    for seed in range(seeds):
        for name, own, blind in kinds:
            trained = train(replace(own, seed=seed), dataset, blind)
            pools = {name: distinct(drawn(trained, options.candidates, blind))}
            if score is not None:
                many = distinct(drawn(trained, config.posterior.filter_factor * options.candidates, blind))
                best = np.argsort(-worth(score, trained, many, options.filter), kind="stable")
                pools[f"{name}, filtered by {options.filter}"] = many[best[: options.candidates]]
            random = candidates.blind(
                jax.random.key(1000 + seed), trained.work.supernet, trained.work.gating, 0.5, options.ranked
            )
            standing = np.array([known[candidates.to_text(trained.work.supernet, own)] for own in random])
            tau = float(kendalltau(accuracies(trained, random), standing).statistic)
            for pool, kept in pools.items():
                texts = [candidates.to_text(trained.work.supernet, own) for own in kept]
                found = texts[int(np.argmax(accuracies(trained, kept)))]
                row = rows.setdefault(pool, {})
                average = float(np.mean([known[text] for text in texts]))
                for key, value in (("found", known[found]), ("drawn", average), ("tau", tau)):
                    row.setdefault(key, []).append(value)
                print(f"  {pool}, seed {seed}: {found} {known[found]:.2f} %, tau {tau:.3f}", flush=True)
    table = Table(
        title=f"nasbench201 on {dataset.name}, {seeds} seeds, {options.candidates} candidates drawn"
    )
    for heading in ("supernet", "found, table %", "drawn on average, table %", "tau of random cells"):
        table.add_column(heading, justify="left" if heading == "supernet" else "right")
    for name, row in rows.items():
        tau = f"{np.mean(row['tau']):.3f} ± {np.std(row['tau'], ddof=1) if seeds > 1 else 0:.3f}"
        table.add_row(name, spread(row["found"]), spread(row["drawn"]), tau)
    console.print(table)


def speed(config: SearchConfig, dataset: datasets.Dataset, seeds: int, options: argparse.Namespace) -> None:
    trained = train(replace(config, posterior=replace(config.posterior, epochs=1)), dataset)
    posterior_speed.report(trained, drawn(trained, 100, blind=True), console)


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
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of the section posterior"
    )
    options = parser.parse_args()
    enable_compilation_cache()
    pairs = [("space", options.supernet), ("strategy", "posterior"), ("data", options.data)]
    if options.supernet == "nasbench201":
        pairs += [("posterior.gates", "group"), ("posterior.recalibrate", "512")]
    pairs += [(f"posterior.{key}", value) for key, value in (entry.split("=") for entry in options.set)]
    config = read.from_options(SearchConfig, pairs, source="--set")
    dataset = datasets.load(options.data)
    dataset = shrunk(dataset, options.shrink) if options.shrink > 1 else dataset
    COMMANDS[options.command](config, dataset, options.seeds, options)


if __name__ == "__main__":
    main()
