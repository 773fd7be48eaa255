"""Methods that train one supernet, one file each; `METHODS` holds their settings, which make them, by name."""

from jnas.oneshot.settings import Posterior, Uniform
from jnas.settings import Member

METHODS: dict[str, type[Member]] = {"posterior": Posterior, "uniform": Uniform}
