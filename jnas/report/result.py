"""The outcome of a search in Python: numbers, a data frame, a picture in a notebook."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from jnas.report import page
from jnas.report.evaluations import Evaluations
from jnas.report.views import evaluations as view
from jnas.spaces.base import Space


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search; a notebook shows it as a picture.

    architecture: text of the found one.
    space: that it is of.
    evaluations: every architecture that the search evaluated, in its order, from a run folder equal ones once; none for
      a search of supernets.
    result: everything that result.json holds.
    """

    architecture: str
    space: Space
    evaluations: Evaluations
    result: Mapping[str, Any]

    @property
    def value(self) -> float:
        """Value of the architecture by the first objective, as it was measured; nan where it was not evaluated."""
        return next(iter(self.evaluations.of(self.architecture).values()), math.nan)

    @property
    def front(self) -> list[str]:
        """Architectures that no other evaluated one dominates, in the order of the search."""
        return [self.evaluations.architectures[place] for place in self.evaluations.front]

    def frame(self) -> Any:
        """Evaluations as a `pandas.DataFrame`. Raises `InputError` where pandas is not installed."""
        return self.evaluations.frame()

    def __repr__(self) -> str:
        values = view.summary(self.evaluations, self.architecture)
        return f"SearchResult({self.architecture}{': ' if values else ''}{values})"

    def _repr_html_(self) -> str:
        values = view.summary(self.evaluations, self.architecture)
        asked, different = self.result["evaluations"], len(self.evaluations.architectures)
        heading = (
            f"{self.result['strategy']} on {self.space.name}, {asked:,} evaluations"
            f"{f' of {different:,} architectures' if 0 < different < asked else ''}{': ' if values else ''}{values}"
        )
        figure = view.figure(self.evaluations, self.architecture) if self.evaluations.architectures else ""
        cells = "".join(
            f'<div style="max-width: 640px">{drawing}</div>'
            for _, drawing in page.cells(self.space, self.architecture)
        )
        return f"<p>{escape(heading)}<br><code>{escape(self.architecture)}</code></p>{figure}{cells}"
