"""The command line: `jnas search`, `jnas score`, `jnas train`, `jnas report`, `jnas list`.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jnas
from jnas.errors import InputError, unknown_name
from jnas.study.interruption import interruptible

HELP = """\
jnas: neural architecture search in JAX

  jnas search CONFIG [--key.path value ...] --out DIR   search; the same command again resumes
  jnas score --proxies A,B --archs all --out FILE        score architectures; the same command again goes on
  jnas train CONFIG --arch A --out DIR                   train one network; the same command again goes on
  jnas export DIR --out DIR                             a trained network as files for others
  jnas report DIR                                       write DIR/report.html anew
  jnas list [FAMILY]                                    what there is to choose from
  jnas --version

Each command explains itself with --help.
"""

# Where several processes share the work of a command: options of `jnas.study.processes.join`.
PROCESSES = ("coordinator", "processes", "process")

SEARCH_HELP = """\
jnas search CONFIG [--key.path value ...] --out DIR

Searches as the YAML file CONFIG says and leaves in DIR: config.yaml, records.sqlite, result.json, report.html
and log.txt. The same command again resumes an interrupted run, or shows the result of a finished one.

Examples
  jnas search configs/tenas_digits.yaml --out runs/digits
  jnas search configs/tenas_nasbench201.yaml --data cifar10 --seed 3 --out runs/cifar10_seed3
  jnas search configs/tenas_digits.yaml --ntk.normalisation frozen --training.epochs 0 --out runs/frozen
  jnas search configs/posterior_shakeshake_digits.yaml --out runs/shakeshake

Keys, in CONFIG (those with a point in their section) or here as --key value
"""

SCORE_HELP = """\
jnas score --space S --proxies A,B --archs FILE|all|random:N --data D --out scores.csv|.parquet

Scores architectures by training-free proxies, in compiled batches on all devices. Columns: architecture,
each proxy with its status, params, flops. Rows appear in the CSV as they are computed; beside it lies
FILE.journal, from which the same command, or one that asks for more, goes on. Equivalent architectures are
computed once. A score that failed has a status other than ok, and counts as the worst.

Examples
  jnas score --proxies naswot,synflow --archs random:1000 --data cifar10 --out scores.csv
  jnas score --proxies ntk,regions --archs all --data cifar10 --out tenas.parquet
  jnas score --proxies zico --archs cells.txt --network.cells_per_stage 1 --executor ray --out zico.csv
  srun jnas score --proxies ntk --archs all --coordinator auto --out ntk.csv

  --proxies  names, separated by commas (jnas list proxies)
  --archs    a file with one architecture a line or a CSV with a column 'architecture', all, or random:N
  --out      the table to write, .csv or .parquet (extra 'parquet')
  --executor [local]  local, or ray for a Ray cluster (extra 'ray')

"""

PROCESSES_HELP = """\

Several machines, or processes, share the work where each is given the same command and what jax.distributed needs.
Process 0 alone reads and writes the files of --out; if one fails or is interrupted, all end.

  --coordinator  HOST:PORT of process 0; or auto, with nothing else, under Slurm, Open MPI or on TPUs
  --processes    how many processes there are, N
  --process      which of them this is, 0 to N-1

Keys, in CONFIG where there is one (those with a point in their section) or here as --key value
"""

TRAIN_HELP = """\
jnas train CONFIG --arch ARCHITECTURE|DIR [--key.path value ...] --out DIR

Trains the network of one architecture, or of the one that a finished search in a folder found, as the YAML file
CONFIG says, and leaves in DIR: config.yaml, records.sqlite, result.json, report.html, log.txt, the weights in
checkpoints and curves in tensorboard. The same command again goes on where an interrupted training was stored.

Examples
  jnas train configs/train_darts_digits.yaml --arch runs/darts_seed0 --out runs/train_digits
  jnas train configs/train_darts_cifar10.yaml --arch runs/darts_seed0 --recipe.precision bfloat16 --out runs/cifar10
  jnas train configs/train_nasbench201.yaml --arch "|nor_conv_3x3~0|+|..." --out runs/nasbench201
  srun jnas train configs/train_darts_imagenet.yaml --arch runs/darts --coordinator auto --out runs/imagenet
"""

EXPORT_HELP = """\
jnas export TRAINING --out DIR

Writes the network of a finished training as DIR/network.safetensors, weights with architecture and preprocessing,
which jnas.load gives back, and DIR/network.stablehlo, from images to logits, which jax.export.deserialize runs
without jnas.

Example
  jnas export runs/train_digits --out exported/digits
"""

REPORT_HELP = """\
jnas report DIR

Writes DIR/report.html anew from the result.json, config.yaml and records.sqlite of a finished run: one file
that opens without a network.

Example
  jnas report runs/digits
"""

LIST_HELP = """\
jnas list [spaces|proxies|strategies|oneshot|supernets|estimators|data]

Prints the names that a configuration may use, with one line each; all families where none is named.

Example
  jnas list data
