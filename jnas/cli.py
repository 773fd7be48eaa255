"""The command line: words to a `jnas.commands.Command`, and errors to one line and an exit status.

Exit status: 0 done; 2 bad input, one line on stderr; 1 failed, one line there and the traceback in log.txt;
130 interrupted, resumable. Results go to stdout, everything else to stderr.
"""

import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import jnas
from jnas.commands import COMMANDS, Call, Command
from jnas.errors import InputError, RunError, one_line, unknown_name
from jnas.run.interruption import interruptible

INTERRUPTED = 130
HELP = """\
jnas: neural architecture search in JAX

  jnas search [CONFIG] [--key.path value ...] --out DIR  search; the same command again resumes
  jnas score --proxies A,B --archs all --out FILE        score architectures; the same command again goes on
  jnas train CONFIG --arch A --out DIR                   train one network; the same command again goes on
  jnas table build|import|show                           accuracies of many cells as one file
  jnas study CONFIG --out DIR                            theory compared with experiment, on a table
  jnas export DIR --out DIR                              a trained network as files for others
  jnas report DIR                                        write DIR/report.html anew
  jnas list [FAMILY]                                     all there is to choose from
  jnas --version

Each command explains itself with --help.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `arguments` are those of the process where None."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        sys.stdout.reconfigure(errors="replace")
    name, *words = arguments or ["--help"]
    helps = [word for word in words if word in ("-h", "--help")]
    call = Call((), {}, ())
    try:
        if name in ("-h", "--help", "--version"):
            sys.stdout.write(f"jnas {jnas.__version__}\n" if name == "--version" else HELP)
        elif name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        elif helps:
            call = parsed(COMMANDS[name], [word for word in words if word not in helps])
            sys.stdout.write(COMMANDS[name].help(call))
        else:
            call = parsed(COMMANDS[name], words)
            with interruptible():
                COMMANDS[name].run(call)
        sys.stdout.flush()
        return 0
    except InputError as error:
        return _complain(f"error: {error}", 2)
    except KeyboardInterrupt:
        again = shlex.join(["jnas", *arguments])
        return _complain(f"interrupted; nothing finished is lost, to resume run again: {again}", INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has seen enough; Python's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _complain(f"failed: {one_line(error)}{_trace(error, call.options.get('out'))}", 1)


def command() -> None:
    """The process `jnas`: `main`, and the end of the process with its status."""
    status = main()
    if status == INTERRUPTED:
        # A device may be computing still, and Python would take away the memory that it works on.
        if "jax" in sys.modules:
            from jnas.run.processes import leave

            leave()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def parsed(command: Command, words: Sequence[str]) -> Call:
    """Split words into files and options, `--key value` or `--key=value`. Raises `InputError`."""
    files: list[str] = []
    options: list[tuple[str, str]] = []
    remaining = iter(words)
    for word in remaining:
        if not word.startswith("-"):
            files.append(word)
            continue
        if not word.startswith("--"):
            raise InputError(f"unknown option '{word}': options start with two dashes, as in --out DIR")
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            value = next(remaining, "--")
            if value.startswith("--"):
                raise InputError(f"option '--{key}' has no value: write --{key} VALUE")
        options.append((key, value))
    own = dict.fromkeys(command.options) | {key: value for key, value in options if key in command.options}
    return Call(files, own, [(key, value) for key, value in options if key not in command.options])


def _trace(error: Exception, out: str | None) -> str:
    """Append the traceback to the run's log.txt, or print it; the words on where it went."""
    log = Path(out or "") / "log.txt"
    try:
        if out and log.exists():
            with log.open("a", encoding="utf-8") as stream:
                stream.write(traceback.format_exc())
            return f" (traceback in {log})"
    except OSError:
        pass
    if isinstance(error, RunError):
        return ""
    traceback.print_exc()
    return " (traceback above)"


def _complain(text: str, status: int) -> int:
    print("jnas: " + text.replace("\n", "\\n"), file=sys.stderr)
    return status
