"""The command line: a function for each command, what they share, and what errors become.

Exit status: 0 done; 2 bad input, one line on stderr; 1 failed, one line there and the traceback in log.txt;
130 interrupted, resumable. Results go to stdout, everything else to stderr. A command imports what it needs.
"""

import contextlib
import importlib
import inspect
import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jnas
from jnas.cli_arguments import PROCESSES, check_processes, keys_help, parse, parse_run, taken
from jnas.cli_help import (
    EXPORT_HELP,
    HELP,
    LIST_HELP,
    PROCESSES_HELP,
    REPORT_HELP,
    SCORE_HELP,
    SEARCH_HELP,
    STUDY_HELP,
    TABLE_HELP,
    TRAIN_HELP,
)
from jnas.errors import InputError, unknown_name
from jnas.run.interruption import interruptible

INTERRUPTED = 130

# family: (module, the name of its dict)
FAMILIES = {
    "spaces": ("jnas.spaces", "SPACES"),
    "proxies": ("jnas.proxies", "PROXIES"),
    "strategies": ("jnas.strategies", "STRATEGIES"),
    "oneshot": ("jnas.oneshot", "METHODS"),
    "supernets": ("jnas.oneshot.supernets", "SUPERNETS"),
    "estimators": ("jnas.estimators", "ESTIMATORS"),
    "data": ("jnas.data", "DATA"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `arguments` are those of the process where None."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "search": _search,
        "score": _score,
        "train": _train,
        "table": _table,
        "study": _study,
        "export": _export,
        "report": _report,
        "list": _list,
    }
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            return _print(HELP)
        if arguments[0] == "--version":
            return _print(f"jnas {jnas.__version__}\n")
        if arguments[0] not in commands:
            raise unknown_name("command", arguments[0], commands)
        status = commands[arguments[0]](arguments[1:])
        sys.stdout.flush()
        return status
    except InputError as error:
        return _complain(f"error: {error}", 2)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def command() -> None:
    """The process `jnas`: `main`, and the end of the process with its status."""
    status = main()
    if status == INTERRUPTED:
        # A device may be computing still, and Python would take away what it works on.
        if "jax" in sys.modules:
            from jnas.run.processes import leave

            leave()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _search(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.config.old_search import SearchConfig

        return _print(SEARCH_HELP + keys_help(SearchConfig))
    config_path, overrides, out = parse_run("search", "configs/tenas_digits.yaml", arguments)
    with _failing("search", arguments, lambda: _log_traceback(out)) as outcome:
        from jnas.config.old_search import SearchConfig
        from jnas.config.read import from_file

        config = from_file(SearchConfig, config_path, overrides)

        from jnas.report.report import write_report
        from jnas.report.terminal import print_summary
        from jnas.run.compilation_cache import enable_compilation_cache
        from jnas.run.progress import Progress
        from jnas.run.search import run

        enable_compilation_cache()
        result = run(config, out, Progress())
        print_summary(result, write_report(out))
    return outcome.status


def _train(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.config.train import TrainConfig

        return _print(TRAIN_HELP + PROCESSES_HELP + keys_help(TrainConfig))
    config_path, options, out = parse_run("train", "configs/train_darts_digits.yaml", arguments)
    others, overrides = taken(options, PROCESSES)
    check_processes(others)
    with _failing("train", arguments, lambda: _log_traceback(out)) as outcome:
        from jnas.config.read import from_file
        from jnas.config.train import TrainConfig

        config = from_file(TrainConfig, config_path, overrides)

        import jax

        from jnas.report.report import write_report
        from jnas.run.compilation_cache import enable_compilation_cache
        from jnas.run.processes import join
        from jnas.run.progress import Progress
        from jnas.run.train import run

        enable_compilation_cache()
        if others["coordinator"]:
            join(**others)
        result = run(config, out, Progress())
        if jax.process_index() > 0:
            return outcome.status
        report = write_report(out)
        _print(
            f"{result['architecture']}\n{result['parameters']:,} parameters, test accuracy "
            f"{result['test_accuracy']:.2f} % after {result['epochs']} epochs, {result['seconds']:.1f} s\n"
            f"Report: {report}\n"
        )
    return outcome.status


def _study(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.config.study import StudyConfig

        return _print(STUDY_HELP + keys_help(StudyConfig))
    config_path, overrides, out = parse_run("study", "configs/study_search.yaml", arguments)
    with _failing("study", arguments, lambda: _log_traceback(out)) as outcome:
        from jnas.config.read import from_file
        from jnas.config.study import StudyConfig

        config = from_file(StudyConfig, config_path, overrides)

        from jnas.run.compilation_cache import enable_compilation_cache
        from jnas.run.progress import Progress
        from jnas.studies.run import run

        enable_compilation_cache()
        findings, page = run(config, out, Progress())
        _print("\n\n".join([findings.title, *findings.paragraphs, f"Report: {page}"]) + "\n")
    return outcome.status


def _export(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        return _print(EXPORT_HELP)
    runs, options = parse(arguments)
    if len(runs) != 1 or [key for key, _ in options] != ["out"]:
        raise InputError("jnas export takes a training and a folder: jnas export runs/train --out exported")
    with _failing("export", arguments, _print_traceback) as outcome:
        from jnas.run.export import export

        _print(f"{export(runs[0], dict(options)['out'])}\n")
    return outcome.status


def _table(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.run.table import TableConfig

        return _print(TABLE_HELP + PROCESSES_HELP + keys_help(TableConfig))
    (action, *files), options = parse(arguments) if arguments else ([""], [])
    wanted = {"build": 0, "import": 1, "show": 1}
    if wanted.get(action) != len(files):
        raise InputError("jnas table takes build, import FILE or show FILE: see jnas table --help")
    if action != "show" and not dict(options).get("out"):
        raise InputError(f"jnas table {action} needs --out: for example --out table.npz")
    with _failing("table", arguments, _print_traceback) as outcome:
        import jax

        from jnas.config.read import from_options
        from jnas.run import table as table_build
        from jnas.run.compilation_cache import enable_compilation_cache
        from jnas.run.processes import join
        from jnas.run.progress import Progress

        if action == "build":
            others, settings = taken(options, PROCESSES)
            check_processes(others)
            own, settings = taken(settings, ("cells", "out", "executor"))
            cells = own["cells"] or "all"
            if cells != "all" and not cells.isdecimal():
                raise InputError(f"--cells is '{cells}': give a number, or all")
            config = from_options(table_build.TableConfig, settings)
            enable_compilation_cache()
            count = None if cells == "all" else int(cells)
            if others["coordinator"]:
                join(**others)
            table = table_build.build(config, count, own["out"], own["executor"] or "local", Progress())
        elif action == "import":
            own, unknown = taken(options, ("data", "epochs", "out"))
            if unknown:
                raise InputError(f"jnas table import knows no --{unknown[0][0]}: see jnas table --help")
            table = table_build.import_published(
                files[0], own["data"] or "cifar10", own["epochs"] or "200", own["out"], Progress()
            )
        else:
            from jnas.estimators.compact_table import open_table

            table = open_table(files[0])
        if jax.process_index() == 0:
            _print(table_build.described(table))
    return outcome.status


def _score(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.config.score import ScoreConfig

        return _print(SCORE_HELP + PROCESSES_HELP + keys_help(ScoreConfig))
    unexpected, options = parse(arguments)
    if unexpected:
        raise InputError(f"jnas score takes options only, not '{unexpected[0]}': see jnas score --help")
    others, options = taken(options, PROCESSES)
    own, settings = taken(options, ("proxies", "archs", "out", "executor"))
    for key, example in (("proxies", "naswot,synflow"), ("archs", "random:1000"), ("out", "scores.csv")):
        if not own[key]:
            raise InputError(f"jnas score needs --{key}: for example --{key} {example}")
    check_processes(others)
    with _failing("score", arguments, _print_traceback) as outcome:
        import jax

        from jnas.config.read import from_options
        from jnas.config.score import ScoreConfig
        from jnas.report.terminal import print_scores
        from jnas.run import score
        from jnas.run.compilation_cache import enable_compilation_cache
        from jnas.run.processes import join
        from jnas.run.progress import Progress

        config = from_options(ScoreConfig, settings)
        proxies = tuple(dict.fromkeys(str(own["proxies"]).split(",")))
        enable_compilation_cache()
        if others["coordinator"]:
            join(**others)
        scores = score.run(config, own["archs"], proxies, own["out"], own["executor"] or "local", Progress())
        if jax.process_index() == 0:
            print_scores(scores, proxies, str(own["out"]))
    return outcome.status


@dataclass
class _Outcome:
    status: int = 0


@contextlib.contextmanager
def _failing(command: str, arguments: list[str], trace: Callable[[], str]) -> Iterator[_Outcome]:
    """A command's work: what interrupts or breaks it becomes one line and the exit status in what is yielded."""
    outcome = _Outcome()
    try:
        with interruptible():
            yield outcome
    except (InputError, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        again = shlex.join(["jnas", command, *arguments])
        outcome.status = _complain(
            f"interrupted; nothing finished is lost, to resume run again: {again}", INTERRUPTED
        )
    except Exception as error:
        outcome.status = _complain(f"failed: {_one_line(error)} ({trace()})", 1)


def _report(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        return _print(REPORT_HELP)
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise InputError(
            f"jnas report takes one folder, not '{shlex.join(arguments)}': jnas report runs/digits"
        )
    from jnas.errors import RunError
    from jnas.report.report import write_report

    try:
        return _print(f"{write_report(Path(arguments[0]))}\n")
    except RunError as error:
        return _complain(f"failed: {error}", 1)


def _list(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        return _print(LIST_HELP)
    for name in arguments:
        if name not in FAMILIES:
            raise unknown_name("family", name, FAMILIES)
    blocks = []
    for family in arguments or FAMILIES:
        module, attribute = FAMILIES[family]
        members = getattr(importlib.import_module(module), attribute)
        width = max((len(name) for name in members), default=0)
        lines = [f"  {name:<{width}}  {_describe(member)}".rstrip() for name, member in members.items()]
        blocks.append("\n".join([family, *lines]))
    return _print("\n\n".join(blocks) + "\n")


def _log_traceback(out: Path) -> str:
    """Append the exception being handled to log.txt, or print it where that fails; says where it went."""
    text = traceback.format_exc()
    try:
        with (out / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError:
        print(text, file=sys.stderr)
        return "traceback above"
    return f"traceback in {out / 'log.txt'}"


def _print_traceback() -> str:
    traceback.print_exc()
    return "traceback above"


def _one_line(error: Exception) -> str:
    from jnas.errors import RunError

    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, RunError) else f"{type(error).__name__}: {text}"


def _describe(member: Any) -> str:
    if isinstance(member, str):
        return member
    if hasattr(member, "size") and hasattr(member, "edges"):
        return f"{member.size:,} cells: {len(member.edges)} edges, operations {', '.join(member.operations)}"
    if hasattr(member, "summary"):
        labels = ", needs labels" if member.needs_labels else ""
        return f"{member.summary} ({'higher' if member.sign > 0 else 'lower'} is better{labels})"
    return (inspect.getdoc(member) or "").partition("\n")[0]


def _complain(text: str, status: int) -> int:
    print("jnas: " + text.replace("\n", "\\n"), file=sys.stderr)
    return status


def _print(text: str) -> int:
    sys.stdout.write(text)
    sys.stdout.flush()
    return 0