"""

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
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _search(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.study.config import describe_options

        return _print(SEARCH_HELP + _keys_help(describe_options()))
    config_path, overrides, out = _parse_run("search", "configs/tenas_digits.yaml", arguments)
    with _failing("search", arguments, lambda: _log_traceback(out)) as outcome:
        from jnas.study.config import read_config

        config = read_config(config_path, overrides)

        from jnas.study.compilation_cache import enable_compilation_cache
        from jnas.study.progress import Progress
        from jnas.study.report import write_report
        from jnas.study.search import run
        from jnas.study.summary import print_summary

        enable_compilation_cache()
        result = run(config, out, Progress())
        print_summary(result, write_report(out))
    return outcome.status


def _train(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.study.train_config import describe_options

        return _print(TRAIN_HELP + PROCESSES_HELP + _keys_help(describe_options()))
    config_path, options, out = _parse_run("train", "configs/train_darts_digits.yaml", arguments)
    others, overrides = _taken(options, PROCESSES)
    _check_processes(others)
    with _failing("train", arguments, lambda: _log_traceback(out)) as outcome:
        from jnas.study.train_config import read_config

        config = read_config(config_path, overrides)

        import jax

        from jnas.study.compilation_cache import enable_compilation_cache
        from jnas.study.processes import join
        from jnas.study.progress import Progress
        from jnas.study.report import write_report
        from jnas.study.train import run

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


def _export(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        return _print(EXPORT_HELP)
    runs, options = _parse(arguments)
    if len(runs) != 1 or [key for key, _ in options] != ["out"]:
        raise InputError("jnas export takes a training and a folder: jnas export runs/train --out exported")
    with _failing("export", arguments, _print_traceback) as outcome:
        from jnas.study.export import export

        _print(f"{export(runs[0], dict(options)['out'])}\n")
    return outcome.status


def _score(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from jnas.study.scoring_config import describe_options

        return _print(SCORE_HELP + PROCESSES_HELP + _keys_help(describe_options()))
    unexpected, options = _parse(arguments)
    if unexpected:
        raise InputError(f"jnas score takes options only, not '{unexpected[0]}': see jnas score --help")
    others, options = _taken(options, PROCESSES)
    own, settings = _taken(options, ("proxies", "archs", "out", "executor"))
    for key, example in (("proxies", "naswot,synflow"), ("archs", "random:1000"), ("out", "scores.csv")):
        if not own[key]:
            raise InputError(f"jnas score needs --{key}: for example --{key} {example}")
    _check_processes(others)
    with _failing("score", arguments, _print_traceback) as outcome:
        import jax

        from jnas.study import score, scoring_config
        from jnas.study.compilation_cache import enable_compilation_cache
        from jnas.study.processes import join
        from jnas.study.progress import Progress
        from jnas.study.summary import print_scores

        config = scoring_config.read_settings(settings)
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
            f"interrupted; nothing finished is lost, to resume run again: {again}", 130
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
    from jnas.study.records import RunError
    from jnas.study.report import write_report

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


def _parse(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """What is no option, and the options; accepts `--key value` and `--key=value`."""
    others, options = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("-"):
            others.append(argument)
            continue
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            raise InputError(f"unknown option '{argument}': options start with two dashes, as in --out DIR")
        if not equals:
            following = next(remaining, None)
            if following is None or following.startswith("--"):
                raise InputError(f"option '--{key}' has no value: write --{key} VALUE")
            value = following
        options.append((key, value))
    return others, options


def _taken(
    options: list[tuple[str, str]], names: tuple[str, ...]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The options of these names, None where not given, and the other options."""
    taken = dict.fromkeys(names) | {key: value for key, value in options if key in names}
    return taken, [(key, value) for key, value in options if key not in names]


def _check_processes(options: dict[str, Any]) -> None:
    if (options["processes"] or options["process"]) and not options["coordinator"]:
        raise InputError("--processes and --process need --coordinator: give HOST:PORT of process 0")


def _parse_run(command: str, example: str, arguments: list[str]) -> tuple[str, list[tuple[str, str]], Path]:
    """`(CONFIG, overrides, DIR)`."""
    configs, options = _parse(arguments)
    out = dict(options).get("out")
    if len(configs) != 1:
        given = "none" if not configs else ", ".join(f"'{name}'" for name in configs)
        raise InputError(
            f"jnas {command} takes one configuration file, given: {given}: "
            f"jnas {command} {example} --out runs/digits"
        )
    if not out:
        raise InputError(
            f"jnas {command} needs a folder to write into: add --out DIR, for example --out runs/digits"
        )
    return configs[0], [(key, value) for key, value in options if key != "out"], Path(out)


def _keys_help(options: Iterable[tuple[str, str, str, str]]) -> str:
    lines = [f"  --{key}  [{default}]  {takes}\n      {text}" for key, takes, default, text in options]
    return "\n".join(lines) + "\n"


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
    from jnas.study.records import RunError

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
