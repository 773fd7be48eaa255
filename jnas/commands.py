"""The commands of the command line: a function each, whose docstring is its help.

A command imports its work when it runs, so that help is light.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jnas.config import read
from jnas.errors import InputError, unknown_name
from jnas.settings import Settings

S = TypeVar("S", bound=Settings)

# Of `jnas.run.processes.join`, where several processes share the work of a command.
PROCESSES = ("coordinator", "processes", "process")
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


class Call(NamedTuple):
    """Words behind a command.

    files: words that are no options.
    options: the command's own, by name; None where not given.
    settings: all other options, `(dotted key, text)`.
    """

    files: Sequence[str]
    options: dict[str, str | None]
    settings: Sequence[tuple[str, str]]

    def read(self, kind: type[S]) -> S:
        """Settings from the file, if there is one, and the options."""
        if self.files:
            return read.from_file(kind, self.files[0], self.settings)
        return read.from_options(kind, self.settings)

    def text(self, name: str, default: str = "") -> str:
        """An option, or its default."""
        return self.options[name] or default

    def names(self, name: str) -> list[str]:
        """The names in an option, separated by commas."""
        return [part.strip() for part in self.text(name).split(",") if part.strip()]


class Command(NamedTuple):
    """A command.

    run: its function.
    options: names besides the keys of its settings.
    settings: `module:class` of its settings, or a function that gives the class; empty for none.
    """

    run: Callable[[Call], None]
    options: tuple[str, ...] = ("out",)
    settings: str = ""

    def help(self, call: Call) -> str:
        """The docstring, and the keys of the settings that are chosen."""
        text = f"{inspect.getdoc(self.run)}\n"
        if not self.settings:
            return text
        module, name = self.settings.split(":")
        kind = getattr(importlib.import_module(module), name)
        rows = read.options(call.read(kind if isinstance(kind, type) else kind()))
        lines = [f"  --{key}  [{value}]  {allowed}\n      {words}" for key, allowed, value, words in rows]
        return "\n".join([text, "Keys, in CONFIG or here as --key value [present value]", *lines, ""])


def search(call: Call) -> None:
    """jnas search [CONFIG] [--key.path value ...] --out DIR
    jnas search --space S --strategy A --estimator E --budget N [--key.path value ...] --out DIR

    Searches by the YAML file CONFIG or by the keys here, and leaves in DIR: config.yaml, records.sqlite, result.json,
    report.html and log.txt. The same command again resumes an interrupted run, or shows the result of a finished one.
    Behind --strategy A --help are the keys of A; jnas list shows all there is, and what composes with what.

      --estimator  proxies:ntk,regions | table:digits | table:FILE.csv | train | inherited:RUN
      --oneshot    posterior | uniform: trains a supernet, whose weights the candidates inherit

    Examples
      jnas search configs/tenas_digits.yaml --out runs/digits
      jnas search configs/tenas_nasbench201.yaml --data cifar10 --seed 3 --out runs/cifar10_seed3
      jnas search configs/tenas_digits.yaml --estimator.ntk.normalisation frozen --training none --out runs/frozen
      jnas search --strategy aging --strategy.population 50 --estimator table:digits --budget 300 --out runs/aging
      jnas search --oneshot posterior --supernet.epochs 20 --out runs/posterior
    """
    out = _folder("search", call)
    from jnas.config.search import kind

    config = call.read(kind())

    from jnas.report.report import write_report
    from jnas.report.terminal import print_summary
    from jnas.run.search import run

    result = run(config, out, _progress())
    print_summary(result, write_report(out))


def train(call: Call) -> None:
    """jnas train [CONFIG] --arch ARCHITECTURE|DIR [--key.path value ...] --out DIR

    Trains the network of one architecture, or of the one that a finished search in a folder found, and leaves in DIR:
    config.yaml, records.sqlite, result.json, report.html, log.txt, the weights in checkpoints and curves in
    tensorboard. The same command again goes on where an interrupted training was stored.

      --coordinator  HOST:PORT of process 0; or auto, with nothing else, under Slurm, Open MPI or on TPUs
      --processes    number of processes that share the work, each given the same command
      --process      number of this one, from 0, which alone reads and writes DIR; if one fails, all end

    Examples
      jnas train configs/train_darts_digits.yaml --arch runs/darts_seed0 --out runs/train_digits
      jnas train configs/train_darts_cifar10.yaml --arch runs/darts_seed0 --recipe.precision bfloat16 --out runs/cifar10
      jnas train configs/train_nasbench201.yaml --arch "|nor_conv_3x3~0|+|..." --out runs/nasbench201
      srun jnas train configs/train_darts_imagenet.yaml --arch runs/darts --coordinator auto --out runs/imagenet
    """
    out = _folder("train", call)
    from jnas.config.train import TrainConfig

    config = call.read(TrainConfig)
    progress = _progress(call)
    import jax

    from jnas.report.report import write_report
    from jnas.run.train import run

    result = run(config, out, progress)
    if jax.process_index() == 0:
        report = write_report(out)
        sys.stdout.write(
            f"{result['architecture']}\n{result['parameters']:,} parameters, test accuracy "
            f"{result['test_accuracy']:.2f} % after {result['epochs']} epochs, {result['seconds']:.1f} s\n"
            f"Report: {report}\n"
        )


def study(call: Call) -> None:
    """jnas study [CONFIG] [--key.path value ...] --out DIR

    Compares theory with experiment by the YAML file CONFIG, and leaves in DIR: study.csv, each figure as PNG and SVG,
    and report.html with a paragraph on the numbers.

    Examples
      jnas study configs/study_search.yaml --out runs/study_search
      jnas study configs/study_rank.yaml --table cifar10.npz --data cifar10 --out runs/study_rank
    """
    out = _folder("study", call)
    from jnas.config.study import StudyConfig

    config = call.read(StudyConfig)
    from jnas.studies import run

    findings, page = run(config, out, _progress())
    sys.stdout.write("\n\n".join([findings.title, *findings.paragraphs, f"Report: {page}"]) + "\n")


def score(call: Call) -> None:
    """jnas score --space S --proxies A,B --archs FILE|all|random:N --data D --out scores.csv|.parquet

    Scores architectures by training-free proxies, in compiled batches on all devices. Columns: architecture, each proxy
    with its status, params, flops. Rows appear in the CSV as they are computed; beside it lies FILE.journal, from which
    the same command, or one that asks for more, goes on. Equivalent architectures are computed once. A score that
    failed has a status other than ok, and counts as the worst.

      --proxies  names, separated by commas (jnas list proxies)
      --archs    a file with one architecture a line or a CSV with a column 'architecture', all, or random:N
      --out      the table to write, .csv or .parquet (extra 'parquet')
      --executor [local]  local, or ray for a Ray cluster (extra 'ray')
      --shard    1/N to N/N: one of N parts, each for a machine of its own, with its own --out
      --merge    the --out of finished parts, separated by commas; their journals must lie beside them. The same
                 command with it in place of --shard takes over their values, and computes the missing ones.

    Examples
      jnas score --proxies naswot,synflow --archs random:1000 --data cifar10 --out scores.csv
      jnas score --proxies ntk,regions --archs all --data cifar10 --out tenas.parquet
      jnas score --proxies zico --archs cells.txt --network.cells_per_stage 1 --executor ray --out zico.csv
      jnas score --proxies ntk --archs all --shard 1/2 --out 1.csv      # 2/2 on another machine, and then
      jnas score --proxies ntk --archs all --merge 1.csv,2.csv --out ntk.csv
    """
    if call.files:
        raise InputError(f"jnas score takes options only, not '{call.files[0]}': see jnas score --help")
    for key, example in (("proxies", "naswot,synflow"), ("archs", "random:1000"), ("out", "scores.csv")):
        if not call.options[key]:
            raise InputError(f"jnas score needs --{key}: for example --{key} {example}")
    from jnas.config.score import ScoreConfig

    config = call.read(ScoreConfig)
    progress = _progress()
    from jnas.report.terminal import print_scores
    from jnas.run.score import run

    proxies, out = tuple(dict.fromkeys(call.names("proxies"))), call.text("out")
    scores = run(
        config, call.text("archs"), proxies, out, call.text("executor", "local"), progress,
        call.options["shard"], call.names("merge"),
    )  # fmt: skip
    print_scores(scores, proxies, out)


def table(call: Call) -> None:
    """jnas table build  --out FILE.npz [--cells N|all] [--key value ...]
    jnas table import FILE --data D --epochs 12|200 --out FILE.npz
    jnas table show   FILE.npz|digits

    build trains the distinct cells of a space, in a fixed random order, many in one program, with several seeds, and
    writes all accuracies as one small file. The same command again goes on after a kill, or with more cells. import
    makes such a file of NAS-Bench-201 (.pth) and NATS-Bench (.pickle.pbz2, or the folder ending in -simple); these are
    pickles, of which nothing but numbers and texts is read. show describes a table; digits is the one that comes with
    jnas.

      --cells    [all]  number of distinct cells; a table grows by more
      --executor [local]  local, or ray for a Ray cluster (extra 'ray')
      --shard, --merge  as jnas score

    Examples
      jnas table build --data digits --cells 1500 --out digits.npz
      jnas table import NATS-tss-v1_0-3ffb9-simple --data cifar10 --epochs 200 --out cifar10.npz
    """
    action, *files = call.files or [""]
    if {"build": 0, "import": 1, "show": 1}.get(action) != len(files):
        raise InputError("jnas table takes build, import FILE or show FILE: see jnas table --help")
    out = call.text("out")
    if action != "show" and not out:
        raise InputError(f"jnas table {action} needs --out: for example --out table.npz")
    from jnas.run import table as tables

    if action == "show":
        from jnas.estimators.compact_table import open_table

        result = open_table(files[0])
    elif action == "import":
        given = {"data": "cifar10", "epochs": "200", **dict(call.settings)}
        unknown = given.keys() - {"data", "epochs"}
        if unknown:
            raise InputError(f"jnas table import knows no --{unknown.pop()}: see jnas table --help")
        result = tables.import_published(files[0], given["data"], given["epochs"], out, _progress())
    else:
        cells = call.text("cells", "all")
        if cells != "all" and not cells.isdecimal():
            raise InputError(f"--cells is '{cells}': give a number, or all")
        config = call._replace(files=()).read(tables.TableConfig)
        count = None if cells == "all" else int(cells)
        result = tables.build(
            config, count, out, call.text("executor", "local"), _progress(), call.options["shard"],
            call.names("merge"),
        )  # fmt: skip
    sys.stdout.write(tables.described(result))


def export(call: Call) -> None:
    """jnas export TRAINING --out DIR

    Writes the network of a finished training as DIR/network.safetensors, weights with architecture and preprocessing,
    which jnas.load gives back, and DIR/network.stablehlo, from images to logits, which jax.export.deserialize runs
    without jnas.

    Example
      jnas export runs/train_digits --out exported/digits
    """
    if len(call.files) != 1 or not call.options["out"] or call.settings:
        raise InputError("jnas export takes a training and a folder: jnas export runs/train --out exported")
    from jnas.run.export import export

    sys.stdout.write(f"{export(call.files[0], call.text('out'))}\n")


def report(call: Call) -> None:
    """jnas report DIR

    Writes DIR/report.html anew from the result.json, config.yaml and records.sqlite of a finished run: one file
    that opens without a network.

    Example
      jnas report runs/digits
    """
    if len(call.files) != 1 or call.settings:
        words = " ".join([*call.files, *(f"--{key} {text}" for key, text in call.settings)])
        raise InputError(f"jnas report takes one folder, not '{words}': jnas report runs/digits")
    from jnas.report.report import write_report

    sys.stdout.write(f"{write_report(Path(call.files[0]))}\n")


def list_members(call: Call) -> None:
    """jnas list [spaces|proxies|strategies|oneshot|supernets|estimators|data]

    Prints the names that a configuration may use, with one line each; all families where none is named, and which
    estimators evaluate the candidates of which strategies.

    Example
      jnas list data
    """
    for name in call.files:
        if name not in FAMILIES:
            raise unknown_name("family", name, FAMILIES)
    blocks = []
    for family in call.files or FAMILIES:
        members = _members(family)
        width = max(map(len, members), default=0)
        lines = [f"  {name:<{width}}  {_described(member)}".rstrip() for name, member in members.items()]
        blocks.append("\n".join([family, *lines]))
    if not call.files:
        estimators, strategies = _members("estimators"), _members("strategies")
        rows = [["", "asks for", *estimators]]
        for name, strategy in strategies.items():
            fits = ["yes" if strategy.asks in estimator.takes else "-" for estimator in estimators.values()]
            rows.append([name, strategy.asks, *fits])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        blocks.append("\n".join(["strategies x estimators", *(f"  {line}".rstrip() for line in lines)]))
    sys.stdout.write("\n\n".join(blocks) + "\n")


COMMANDS = {
    "search": Command(search, settings="jnas.config.search:kind"),
    "score": Command(
        score, ("proxies", "archs", "out", "executor", "shard", "merge"), "jnas.config.score:ScoreConfig"
    ),
    "train": Command(train, ("out", *PROCESSES), "jnas.config.train:TrainConfig"),
    "table": Command(table, ("out", "cells", "executor", "shard", "merge"), "jnas.run.table:TableConfig"),
    "study": Command(study, settings="jnas.config.study:StudyConfig"),
    "export": Command(export),
    "report": Command(report, ()),
    "list": Command(list_members, ()),
}


def _folder(command: str, call: Call) -> Path:
    """The folder of a run, once the words are known to be one CONFIG at most and --out."""
    if len(call.files) > 1:
        files = ", ".join(f"'{name}'" for name in call.files)
        raise InputError(f"jnas {command} takes one configuration file, given: {files}")
    if not call.options["out"]:
        raise InputError(
            f"jnas {command} needs a folder to write into: add --out DIR, for example --out runs/digits"
        )
    return Path(call.text("out"))


def _progress(call: Call | None = None) -> Any:
    """Progress on stderr, once JAX has its cache and its devices and this process has joined the others."""
    others: dict[str, Any] = {name: call.options[name] for name in PROCESSES} if call else {}
    if (others.get("processes") or others.get("process")) and not others["coordinator"]:
        raise InputError("--processes and --process need --coordinator: give HOST:PORT of process 0")
    from jnas.parallel import make_devices_of_cores
    from jnas.run.compilation_cache import enable_compilation_cache
    from jnas.run.progress import Progress

    enable_compilation_cache()
    if others.get("coordinator"):
        from jnas.run.processes import join

        join(**others)
    else:
        make_devices_of_cores()
    return Progress()


def _members(family: str) -> dict[str, Any]:
    module, attribute = FAMILIES[family]
    members: dict[str, Any] = getattr(importlib.import_module(module), attribute)
    return members


def _described(member: Any) -> str:
    if isinstance(member, str):
        return member
    if hasattr(member, "size") and callable(member.network):
        return f"{member.size:,} lists of {len(member.decisions)} decisions, a network for each architecture"
    if hasattr(member, "size") and hasattr(member, "edges"):
        return f"{member.size:,} cells: {len(member.edges)} edges, operations {', '.join(member.operations)}"
    if hasattr(member, "summary"):
        labels = ", needs labels" if member.needs_labels else ""
        return f"{member.summary} ({'higher' if member.sign > 0 else 'lower'} is better{labels})"
    return (inspect.getdoc(member) or "").partition("\n")[0]
