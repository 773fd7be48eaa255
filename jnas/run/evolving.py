"""Evolution on training-free scores: the host loop of the strategy `evolution`.

Generations are asked for, scored in compiled batches on the network `network`, and told, until the budget is spent.
The best of them are the finalists: they are scored on the network `final`, by proxies of its own, several times with
other weights and images. Found is the one with the best combined rank of the mean scores among the finalists.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import msgspec
import numpy as np
from jax import Array

from jnas import data as datasets
from jnas import spaces
from jnas.config import score as scoring_config
from jnas.config.old_search import SearchConfig
from jnas.estimators.settings import NetworkConfig
from jnas.proxies import PROXIES
from jnas.proxies.combination import log_rank_sum, oriented
from jnas.run import scoring
from jnas.run.progress import Progress
from jnas.store.folder import RunFolder
from jnas.store.records import Evaluation
from jnas.strategies import old_evolution as evolution


def evolve(
    config: SearchConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    key: Array,
    folder: RunFolder,
    progress: Progress,
) -> tuple[np.ndarray, list[dict[str, Any]], int]:
    """What was found, int32[D]; a record of each generation; the number of evaluations."""
    settings = config.evolution
    proxies, final_proxies = names(settings.proxies), names(settings.final_proxies)
    state = evolution.init(space, len(proxies))
    generations: list[dict[str, Any]] = []
    score = StoredScorer(score_config(config, config.network, 0), space, dataset, folder, proxies)
    progress.say(
        f"evolving {space.name} on {dataset.name}: {settings.evaluations} architectures in generations of "
        f"{settings.children}, by {', '.join(proxies)}; then {settings.finalists} of them {settings.final_repeats} "
        f"times by {', '.join(final_proxies)}"
    )
    with progress.task("evolving", settings.evaluations, "architectures") as advance:
        while len(state.architectures) < settings.evaluations:
            children = min(settings.children, settings.evaluations - len(state.architectures))
            asked = evolution.ask(
                space, jax.random.fold_in(key, state.round), state, children, settings.parents
            )
            if not len(asked):
                break
            state = evolution.tell(state, asked, score("search", state.round, 0, asked, advance))
            top = int(evolution.best(state, 1)[0])
            generations.append(
                {
                    "generation": state.round,
                    "evaluated": len(state.architectures),
                    "best": space.to_string(state.architectures[top]),
                }
            )
    finalists = state.architectures[evolution.best(state, settings.finalists)]
    repeats = []
    total = len(finalists) * settings.final_repeats
    with progress.task("scoring the finalists", total, "architectures") as advance:
        for repeat in range(settings.final_repeats):
            score = StoredScorer(
                score_config(config, config.final, 1 + repeat), space, dataset, folder, final_proxies
            )
            repeats.append(score("final", 0, repeat, finalists, advance))
    mean = np.mean(repeats, axis=0)
    combined = log_rank_sum({name: mean[:, index] for index, name in enumerate(final_proxies)})
    return finalists[int(np.argmax(combined))], generations, len(state.architectures) + total


def names(text: str) -> tuple[str, ...]:
    """The proxies in a text separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def check(config: SearchConfig, dataset: datasets.Dataset) -> None:
    """Raise `InputError` for what an evolution cannot score, before anything is computed."""
    for network, text in (
        (config.network, config.evolution.proxies),
        (config.final, config.evolution.final_proxies),
    ):
        scoring.check(score_config(config, network, 0), names(text), dataset)


def score_config(config: SearchConfig, network: NetworkConfig, repeat: int) -> scoring_config.ScoreConfig:
    """How the architectures of a search are scored; each repeat has weights and images of its own."""
    seed = int(jax.random.randint(jax.random.fold_in(jax.random.key(config.seed), repeat), (), 0, 2**31 - 1))
    return scoring_config.ScoreConfig(
        space=config.space,
        seed=seed,
        data=config.data,
        network=network,
        ntk=msgspec.structs.replace(config.ntk, repeats=1),
        regions=msgspec.structs.replace(config.regions, repeats=1),
    )


class StoredScorer:
    """Scores of architectures, from the records where they are: oriented float64[B, P]."""

    def __init__(
        self,
        config: scoring_config.ScoreConfig,
        space: spaces.Space,
        dataset: datasets.Dataset,
        folder: RunFolder,
        proxies: tuple[str, ...],
    ):
        self._make = lambda: scoring.chunk_scorer(config, proxies, dataset)
        self._score: Callable[[np.ndarray], scoring.SCORES] | None = None
        self._space, self._folder, self._proxies = space, folder, proxies

    def __call__(
        self, stage: str, round: int, repeat: int, architectures: np.ndarray, advance: Callable[[int], None]
    ) -> np.ndarray:
        records, proxies = self._folder.records, self._proxies
        stored = {name: records.values(stage, round, name, repeat) for name in proxies}
        size = scoring.chunk_size(jax.local_devices())
        for start in range(0, len(architectures), size):
            chunk = architectures[start : start + size]
            places = range(start, start + len(chunk))
            if not all(place in stored[name] for name in proxies for place in places):
                began = time.perf_counter()
                self._score = self._score or self._make()
                scores = self._score(chunk)
                each = (time.perf_counter() - began) / len(chunk) / len(proxies)
                records.add(
                    Evaluation(
                        stage, round, repeat, place, name, self._space.to_string(chunk[place - start]),
                        float(scores[name][0][place - start]), each,
                    )
                    for name in proxies
                    for place in places
                )  # fmt: skip
                for name in proxies:
                    stored[name].update(zip(places, scores[name][0].tolist(), strict=True))
            advance(len(chunk))
        columns = [[stored[name][place] for place in range(len(architectures))] for name in proxies]
        values = [
            oriented(np.array(column), None, PROXIES[name].sign)
            for name, column in zip(proxies, columns, strict=True)
        ]
        return np.stack(values, axis=1)
