"""The folder of one run: its lock, its configuration, its files.

    config.yaml      the resolved configuration, with versions and device
    records.sqlite   every evaluation as it happened
    result.json      the outcome, once the run is done: its kind, the format of the file, and the numbers of its page
    report.html      the page
    log.txt          events with their times, and tracebacks

Files other than the records and the log are replaced in one step: a reader never sees half of one.
"""

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import jnas
from jnas.config import read
from jnas.errors import InputError, RunError
from jnas.settings import Settings
from jnas.store.records import Records, locked, open_records

log = logging.getLogger("jnas")

# Kinds of run, each with a page of its own in `jnas.report.views`, and the format of their result.json.
KINDS = ("search", "training", "study")
FORMAT = 2


class RunFolder(NamedTuple):
    """An open run: its folder and its records."""

    path: Path
    records: Records

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json; a number that is not finite becomes null. Raises `RunError` when that fails."""
        # JSON has neither nan nor infinity; the records have.
        finite = json.loads(json.dumps(result), parse_constant=lambda name: None)
        write_file(self.path / "result.json", json.dumps(finite, indent=1) + "\n")


@contextlib.contextmanager
def open_run(path: str | Path, config: Settings) -> Iterator[RunFolder]:
    """Open the run of `config` in the folder `path`, new or resumed, for this process alone.

    Nothing is written before the folder is known to be free and to belong to `config`.
    Raises `InputError` when the folder cannot be made or written, is in use, or belongs to another
    configuration; `RunError` when the disk is full. Exceptions from inside also go to log.txt.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(
            f"--out '{path}' is a file: give a folder, which is made where it is missing"
        ) from None
    except OSError as error:
        raise InputError(f"cannot make the folder '{path}' ({error.strerror}): give another --out") from None
    with locked(path / ".lock", f"cannot write into '{path}'", f"another run is writing into '{path}'"):
        resolved = path / "config.yaml"
        if not resolved.exists():
            content = {"format": read.FORMAT, **read.to_mapping(config), "environment": environment()}
            write_file(resolved, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        elif changes := read.stored_differences(resolved, config):
            raise InputError(
                f"'{path}' holds a run of another configuration ({'; '.join(changes)}): "
                "give another --out, or the same configuration to resume"
            )
        with open_records(path / "records.sqlite", config) as records, _log_file(path):
            yield RunFolder(path, records)


def read_run(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read `(result, config)` of a finished run. Raises `InputError` when the folder holds none."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"no run folder '{path}': give the folder that 'jnas search ... --out' wrote")
    try:
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        mend = (
            "the run is not finished: run its search command again"
            if (path / "config.yaml").exists()
            else "give the folder that 'jnas search ... --out' wrote"
        )
        raise InputError(f"no result.json in '{path}': {mend}") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read '{path / 'result.json'}' ({error}): run its search command again"
        ) from None
    if not isinstance(result, dict) or result.get("kind", "search") not in KINDS:
        raise InputError(f"'{path / 'result.json'}' is not the result of a run: run its command again")
    if result.get("format", 1) != FORMAT:
        raise InputError(
            f"'{path / 'result.json'}' is of format {result.get('format', 1)}, this jnas reads format {FORMAT}: "
            "run its command again with another --out"
        )
    return result, read.read_yaml(path / "config.yaml")


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file in one step, by a temporary file in the same folder. Raises `RunError` when that fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with writing(path), temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the disk that holds the file `path` as `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write '{path}' ({error.strerror}): mend that, then run the same command again"
        ) from error


def environment() -> dict[str, Any]:
    """Versions, device and host of this process."""
    import jax

    names = ("jax", "jaxlib", "flax", "optax", "neural-tangents", "numpy")
    device = jax.devices()[0]
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "device": f"{jax.device_count()} x {device.device_kind}" if device.platform != "cpu" else "CPU",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "versions": {"jnas": jnas.__version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in names},
    }


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[None]:
    try:
        handler = logging.FileHandler(path / "log.txt", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write '{path / 'log.txt'}' ({error.strerror}): remove it, or give another --out"
        ) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # A log that cannot be written, on a full disk, must not hide the error that is being logged.
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    # Libraries that set up a handler of the root logger would print every line a second time.
    propagate, log.propagate = log.propagate, False
    try:
        yield
    except KeyboardInterrupt:
        log.warning("interrupted")
        raise
    except InputError as error:
        log.error(error)
        raise
    except BaseException:
        log.exception("failed")
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
        with contextlib.suppress(OSError):
            handler.close()
