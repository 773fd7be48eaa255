"""An interruption ends a command, whatever Python was doing when it came."""

import gc
import os
import signal
import threading

import pytest

from jnas.run import interruption
from jnas.run.progress import Progress


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_at_once(number):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruption.interruptible():
        os.kill(os.getpid(), number)
        pytest.fail("went on")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    # It is over, and is not asked for again.
    interruption.check()


@pytest.mark.parametrize("quiet", [True, False])
def test_an_exception_that_python_drops_comes_at_the_next_step(quiet, capfd):
    """A callback of the garbage collector, as JAX has one: what it raises is dropped."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def callback(phase, info):
        if not reached:
            reached.append(phase)
            os.kill(os.getpid(), signal.SIGINT)

    gc.callbacks.append(callback)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            interruption.interruptible(),
            Progress(quiet=quiet).task("working", 2) as advance,
        ):
            gc.collect()
            reached.append("after")
            advance(1)
            pytest.fail("went on")
    finally:
        gc.callbacks.remove(callback)
    assert reached == ["start", "after"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_signal_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption.interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            interruption.check()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_another_thread_leaves_signals_alone():
    found = []

    def work():
        with interruption.interruptible():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
