"""Scoring any number of architectures: the host loop behind `jnas score` and `jnas.score`.

    scores = jnas.score("nasbench201", "random:1000", ["naswot", "synflow"], "cifar10")
    scores.to_pandas()

Architectures that are equivalent (`Space.canonical`) are computed once, as their representative; parameters,
FLOPs and convolutions are those of each architecture itself.
"""

import contextlib
import csv
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jnas import data as datasets
from jnas import spaces
from jnas.config import score as scoring_config
from jnas.errors import InputError, RunError, unknown_name
from jnas.proxies import PROXIES
from jnas.proxies.base import SIZE
from jnas.run import scoring
from jnas.run.executors import EXECUTORS, run_chunks, worker_count
from jnas.run.processes import Everyone, together
from jnas.run.progress import Progress
from jnas.store.score_files import (
    SUFFIXES,
    CsvTable,
    Journal,
    as_csv,
    columns,
    open_journal,
    require_pyarrow,
    write_parquet,
)

# Up to so many, a space is listed whole to draw different architectures from it.
LISTED = 2**20


@dataclass(frozen=True)
class Scores:
    """A table with one row an architecture.

    | field | meaning |
    |---|---|
    | `architectures` | int32[B, D] |
    | `columns` | arrays [B] by name: `architecture` (text), each proxy and its `_status`, `params`, `flops` |
    """

    architectures: np.ndarray
    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.architectures)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def to_pandas(self):
        """As a `pandas.DataFrame`; pandas is not installed with jnas, and `InputError` says so."""
        try:
            import pandas
        except ImportError:
            raise InputError("a data frame needs pandas: pip install pandas") from None
        return pandas.DataFrame(dict(self.columns))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.columns)
        shown = [
            "".join(f"<td>{_shown(values[row])}</td>" for values in self.columns.values())
            for row in range(min(len(self), 10))
        ]
        body = "".join(f"<tr>{row}</tr>" for row in shown)
        return f"<table><tr>{head}</tr>{body}</table><p>{len(self):,} architectures</p>"


