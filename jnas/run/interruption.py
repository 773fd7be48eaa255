"""Ctrl-C and SIGTERM that end a command even when Python drops the exception they raise.

An exception raised inside a callback that Python calls on its own (JAX registers one with the garbage collector)
is printed and dropped, and the command would go on. Here it is remembered: `check` raises it again.
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
    """In the block both signals raise `KeyboardInterrupt`, at once or at the next `check`.

    A signal that is ignored on entry, as SIGINT is for the background jobs of a shell, stays ignored. Outside the
    main thread, which alone receives signals, nothing changes.
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
    """Raise `KeyboardInterrupt` if it was asked for inside `interruptible`; long loops call this."""
    if _asked.is_set():
        raise KeyboardInterrupt
