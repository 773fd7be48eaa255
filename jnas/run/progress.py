"""Progress of a run: a bar on a terminal, plain lines elsewhere, and a log; both with the time left."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from jnas.run import interruption

log = logging.getLogger("jnas")

# Often enough to see that it lives, seldom enough for the log of a batch job.
PLAIN_INTERVAL_SECONDS = 10.0


class Advance(Protocol):
    """Counts steps that are done; `preparing` ones took preparation as well, and are left out of the rate."""

    def __call__(self, steps: int, preparing: bool = False) -> None: ...


def ignored(steps: int, preparing: bool = False) -> None:
    """Progress that nobody looks at."""


class Progress:
    """Reports to `stream` (stderr where None); `quiet` reports to the log alone."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet

    def say(self, text: str) -> None:
        """Report one line."""
        log.info(text)
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    @contextlib.contextmanager
    def task(self, text: str, total: int, unit: str = "") -> Iterator[Advance]:
        """Report on `total` steps; yields the function to call with the number of steps just done.

        unit: plural of a step; where given, steps a second are shown. The rate, and the time left, leave out the first
        call, which compiles.
        """
        start = last = time.monotonic()
        bar, pace = BarColumn(complete_style="blue", finished_style="blue"), _Pace()
        # All samples count, as a step may take minutes; transient: the line of `say` takes the bar's place.
        bars = Bars(
            TextColumn("{task.description}"), bar, MofNCompleteColumn(), pace, console=Console(file=self._stream),
            transient=True, speed_estimate_period=math.inf, get_time=lambda: time.monotonic(),
        )  # fmt: skip
        number = bars.add_task(text, total=total, unit=unit)
        task = bars.tasks[0]

        def advance(steps: int, preparing: bool = False) -> None:
            nonlocal last
            interruption.check()
            if preparing:
                # Forgets the samples; the step is the start of the next.
                bars.reset(number, completed=int(task.completed))
            bars.advance(number, steps)
            now = time.monotonic()
            if not live and not self._quiet and now - last >= PLAIN_INTERVAL_SECONDS and not task.finished:
                last = now
                print(
                    f"{text}: {task.completed:.0f}/{total}, {pace.render(task)}",
                    file=self._stream,
                    flush=True,
                )

        live = not self._quiet and self._stream.isatty()
        with bars if live else contextlib.nullcontext():
            yield advance
        self.say(f"{text}: {total} done in {time.monotonic() - start:.1f} s")


class _Pace(ProgressColumn):
    """Rate and time left of a task."""

    def render(self, task: Task) -> Text:
        unit, speed, left = task.fields["unit"], task.speed, task.time_remaining
        rate = f"{speed:.1f} {unit}/s, " if unit and speed else ""
        return Text(f"{rate}time left {'unknown' if left is None else timedelta(seconds=left)}")
