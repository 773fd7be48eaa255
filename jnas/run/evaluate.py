"""The only way to ask for values: from the records where they are, otherwise by an estimator, chunk by chunk."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jnas.errors import RunError
from jnas.proxies import is_measured
from jnas.run.progress import Advance, ignored
from jnas.store.records import Evaluation, Records, qualified
from jnas.store.score_files import as_csv
from jnas.types import STATUSES, Candidates, Estimator, Key, Values

# Evaluates chunks of candidates: the number of a chunk with its values, in any order.
Runner = Callable[[Estimator, Key, list[Candidates]], Iterable[tuple[int, Values]]]


def in_this_process(estimator: Estimator, key: Key, chunks: list[Candidates]) -> Iterator[tuple[int, Values]]:
    """The chunks one after another."""
    for number, chunk in enumerate(chunks):
        yield number, estimator.evaluate(key, chunk)


class Evaluator:
    """Values of candidates in one stage of a run.

    A value is asked for once: it is known by its subject and its objective, from this process or from the records.
    Missing ones are evaluated in chunks of at most `estimator.batch`, and each chunk is stored before the next, so
    that a kill loses at most one. A failure is a value, and is not asked for again.

    Args:
      space: its `to_string` names architectures, its `canonical` those that share measured proxies.
      records: where values are kept; None keeps them in this process alone.
      stage: names the part of the run in the records.
      run: evaluates the chunks, here or elsewhere (`jnas.run.executors`).
    """

    def __init__(
        self,
        estimator: Estimator,
        space: Any,
        records: Records | None,
        stage: str,
        run: Runner = in_this_process,
    ):
        self.estimator = estimator
        self._space, self._records, self._stage, self._run = space, records, stage, run
        self.known: dict[tuple[str, str], Evaluation] = records.values(stage) if records else {}
        # The ancestors of all architectures asked for so far, themselves included, in order.
        self._lines: list[tuple[np.ndarray, ...]] = []

    def __call__(
        self,
        key: Key,
        round: int,
        candidates: Candidates,
        advance: Advance = ignored,
    ) -> Values:
        """Values of candidates [B, ...], the same however often they are asked for.

        advance: is told the number of candidates that are done, after each chunk.
        """
        objectives = self.estimator.objectives
        candidates = self._with_ancestors(candidates)
        subjects = self.subjects(round, candidates)
        # The first candidate of each kind that is missing stands for the others.
        missing: dict[tuple[str, ...], int] = {}
        for place, texts in enumerate(subjects):
            if any(pair not in self.known for pair in zip(texts, objectives, strict=True)):
                missing.setdefault(texts, place)
        places = np.array(list(missing.values()), int)
        # Even chunks: a last one that is almost empty can cost as much as the others.
        chunks = np.array_split(places, -(-len(places) // self.estimator.batch) or 1) if len(places) else []
        if len(subjects) > len(places):
            advance(len(subjects) - len(places), preparing=True)
        parts = [
            Candidates(*(None if field is None else np.asarray(field)[chunk] for field in candidates))
            for chunk in chunks
        ]
        for count, (number, values) in enumerate(self._run(self.estimator, key, parts)):
            self._store(round, chunks[number], [subjects[place] for place in chunks[number]], values)
            advance(len(chunks[number]), preparing=count == 0)
        rows = [[self.known[pair] for pair in zip(texts, objectives, strict=True)] for texts in subjects]
        shape = len(rows), len(objectives)
        return Values(
            np.reshape([[entry.value for entry in row] for row in rows], shape).astype(np.float64),
            np.reshape([[STATUSES.index(entry.status) for entry in row] for row in rows], shape).astype(
                np.int8
            ),
            np.array([sum(entry.seconds for entry in row) for row in rows], np.float64),
        )

    def _with_ancestors(self, candidates: Candidates) -> Candidates:
        """Candidates with the lines of their parents, who were asked for before; those without parents as they are."""
        if candidates.architectures is None:
            return candidates
        rows = np.asarray(candidates.architectures)
        parents = np.full(len(rows), -1) if candidates.parent is None else np.asarray(candidates.parent)
        lines = [self._lines[parent] if parent >= 0 else () for parent in parents]
        self._lines += [(*line, row) for line, row in zip(lines, rows, strict=True)]
        if candidates.parent is None:
            return candidates
        ancestors = np.full((len(rows), max(map(len, lines), default=0), rows.shape[1]), -1, np.int32)
        for own, line in zip(ancestors, lines, strict=True):
            if line:
                own[-len(line) :] = line
        return candidates._replace(ancestors=ancestors)

    def subjects(self, round: int, candidates: Candidates) -> list[tuple[str, ...]]:
        """The subject of each candidate for each objective: B rows of P texts.

        That of gates is their round and a digest; that of a measured proxy is the canonical architecture.
        """
        measured = [is_measured(objective) for objective in self.estimator.objectives]
        if candidates.gates is not None:
            rows = [
                np.ascontiguousarray(gates, np.float32).tobytes() for gates in np.asarray(candidates.gates)
            ]
            texts = [f"round {round}, gates {hashlib.sha256(row).hexdigest()[:16]}" for row in rows]
            classes = texts
        else:
            architectures = np.asarray(candidates.architectures)
            texts = classes = [self._space.to_string(row) for row in architectures]
            if any(measured) and len(texts):
                classes = [
                    self._space.to_string(row) for row in np.asarray(self._space.canonical(architectures))
                ]
        nothing = [None] * len(texts)
        parents, shares = (
            nothing if column is None else np.asarray(column).tolist()
            for column in (candidates.parent, candidates.fidelity)
        )
        return [
            tuple(qualified(shared if once else text, parent, share) for once in measured)
            for text, shared, parent, share in zip(texts, classes, parents, shares, strict=True)
        ]

    def _store(self, round: int, places: np.ndarray, subjects: list[tuple[str, ...]], values: Values) -> None:
        objectives = self.estimator.objectives
        evaluations = [
            Evaluation(
                self._stage, subject, objective, round, int(places[row]),
                # SQLite does not keep the sign of a zero.
                float(values.value[row, column]) + 0.0, STATUSES[int(values.status[row, column])],
                float(values.cost[row]) / len(objectives),
            )
            for row, texts in enumerate(subjects)
            for column, (subject, objective) in enumerate(zip(texts, objectives, strict=True))
        ]  # fmt: skip
        try:
            if self._records is not None:
                self._records.add(evaluations)
        except RunError:
            # Values that were computed and cannot be stored are shown instead.
            sys.stdout.write(as_csv([Evaluation._fields, *evaluations]))
            raise
        self.known.update({(entry.subject, entry.objective): entry for entry in evaluations})
