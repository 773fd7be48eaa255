import io
import re
from types import SimpleNamespace

import pytest

from jnas.run import progress
from jnas.run.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_when_it_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_SECONDS", 0)
    stream = io.StringIO()
    reporter = Progress(stream)
    reporter.say("hello")
    with reporter.task("round 1", total=3) as advance:
        for _ in range(3):
            advance(1)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "hello"
    assert lines[1].startswith("round 1: 1/3, time left ")
    assert lines[-1].startswith("round 1: 3 done in ")
    assert "\x1b" not in stream.getvalue()


def test_lines_are_seldom():
    stream = io.StringIO()
    with Progress(stream).task("round 1", total=1000) as advance:
        for _ in range(1000):
            advance(1)
    assert len(stream.getvalue().splitlines()) == 1


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(stream).task("round 1", total=4) as advance:
        advance(4)
    assert "4/4" in stream.getvalue() and "time left" in stream.getvalue()
    assert "round 1: 4 done in" in stream.getvalue()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_SECONDS", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return now


@pytest.mark.parametrize("terminal", [False, True])
def test_time_left_and_rate_do_not_count_the_first_step(clock, terminal):
    """The first step compiles for 100 s, the others take a second each."""
    stream = Terminal() if terminal else io.StringIO()
    with Progress(stream).task("round 1", total=11, unit="cells") as advance:
        clock.seconds = 100
        advance(1)
        clock.seconds = 102
        advance(2)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    if terminal:
        assert re.search("3/11 *1.0 cells/s, time left 0:00:08", shown)
    else:
        assert shown.splitlines()[:2] == [
            "round 1: 1/11, time left unknown",
            "round 1: 3/11, 1.0 cells/s, time left 0:00:08",
        ]


def test_time_left_of_several_workers_does_not_count_the_first_step_of_any(clock):
    """Three workers compile for 100 s, then take ten seconds for a step."""
    stream = io.StringIO()
    with Progress(stream).task("round 1", total=12) as advance:
        for step in range(6):
            clock.seconds = 100 + 10 * (step // 3) + 0.5 * (step % 3)
            advance(1, preparing=step < 3)
    lines = stream.getvalue().splitlines()
    assert lines[2].endswith("3/12, time left unknown")
    # The other six are as many as those that took ten seconds together.
    assert lines[5].endswith("6/12, time left 0:00:20")


def test_quiet_goes_to_the_log_alone(caplog):
    stream = io.StringIO()
    with (
        caplog.at_level("INFO", logger="jnas"),
        Progress(stream, quiet=True).task("round 1", total=2) as advance,
    ):
        advance(2)
    assert stream.getvalue() == ""
    assert caplog.messages[-1].startswith("round 1: 2 done in ")


def test_a_failed_task_is_not_called_done():
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), Progress(stream).task("round 1", total=2):
        raise ZeroDivisionError
    assert stream.getvalue() == ""
