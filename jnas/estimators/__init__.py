"""Estimates of an architecture's worth; `ESTIMATORS` holds their settings by name."""

from jnas.estimators.settings import Inherited, Proxies, Table, Train
from jnas.settings import Member

ESTIMATORS: dict[str, type[Member]] = {
    "proxies": Proxies,
    "table": Table,
    "train": Train,
    "inherited": Inherited,
}
