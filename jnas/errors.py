"""The two exceptions of jnas: bad input, and a machine that gives up."""

import difflib
import json
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Bad input; the message is one line that names the value, what is allowed, and the mend.

    The command line prints it on stderr and exits with status 2. Library functions raise it as an
    ordinary `ValueError`.
    """


class RunError(RuntimeError):
    """The machine, not the caller, stopped the run (disk full, file system gone); one line, resumable."""


def unknown_name(what: str, name: object, allowed: Iterable[object]) -> InputError:
    """`InputError` for a name outside a registry: says which names exist and guesses the one meant."""
    names = sorted(str(entry) for entry in allowed)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return InputError(f"unknown {what} '{name}': choose one of {', '.join(names)}{hint}")


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, behind its type where it is none of ours."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, InputError | RunError) else f"{type(error).__name__}: {text}"


def describe(value: Any) -> str:
    """A value as an error message shows it: on one line, and never longer than about 80 characters."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "empty"
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
