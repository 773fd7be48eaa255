"""Estimates of an architecture's worth; `ESTIMATORS` holds their settings by name."""

from jnas.estimators.settings import Inherited, Proxies, Scores, Table, Train
from jnas.settings import Member

ESTIMATORS: dict[str, type[Member]] = {
    "proxies": Proxies,
    "scores": Scores,
    "table": Table,
    "train": Train,
    "inherited": Inherited,
}
