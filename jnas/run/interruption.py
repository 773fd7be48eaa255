"""Ctrl-C and SIGTERM that end a command even when Python drops the exception they raise.

Python prints and drops an exception raised inside a callback of the garbage collector (JAX registers one), and the
command would go on. Here the signal is remembered, and `check` raises the exception again.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

_asked = threading.Event()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Make both signals raise `KeyboardInterrupt` in the block, at once or at the next `check`.

    A signal that is ignored on entry stays ignored, as SIGINT is for the background jobs of a shell. Outside the main
    thread nothing changes: no other thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        _asked.set()
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, dropped
    _asked.clear()
    try:
        for number, handler in previous.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _asked.clear()


def check() -> None:
    """Raise `KeyboardInterrupt` after a signal inside `interruptible`; long loops call this."""
    if _asked.is_set():
        raise KeyboardInterrupt
