"""Theory beside experiment; `STUDIES` names each kind of study with the function that does it."""

from collections.abc import Callable

from jnas.estimators.compact_table import Table
from jnas.study.progress import Progress
from jnas.study.studies import (
    drift_study,
    dynamics_study,
    kernel_study,
    oneshot_study,
    rank_study,
    search_study,
)
from jnas.study.studies.base import Findings
from jnas.study.study_config import StudyConfig

STUDIES: dict[str, Callable[[StudyConfig, Table, Progress], Findings]] = {
    "rank": rank_study.run,
    "kernel": kernel_study.run,
    "dynamics": dynamics_study.run,
    "drift": drift_study.run,
    "oneshot": oneshot_study.run,
    "search": search_study.run,
}
