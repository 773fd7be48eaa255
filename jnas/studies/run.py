"""A study from its configuration to its folder."""

from pathlib import Path

from jnas.config.study import StudyConfig
from jnas.estimators.compact_table import open_table
from jnas.run.progress import Progress
from jnas.store.folder import open_run
from jnas.studies import STUDIES
from jnas.studies.base import Findings, leave


def run(config: StudyConfig, out: str | Path, progress: Progress) -> tuple[Findings, Path]:
    """Do the study and write its table, figures and page into the folder `out`; returns its findings and the page.

    Raises `InputError` for a configuration that cannot be run, `RunError` when the disk is full.
    """
    table = open_table(config.table)
    with open_run(out, config) as folder:
        findings = STUDIES[config.kind](config, table, progress)
        return findings, leave(findings, config.kind, folder)
