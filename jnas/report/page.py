"""What all pages share: templates, and how numbers are written in them."""

import math
from typing import Any


def template(name: str) -> Any:
    """A template of `jnas/report/templates`, which writes numbers by the filter `number`."""
    import jinja2

    page = jinja2.Environment(
        loader=jinja2.PackageLoader("jnas.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page.filters["number"] = number
    return page.get_template(name)


def number(value: float | None, digits: int = 3) -> str:
    """A number to `digits` significant digits, thousands set apart; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if value == 0 or abs(value) < 1e-3 else f"{value:#.{digits}g}".rstrip(".")
