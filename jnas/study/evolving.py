"""Evolution on training-free scores: the host loop of the strategy `evolution`.

Generations are asked for, scored in compiled batches and told, until the budget is spent. Then the finalists are
scored again with other weights and images, and the best by the mean of all its scores, ranked within the whole
archive, is what was found.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax import Array

from jnas import data as datasets
from jnas import spaces
from jnas.proxies import PROXIES
from jnas.proxies.combination import log_rank_sum, oriented
from jnas.strategies import evolution
from jnas.study import scoring
from jnas.study.config import SearchConfig
from jnas.study.progress import Progress
from jnas.study.records import Evaluation
from jnas.study.run_folder import RunFolder


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
    proxies = proxies_of(config)
    state = evolution.init(space, len(proxies))
    generations: list[dict[str, Any]] = []
    score = _Scorer(config, space, dataset, folder, proxies, 0)
    progress.say(
        f"evolving {space.name} on {dataset.name}: {settings.evaluations} architectures in generations of "
        f"{settings.children}, by {', '.join(proxies)}; then {settings.finalists} of them again, "
        f"{settings.final_repeats} times"
    )
    with progress.task("evolving", settings.evaluations, "architectures") as advance:
        while len(state.architectures) < settings.evaluations:
            children = min(settings.children, settings.evaluations - len(state.architectures))
            asked = evolution.ask(
                space, jax.random.fold_in(key, state.round), state, children, settings.parents
            )
            if not len(asked):
                break
            state = evolution.tell(state, asked, score("search", state.round, asked, advance))
            top = int(evolution.best(state, 1)[0])
            generations.append(
                {
                    "generation": state.round,
                    "evaluated": len(state.architectures),
                    "best": space.to_string(state.architectures[top]),
                    "scores": dict(zip(proxies, (state.scores[top] * _signs(proxies)).tolist(), strict=True)),
                }
            )
    chosen = evolution.best(state, settings.finalists)
    total = len(chosen) * settings.final_repeats
    scores = state.scores.copy()
    with progress.task("scoring the finalists again", total) as advance:
        repeats = [state.scores[chosen]]
        for repeat in range(1, settings.final_repeats + 1):
            again = _Scorer(config, space, dataset, folder, proxies, repeat)
            repeats.append(again("final", 0, state.architectures[chosen], advance))
    scores[chosen] = np.mean(repeats, axis=0)
    combined = log_rank_sum({name: scores[:, index] for index, name in enumerate(proxies)})
    winner = chosen[int(np.argmax(combined[chosen]))]
    return state.architectures[winner], generations, len(state.architectures) + total


def proxies_of(config: SearchConfig) -> tuple[str, ...]:
    """The proxies that `evolution.proxies` names, each once."""
    names = (name.strip() for name in config.evolution.proxies.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def score_config(config: SearchConfig, repeat: int = 0) -> scoring.ScoreConfig:
    """How the architectures of a search are scored; each repeat has weights and images of its own."""
    seed = int(jax.random.randint(jax.random.fold_in(jax.random.key(config.seed), repeat), (), 0, 2**31 - 1))
    return scoring.ScoreConfig(
        space=config.space,
        seed=seed,
        data=config.data,
        network=config.network,
        ntk=replace(config.ntk, repeats=1),
        regions=replace(config.regions, repeats=1),
    )


def _signs(proxies: tuple[str, ...]) -> np.ndarray:
    return np.array([PROXIES[name].sign for name in proxies], np.float64)


class _Scorer:
    """Scores of architectures, from the records where they are: oriented float64[B, P]."""

    def __init__(
        self,
        config: SearchConfig,
        space: spaces.Space,
        dataset: datasets.Dataset,
        folder: RunFolder,
        proxies: tuple[str, ...],
        repeat: int,
    ):
        self._make = lambda: scoring.chunk_scorer(score_config(config, repeat), proxies, dataset)
        self._score: Callable[[np.ndarray], scoring.SCORES] | None = None
        self._space, self._folder, self._proxies, self._repeat = space, folder, proxies, repeat

    def __call__(
        self, stage: str, round: int, architectures: np.ndarray, advance: Callable[[int], None]
    ) -> np.ndarray:
        records, proxies, repeat = self._folder.records, self._proxies, self._repeat
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
