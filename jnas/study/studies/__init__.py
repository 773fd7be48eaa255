"""Theory beside experiment; `STUDIES` names each kind of study with the function that does it."""

from collections.abc import Callable

from jnas.estimators.compact_table import Table
from jnas.study.progress import Progress
from jnas.study.studies import rank_study, search_study
from jnas.study.studies.base import Findings
from jnas.study.study_config import StudyConfig

STUDIES: dict[str, Callable[[StudyConfig, Table, Progress], Findings]] = {
    "rank": rank_study.run,
    "search": search_study.run,
}
