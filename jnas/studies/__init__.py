"""Comparisons of theory with experiment; `STUDIES` has the function of each kind of study."""

from collections.abc import Callable
from pathlib import Path

from jnas.config.study import StudyConfig
from jnas.estimators.compact_table import Table, open_table
from jnas.run.progress import Progress
from jnas.store.folder import open_run
from jnas.studies import drift, dynamics, kernel, oneshot, rank, search
from jnas.studies.base import Findings, leave

STUDIES: dict[str, Callable[[StudyConfig, Table, Progress], Findings]] = {
    "rank": rank.run,
    "kernel": kernel.run,
    "dynamics": dynamics.run,
    "drift": drift.run,
    "oneshot": oneshot.run,
    "search": search.run,
}


def run(config: StudyConfig, out: str | Path, progress: Progress) -> tuple[Findings, Path]:
    """Do the study and write its table, figures and page into the folder `out`; returns its findings and the page.

    Raises `InputError` for a configuration that cannot be run, `RunError` when the disk is full.
    """
    table = open_table(config.table)
    with open_run(out, config) as folder:
        findings = STUDIES[config.kind](config, table, progress)
        return findings, leave(findings, config.kind, folder)
