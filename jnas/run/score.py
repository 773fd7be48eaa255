"""Scoring any number of architectures: the host loop behind `jnas score` and `jnas.score`.

    scores = jnas.score("nasbench201", "random:1000", ["naswot", "synflow"], "cifar10")
    scores.to_pandas()

Architectures that are equivalent (`Space.canonical`) are computed once, as their representative; parameters,
FLOPs and convolutions are those of each architecture itself.
"""

import contextlib
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jnas import data as datasets
from jnas import spaces
from jnas.config import score as scoring_config
from jnas.errors import InputError
from jnas.estimators.proxies import check, proxies, sizes
from jnas.proxies import is_measured, proxy_value
from jnas.report.evaluations import data_frame
from jnas.run.evaluate import Evaluator
from jnas.run.executors import runner
from jnas.run.progress import Progress
from jnas.store.records import Evaluation
from jnas.store.score_files import (
    SUFFIXES,
    columns,
    open_csv,
    open_journal,
    require_pyarrow,
    write_parquet,
)
from jnas.types import Candidates, Estimator

# Up to so many, a space is listed whole to draw different architectures from it.
LISTED = 2**20
# Folded into the key of random architectures, which no subject of a proxy folds in.
RANDOM_STREAM = 3


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
        return data_frame(self.columns)

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
    shard: str | None = None,
    merge: Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score architectures by training-free proxies, in compiled batches on all devices.

    Args:
      space: a name in `jnas.spaces.SPACES`.
      architectures: int32[B, D], a list of strings, `"all"`, `"random:N"` or the path of a file that lists them.
      proxies: names in `jnas.proxies.PROXIES`.
      data: a name in `jnas.data.DATA`, or the path of a file or folder.
      seed: of weights, images and random architectures.
      out: a .csv or .parquet file to write; the same call after an interruption goes on.
      executor: `"local"`, or `"ray"` for a Ray cluster.
      shard: `"2/8"` scores the second of eight parts alone, one for each of eight machines.
      merge: the `out` of finished shards, whose scores are taken over.
      settings: sections of `jnas.config.score.ScoreConfig`, such as `{"network": {"cells_per_stage": 1}}`.

    Returns:
      One row an architecture, in the order given; of a shard, its own alone. A failed score is nan and has a
      status that is not `"ok"`.

    Raises `InputError` for a call that cannot be scored, `RunError` when the machine gives up.
    """
    if not isinstance(data, str | Path):
        raise InputError(
            f"data is a {type(data).__name__}: give a name or a path; arrays go through an .npz file (numpy.savez)"
        )
    config = scoring_config.from_mapping(
        {**(settings or {}), "space": space, "data": str(data), "seed": seed}
    )
    return run(config, architectures, proxies, out, executor, progress or Progress(), shard, merge)


def run(
    config: scoring_config.ScoreConfig,
    given: Any,
    names: Sequence[str],
    out: str | Path | None,
    executor: str,
    progress: Progress,
    shard: str | None = None,
    merge: Sequence[str | Path] = (),
) -> Scores:
    """`score` with a configuration that has been read."""
    # Read and check everything before anything is written.
    if isinstance(names, str):
        names = names.split(",")
    names = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))

    def make() -> Estimator:
        return proxies(space, lacking, dataset, config, memory_gb=config.memory_gb)

    run_chunks = runner(executor, make)
    path = None if out is None else Path(out)
    if path is not None and path.suffix not in SUFFIXES:
        raise InputError(f"--out '{path}': give a file ending in {' or '.join(SUFFIXES)}")
    if path is not None and path.suffix == ".parquet":
        require_pyarrow()
    if merge and path is None:
        raise InputError("--merge needs --out: the table of all shards")
    space = spaces.get(config.space)
    architectures = read_architectures(space, given, config.seed)
    dataset = datasets.load(config.data)
    check(names, dataset, config)
    classes = [space.to_string(row) for row in np.asarray(space.canonical(architectures))]
    representatives, architectures = of_shard(shard, classes, architectures)
    measured = tuple(name for name in names if is_measured(name))
    counted = sizes(space, dataset, config.network, architectures)

    # Take values from the journal. Each chunk of missing ones completes rows of the table.
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(open_journal(path, config, parts=merge)) if path else None
        known = {} if journal is None else journal.values("score")
        missing = [
            text for text in dict.fromkeys(representatives) if any((text, n) not in known for n in measured)
        ]
        # Proxies that every architecture has, from a call that asked for fewer, are not computed again.
        lacking = tuple(name for name in measured if any((text, name) not in known for text in missing))
        append = None
        if path is not None and path.suffix == ".csv":
            append = stack.enter_context(open_csv(path, columns(names)))
        rows: list[list[Any]] = []

        def extend(known: Mapping[tuple[str, str], Evaluation]) -> None:
            fresh = list(_rows(space, architectures, representatives, counted, names, known, len(rows)))
            rows.extend(fresh)
            if append is not None and fresh:
                append(fresh)

        extend(known)
        if missing:
            evaluate = Evaluator(make(), space, journal, "score", run_chunks)
            distinct = len(set(representatives))
            done = "" if len(missing) == distinct else f", {distinct - len(missing):,} of them done before"
            progress.say(
                f"scoring {len(architectures):,} architectures, {distinct:,} distinct{done}, by {', '.join(lacking)} "
                f"on {len(jax.devices())} x {jax.devices()[0].device_kind}"
            )
            with progress.task("scoring", len(missing), "architectures") as advance:

                def after_chunk(steps: int, preparing: bool = False) -> None:
                    extend(evaluate.known)
                    advance(steps, preparing)

                candidates = Candidates(architectures=np.stack([space.from_string(text) for text in missing]))
                evaluate(jax.random.key(config.seed), 0, candidates, after_chunk)
        table = {name: np.array([row[i] for row in rows]) for i, name in enumerate(columns(names))}
        if path is not None and path.suffix == ".parquet":
            write_parquet(path, table)
        return Scores(architectures, table)


def _rows(
    space: spaces.Space,
    architectures: np.ndarray,
    representatives: Sequence[str],
    counted: Mapping[str, np.ndarray],
    names: Sequence[str],
    known: Mapping[tuple[str, str], Evaluation],
    start: int,
) -> Iterator[list[Any]]:
    """Rows of the table in the order asked for, from `start` to the first whose scores are not all known."""
    for place in range(start, len(architectures)):
        row: list[Any] = [space.to_string(architectures[place])]
        for name in names:
            entry = known.get((representatives[place], name))
            if name in counted:
                row += [int(counted[name][place]), "ok"]
            elif entry is None:
                return
            else:
                row += [float(proxy_value(name, entry.value)), entry.status]
        yield row + [int(counted[name][place]) for name in ("params", "flops") if name not in names]


def of_shard(
    shard: str | None, subjects: Sequence[str], rows: np.ndarray
) -> tuple[Sequence[str], np.ndarray]:
    """Subjects and rows [B, ...] of a shard: of `"2/8"` every eighth of the different subjects, from the second one.

    All where there is no shard. Raises `InputError` for other text.
    """
    if not shard:
        return subjects, rows
    number, slash, count = shard.partition("/")
    if not slash or not number.isdecimal() or not count.isdecimal() or not 1 <= int(number) <= int(count):
        raise InputError(f"--shard is '{shard}': give 1/N to N/N, one for each of N machines")
    place = {text: row for row, text in enumerate(dict.fromkeys(subjects))}
    mine = [row for row, text in enumerate(subjects) if place[text] % int(count) == int(number) - 1]
    return [subjects[row] for row in mine], rows[np.array(mine, int)]


def read_architectures(space: spaces.Space, architectures: Any, seed: int) -> np.ndarray:
    """Architectures int32[B, D] from any of the forms that `score` takes. Raises `InputError`."""
    if isinstance(architectures, str | Path):
        text = str(architectures)
        if text == "all":
            return space.all()
        kind, colon, number = text.partition(":")
        if colon and kind == "random":
            if not number.isdecimal() or int(number) < 1:
                raise InputError(f"'{text}' names no number: write random:1000")
            count = int(number)
            if count > space.size:
                raise InputError(
                    f"random:{count} is more than the {space.size:,} architectures of {space.name}"
                )
            key = jax.random.fold_in(jax.random.key(seed), RANDOM_STREAM)
            if space.size <= LISTED:
                return space.all()[np.asarray(jax.random.permutation(key, space.size)[:count])]
            return np.asarray(space.sample(key, count))
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
