import io

import pytest

from jnas.study import progress
from jnas.study.progress import Progress


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
