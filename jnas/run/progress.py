"""How far a run is: a bar with the time left on a terminal, plain lines elsewhere, and a log."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol, TextIO

from jnas.run import interruption

log = logging.getLogger("jnas")

# Often enough to see that it lives, seldom enough for the log of a batch job.
PLAIN_INTERVAL_SECONDS = 10.0


class Advance(Protocol):
    """Says that so many steps are done; `preparing` ones took preparation as well, and do not tell the pace."""

    def __call__(self, steps: int, preparing: bool = False) -> None: ...


class Progress:
    """Reports to `stream` (stderr where None); `quiet` reports to the log alone."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet

    def say(self, text: str) -> None:
        """One line."""
        log.info(text)
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    @contextlib.contextmanager
    def task(self, text: str, total: int, unit: str = "") -> Iterator[Advance]:
        """A stretch of `total` steps; yields the function to call with the number of steps just done.

        Where `unit` says what the steps are, their number in a second is shown. What comes first compiles: the
        pace, and the time left, are those of what came after the first call.
        """
        start = time.monotonic()
        if self._quiet:
            yield lambda steps, preparing=False: interruption.check()
        elif self._stream.isatty():
            with self._bar(text, total, unit) as advance:
                yield advance
        else:
            yield self._lines(text, total, unit)
        self.say(f"{text}: {total} done in {time.monotonic() - start:.1f} s")

    @contextlib.contextmanager
    def _bar(self, text: str, total: int, unit: str) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(complete_style="blue", finished_style="blue"),
            MofNCompleteColumn(),
            # Rich's own column counts what came first as well.
            TextColumn("time left {task.fields[left]} {task.fields[rate]}"),
        )
        # transient: the line of `say` takes the bar's place.
        with Bars(*columns, console=Console(file=self._stream), transient=True) as bars:
            task = bars.add_task(text, total=total, left="-:--:--", rate="")
            pace = _Pace()

            def advance(steps: int, preparing: bool = False) -> None:
                interruption.check()
                pace.step(steps, preparing)
                bars.advance(task, steps)
                if pace.rate is not None:
                    left = timedelta(seconds=round((total - pace.done) / pace.rate))
                    bars.update(task, left=left, rate=f"{pace.rate:.1f} {unit}/s" if unit else "")

            yield advance

    def _lines(self, text: str, total: int, unit: str) -> Advance:
        pace, last = _Pace(), time.monotonic()

        def advance(steps: int, preparing: bool = False) -> None:
            nonlocal last
            interruption.check()
            pace.step(steps, preparing)
            now = time.monotonic()
            if now - last >= PLAIN_INTERVAL_SECONDS and pace.done < total:
                last = now
                rate, left = "", "unknown"
                if pace.rate is not None:
                    rate = f", {pace.rate:.1f} {unit}/s" if unit else ""
                    left = f"{(total - pace.done) / pace.rate:.0f} s"
                print(f"{text}: {pace.done}/{total}{rate}, time left {left}", file=self._stream, flush=True)

        return advance


class _Pace:
    """Steps in a second since the last of those that were preparing, the first at least; None before."""

    def __init__(self) -> None:
        self.done = 0
        self.rate: float | None = None
        self._since: tuple[int, float] | None = None

    def step(self, steps: int, preparing: bool) -> None:
        self.done += steps
        now = time.monotonic()
        if preparing or self._since is None:
            self._since, self.rate = (self.done, now), None
            return
        done, start = self._since
        if self.done > done and now > start:
            self.rate = (self.done - done) / (now - start)
