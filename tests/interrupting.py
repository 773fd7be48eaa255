"""Progress that interrupts a run after so many steps of one task, as a user does."""

import contextlib

from jnas.run.progress import Progress


class Interrupting(Progress):
    """Raises KeyboardInterrupt when `after` steps of the task `text` are done."""

    def __init__(self, text, after):
        super().__init__(quiet=True)
        self._text, self._left = text, after

    @contextlib.contextmanager
    def task(self, text, total, unit=""):
        with super().task(text, total, unit) as advance:

            def counting(steps, preparing=False):
                advance(steps, preparing)
                self._left -= steps * (text == self._text)
                if self._left <= 0 and text == self._text:
                    raise KeyboardInterrupt

            yield counting
