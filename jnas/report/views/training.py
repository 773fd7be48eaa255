"""The page of a training."""

from collections.abc import Mapping
from typing import Any

from jnas import spaces
from jnas.errors import InputError
from jnas.report import page, plots


def render(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The page as text, from the result and the config.yaml of a run."""
    try:
        cells = page.cells(spaces.get(result["space"]), result["architecture"])
    except InputError:
        # A genotype with other nodes or operations than the space's has no drawing here.
        cells = []
    return page.template("training.html.j2").render(
        result=result,
        cells=cells,
        curves=plots.training_svg(result["curves"]),
        settings=page.settings(config, "training"),
        environment=config.get("environment", {}),
    )