def score(
    space: str,
    architectures: Any,
    proxies: Sequence[str],
    data: str = "digits",
    *,
    seed: int = 0,
    out: str | Path | None = None,
    executor: str = "local",
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score architectures by training-free proxies, in compiled batches on all devices.

    After `jax.distributed.initialize` all its processes call this alike, share the work, and get all scores; the
    first alone reads and writes `out`, and reports.

    Args:
      space: a name in `jnas.spaces.SPACES`.
      architectures: int32[B, D], a list of strings, `"all"`, `"random:N"` or the path of a file that lists them.
      proxies: names in `jnas.proxies.PROXIES`.
      data: a name in `jnas.data.DATA`, or the path of a file or folder.
      seed: of weights, images and random architectures.
      out: a .csv or .parquet file to write; the same call after an interruption goes on.
      executor: `"local"`, or `"ray"` for a Ray cluster.
      settings: sections of `jnas.config.score.ScoreConfig`, such as `{"network": {"cells_per_stage": 1}}`.

    Returns:
      One row an architecture, in the order given. A failed score has a status that is not `"ok"`.

    Raises `InputError` for what cannot be scored, `RunError` when the machine gives up.
    """
    if not isinstance(data, str | Path):
        raise InputError(
            f"data is a {type(data).__name__}: give a name or a path; arrays go through an .npz file (numpy.savez)"
        )
    config = scoring_config.from_mapping(
        {**(settings or {}), "space": space, "data": str(data), "seed": seed}
    )
    return run(config, architectures, proxies, out, executor, progress or Progress())


def run(
    config: scoring_config.ScoreConfig,
    architectures: Any,
    proxies: Sequence[str],
    out: str | Path | None,
    executor: str,
    progress: Progress,
) -> Scores:
    """`score` with a configuration that has been read."""
    with together() as everyone:
        return _run(config, architectures, proxies, out, executor, progress, everyone)


def _run(
    config: scoring_config.ScoreConfig,
    given: Any,
    proxies: Sequence[str],
    out: str | Path | None,
    executor: str,
    progress: Progress,
    everyone: Everyone | None,
) -> Scores:
    if isinstance(proxies, str):
        proxies = proxies.split(",")
    proxies = tuple(dict.fromkeys(name.strip() for name in proxies if name.strip()))
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if everyone is not None and executor != "local":
        raise InputError(f"--executor {executor} finds its machines itself: leave out --coordinator")
    path = None if out is None else Path(out)
    if path is not None and path.suffix not in SUFFIXES:
        raise InputError(f"--out '{path}': give a file ending in {' or '.join(SUFFIXES)}")
    if path is not None and path.suffix == ".parquet":
        require_pyarrow()
    space = spaces.get(config.space)
    architectures = read_architectures(space, given, config.seed)
    dataset = datasets.load(config.data)
    scoring.check(config, proxies, dataset)
    representatives = [space.to_string(a) for a in np.asarray(space.canonical(architectures))]
    measured = tuple(name for name in proxies if PROXIES[name].subject != SIZE)
    if jax.process_index() > 0:
        # Of several processes the first has the files, and reports.
        path, progress = None, Progress(quiet=True)
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(open_journal(path, config)) if path else None
        known = journal.read(measured) if journal else {}
        if everyone is not None:
            asked = [
                scoring_config.digest(config),
                hashlib.sha256(architectures.tobytes()).hexdigest(),
                *proxies,
            ]
            answers = everyone([asked, known])
            if any(other != answers[0][0] for other, _ in answers):
                raise InputError("the processes were asked for different scores: give all the same command")
            known = answers[0][1]
        table = _Table(space, config, dataset, architectures, representatives, proxies, path, known)
        stack.callback(table.close)
        missing = [
            name for name in dict.fromkeys(representatives) if not set(measured) <= known.get(name, {}).keys()
        ]
        if missing:
            # What every architecture has already, from a call that asked for less, is not computed again.
            lacking = tuple(p for p in measured if any(p not in known.get(name, {}) for name in missing))
            _announce(progress, len(architectures), len(set(representatives)), len(missing), lacking)
            _compute(config, space, dataset, lacking, missing, executor, everyone, journal, table, progress)
        scores = table.finish()
        if path is not None and path.suffix == ".parquet":
            write_parquet(path, scores.columns)
        return scores


def read_architectures(space: spaces.Space, architectures: Any, seed: int) -> np.ndarray:
    """Architectures int32[B, D] from any of the forms that `score` takes. Raises `InputError`."""
    if isinstance(architectures, str | Path):
        text = str(architectures)
        if text == "all":
            return space.all()
        if text.startswith("random:"):
            return _random(space, text.removeprefix("random:"), seed)
        architectures = _read_file(Path(text))
    if len(architectures) == 0:
        raise InputError("no architectures given: name at least one")
    if isinstance(architectures[0], str):
        return np.stack([space.from_string(text) for text in architectures])
    try:
        array = np.asarray(architectures)
    except ValueError:
        array = np.zeros(0)
    if array.ndim == 1 and array.size and np.issubdtype(array.dtype, np.integer):
        array = array[None]
    if array.ndim != 2:
        raise InputError(
            f"architectures must be integers [architectures, {len(space.decisions)}] or a list of strings: "
            "give one row for each"
        )
    for row in array:
        space.to_string(row)
    return array.astype(np.int32)


class _Table:
    """Rows in the order asked for, each as soon as all before it are there."""

    def __init__(
        self,
        space: spaces.Space,
        config: scoring_config.ScoreConfig,
        dataset: datasets.Dataset,
        architectures: np.ndarray,
        representatives: list[str],
        proxies: Sequence[str],
        path: Path | None,
        known: dict[str, dict[str, tuple[float, str]]],
    ):
        self._space, self._architectures, self._representatives = space, architectures, representatives
        self._proxies, self._known = tuple(proxies), known
        self._measured = {name for name in proxies if PROXIES[name].subject != SIZE}
        self._sizes = scoring.sizes(config, dataset, architectures)
        self._rows: list[list[Any]] = []
        self._csv = CsvTable(path, self._proxies) if path is not None and path.suffix == ".csv" else None
        self._extend()

    def add(self, values: Mapping[str, Mapping[str, tuple[float, str]]]) -> None:
        for name, scores in values.items():
            self._known.setdefault(name, {}).update(scores)
        self._extend()

    def finish(self) -> Scores:
        names = columns(self._proxies)
        table = {name: np.array([row[i] for row in self._rows]) for i, name in enumerate(names)}
        return Scores(self._architectures, table)

    def close(self) -> None:
        if self._csv is not None:
            self._csv.close()

    def _extend(self) -> None:
        start = len(self._rows)
        for index in range(start, len(self._architectures)):
            scores = self._known.get(self._representatives[index], {})
            if not self._measured <= scores.keys():
                break
            self._rows.append(self._row(index, scores))
        if self._csv is not None and len(self._rows) > start:
            self._csv.append(self._rows[start:])

    def _row(self, index: int, scores: Mapping[str, tuple[float, str]]) -> list[Any]:
        row: list[Any] = [self._space.to_string(self._architectures[index])]
        for name in self._proxies:
            own = (int(self._sizes[name][index]), "ok") if name in self._sizes else scores[name]
            row += own
        return row + [
            int(self._sizes[name][index]) for name in ("params", "flops") if name not in self._proxies
        ]


def _compute(
    config: scoring_config.ScoreConfig,
    space: spaces.Space,
    dataset: datasets.Dataset,
    proxies: tuple[str, ...],
    names: list[str],
    executor: str,
    everyone: Everyone | None,
    journal: Journal | None,
    table: _Table,
    progress: Progress,
) -> None:
    size = scoring.chunk_size(jax.devices())
    chunks = [names[start : start + size] for start in range(0, len(names), size)]
    arrays = [np.stack([space.from_string(name) for name in chunk]) for chunk in chunks]
    start, workers = time.perf_counter(), 1
    laps: list[float] = []
    with progress.task("scoring", len(names), "architectures") as advance:
        for index, scores in run_chunks(executor, config, proxies, dataset, arrays, everyone):
            laps.append(time.perf_counter() - start)
            if len(laps) == 1:
                workers = worker_count(executor, len(chunks))
            rows = [
                # SQLite does not keep the sign of a zero.
                (name, proxy, float(scores[proxy][0][i]) + 0.0, scores[proxy][1][i])
                for i, name in enumerate(chunks[index])
                for proxy in proxies
            ]
            try:
                if journal is not None:
                    journal.add(rows)
                table.add({n: {p: (v, s) for m, p, v, s in rows if m == n} for n in chunks[index]})
            except RunError:
                # What was computed and could not be stored is shown instead.
                print(as_csv([("architecture", "proxy", "value", "status"), *rows]), end="")
                raise
            advance(len(chunks[index]), preparing=len(laps) <= workers)
            if len(laps) == 2 * workers < len(chunks):
                progress.say(_cost(laps, workers, size, len(names) - len(laps) * size))


def _cost(laps: Sequence[float], workers: int, size: int, left: int) -> str:
    """What is said when two batches a worker are done, at the seconds `laps`; the first of each compiles."""
    batch = max(laps[-1] - laps[workers - 1], 1e-9)
    rate = workers * size / batch
    each = f" on each of {workers} workers" if workers > 1 else ""
    return (
        f"a batch of {size} takes {batch:.2f} s{each} after {laps[workers - 1]:.0f} s of compilation and first "
        f"batch: {rate:.1f} architectures/s, about {left / rate:.0f} s left"
    )


def _announce(progress: Progress, rows: int, distinct: int, missing: int, proxies: Iterable[str]) -> None:
    done = "" if missing == distinct else f", {distinct - missing:,} of them done before"
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    progress.say(
        f"scoring {rows:,} architectures, {distinct:,} distinct{done}, by {', '.join(proxies)} on "
        f"{len(jax.devices())} x {jax.devices()[0].device_kind}{processes}"
    )


def _random(space: spaces.Space, number: str, seed: int) -> np.ndarray:
    if not number.isdecimal() or int(number) < 1:
        raise InputError(f"'random:{number}' names no number: write random:1000")
    count = int(number)
    if count > space.size:
        raise InputError(f"random:{count} is more than the {space.size:,} architectures of {space.name}")
    key = jax.random.fold_in(jax.random.key(seed), len(scoring.STREAMS))
    if space.size <= LISTED:
        return space.all()[np.asarray(jax.random.permutation(key, space.size)[:count])]
    return np.asarray(space.sample(key, count))


def _read_file(path: Path) -> list[str]:
    """Architecture strings: one a line, or the column `architecture` of a CSV."""
    try:
        # Spreadsheets put a mark before the first column's name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"no file '{path}': give a file of architectures, 'all' or 'random:N'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read '{path}' ({error}): give a text file of architectures") from None
    rows = list(csv.reader(lines))
    if not rows or "architecture" not in rows[0]:
        return [line.strip() for line in lines if line.strip()]
    place = rows[0].index("architecture")
    for number, row in enumerate(rows[1:], start=2):
        if row and len(row) <= place:
            raise InputError(f"'{path}', line {number}: no architecture: complete or remove the line")
    return [row[place] for row in rows[1:] if row]


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
