"""How far a run is: a bar with the time left on a terminal, plain lines elsewhere, and a log."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from jnas.study import interruption

log = logging.getLogger("jnas")

# Often enough to see that it lives, seldom enough for the log of a batch job.
PLAIN_INTERVAL_SECONDS = 10.0


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
    def task(self, text: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
        """A stretch of `total` steps; yields the function to call with the number of steps just done.

        Where `unit` says what the steps are, their number in a second is shown.
        """
        start = time.monotonic()
        if self._quiet:
            yield lambda steps: interruption.check()
        elif self._stream.isatty():
            with self._bar(text, total, unit) as advance:
                yield advance
        else:
            yield self._lines(text, total, unit, start)
        self.say(f"{text}: {total} done in {time.monotonic() - start:.1f} s")

    @contextlib.contextmanager
    def _bar(self, text: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(complete_style="blue", finished_style="blue"),
            MofNCompleteColumn(),
            TextColumn("time left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        # transient: the line of `say` takes the bar's place.
        with Bars(*columns, console=Console(file=self._stream), transient=True) as bars:
            task = bars.add_task(text, total=total, rate="")
            done, start = 0, time.monotonic()

            def advance(steps: int) -> None:
                nonlocal done
                interruption.check()
                done += steps
                rate = done / (time.monotonic() - start)
                bars.update(task, advance=steps, rate=f"{rate:.1f} {unit}/s" if unit else "")

            yield advance

    def _lines(self, text: str, total: int, unit: str, start: float) -> Callable[[int], None]:
        done, last = 0, start

        def advance(steps: int) -> None:
            nonlocal done, last
            interruption.check()
            done += steps
            now = time.monotonic()
            if now - last >= PLAIN_INTERVAL_SECONDS and done < total:
                last = now
                left = (now - start) / done * (total - done) if done else float("nan")
                rate = f", {done / (now - start):.1f} {unit}/s" if unit else ""
                print(f"{text}: {done}/{total}{rate}, time left {left:.0f} s", file=self._stream, flush=True)

        return advance
