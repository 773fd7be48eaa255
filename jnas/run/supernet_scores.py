"""The two scores of TE-NAS for any gates, from the records where they are: what pruning and comparisons ask for.

Every number depends on the configuration alone: keys are folded from the seed and from where in the search they are
used.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas import data as datasets
from jnas import spaces
from jnas.config.old_search import SearchConfig
from jnas.data import transforms
from jnas.proxies import ntk, regions
from jnas.store.folder import RunFolder
from jnas.store.records import Evaluation
from jnas.strategies import old_pruning as pruning

# What each use of the seed folds in first, so that no two draw the same numbers.
STREAMS = {
    "ntk_weights": 0,
    "ntk_images": 1,
    "regions_weights": 2,
    "regions_inputs": 3,
    "random_cells": 4,
    "training": 5,
    "evolution": 6,
    "posterior": 7,
}

# Stages whose scores draw numbers of their own.
STAGES = {"search": 0, "compare": 1, "prior": 2}


class Scorer:
    """The compiled scores of one run: shapes never change, so each program compiles once."""

    def __init__(
        self, config: SearchConfig, space: spaces.Space, dataset: datasets.Dataset, folder: RunFolder
    ):
        self._config, self._space, self._dataset, self._folder = config, space, dataset, folder
        self._root = jax.random.key(config.seed)
        self._room = pruning.largest_ask(space)

    def key(self, stream: str, *where: int) -> Array:
        key = jax.random.fold_in(self._root, STREAMS[stream])
        for index in where:
            key = jax.random.fold_in(key, index)
        return key

    def planned_rounds(self) -> list[int]:
        """How many supernets each round of the pruning scores."""
        state, counts = pruning.init(self._space), []
        while not pruning.finished(state):
            asked = 1 + len(pruning.removable(state))
            counts.append(asked)
            flat = np.ones((1, asked))
            state, _ = pruning.tell(state, flat, flat, self._config.prune.operations_per_round)
        return counts

    def score(
        self, stage: str, round: int, gates: np.ndarray, subjects: list[str], advance: Callable[[int], None]
    ) -> dict[str, np.ndarray]:
        """Both proxies of gates [M, cells, E, K], from the records where they are: float64[repeats, M] each."""
        scores = {}
        for proxy, repeats in (("ntk", self._config.ntk.repeats), ("regions", self._config.regions.repeats)):
            rows = []
            for repeat in range(repeats):
                stored = self._folder.records.values(stage, round, proxy, repeat)
                if len(stored) < len(gates):
                    start = time.perf_counter()
                    values = getattr(self, f"_{proxy}")(stage, round, repeat, gates)
                    each = (time.perf_counter() - start) / len(gates)
                    self._folder.records.add(
                        Evaluation(stage, round, repeat, index, proxy, subject, float(value), each)
                        for index, (subject, value) in enumerate(zip(subjects, values, strict=True))
                    )
                    stored = dict(enumerate(values))
                rows.append([stored[index] for index in range(len(gates))])
                advance(len(gates))
            scores[proxy] = np.array(rows, np.float64)
        return scores

    def _in_parts(self, gates: np.ndarray, score: Callable[[Array, Array], np.ndarray]) -> np.ndarray:
        """`score(padded gates, count)` over parts that fit the program's room."""
        parts = []
        for start in range(0, len(gates), self._room):
            part = gates[start : start + self._room]
            padded = np.zeros((self._room, *part.shape[1:]), np.float32)
            padded[: len(part)] = part
            parts.append(score(jnp.asarray(padded), jnp.int32(len(part)))[: len(part)])
        return np.concatenate(parts)

    def _draw(self, key: Array, count: int) -> Array:
        """Up to `count` different training images, standardised."""
        chosen = jax.random.permutation(key, len(self._dataset.x_train))[:count]
        return transforms.normalise(self._dataset, self._dataset.x_train[np.asarray(chosen)])

    def _ntk(self, stage: str, round: int, repeat: int, gates: np.ndarray) -> np.ndarray:
        settings = self._config.ntk
        where = (STAGES[stage], round, repeat)
        weights = where if settings.fresh_weights else where[:2]
        images = self._draw(self.key("ntk_images", *where), settings.batch)

        def score(padded, count):
            kernels = ntk.kernels(
                self.key("ntk_weights", *weights),
                padded,
                count,
                images,
                space=self._space.name,
                classes=self._dataset.classes,
                channels=settings.channels,
                cells_per_stage=settings.cells_per_stage,
                normalisation=settings.normalisation,
                logits=settings.logits,
                parameters=settings.parameters,
                initialisation=settings.initialisation,
                implementation=settings.implementation,
            )
            return ntk.condition_numbers(kernels[: int(count)])[0]

        return self._in_parts(gates, score)

    def _regions(self, stage: str, round: int, repeat: int, gates: np.ndarray) -> np.ndarray:
        settings = self._config.regions
        where = (STAGES[stage], round, repeat)
        weights = where if self._config.ntk.fresh_weights else where[:2]
        image_key, crop_key = jax.random.split(self.key("regions_inputs", *where))
        inputs = self._draw(image_key, settings.inputs)
        if settings.crop:
            inputs = transforms.crops(crop_key, inputs, settings.inputs, settings.crop)

        def score(padded, count):
            return np.asarray(
                regions.counts(
                    self.key("regions_weights", *weights),
                    padded,
                    count,
                    inputs,
                    space=self._space.name,
                    channels=settings.channels,
                    cells_per_stage=settings.cells_per_stage,
                    initialisation=self._config.ntk.initialisation,
                ),
                np.float64,
            )

        return self._in_parts(gates, score)
