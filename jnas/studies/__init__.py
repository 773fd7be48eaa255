"""Comparisons of theory with experiment; `STUDIES` has the function of each kind of study."""

from collections.abc import Callable

from jnas.config.study import StudyConfig
from jnas.estimators.compact_table import Table
from jnas.run.progress import Progress
from jnas.studies import drift as drift_study
from jnas.studies import dynamics as dynamics_study
from jnas.studies import kernel as kernel_study
from jnas.studies import oneshot as oneshot_study
from jnas.studies import rank as rank_study
from jnas.studies import search as search_study
from jnas.studies.base import Findings

STUDIES: dict[str, Callable[[StudyConfig, Table, Progress], Findings]] = {
    "rank": rank_study.run,
    "kernel": kernel_study.run,
    "dynamics": dynamics_study.run,
    "drift": drift_study.run,
    "oneshot": oneshot_study.run,
    "search": search_study.run,
}
