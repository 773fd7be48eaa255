"""What is written behind a command: `--key value` or `--key=value`, and a configuration file."""

from pathlib import Path
from typing import Any

from jnas.config import read
from jnas.errors import InputError
from jnas.settings import Settings

# Where several processes share the work of a command: options of `jnas.run.processes.join`.
PROCESSES = ("coordinator", "processes", "process")


def parse(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
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


def taken(
    options: list[tuple[str, str]], names: tuple[str, ...]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The options of these names, None where not given, and the other options."""
    taken = dict.fromkeys(names) | {key: value for key, value in options if key in names}
    return taken, [(key, value) for key, value in options if key not in names]


def check_processes(options: dict[str, Any]) -> None:
    if (options["processes"] or options["process"]) and not options["coordinator"]:
        raise InputError("--processes and --process need --coordinator: give HOST:PORT of process 0")


def parse_run(command: str, example: str, arguments: list[str]) -> tuple[str, list[tuple[str, str]], Path]:
    """`(CONFIG, overrides, DIR)`."""
    configs, options = parse(arguments)
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


def keys_help(kind: type[Settings]) -> str:
    rows = read.options(read.from_mapping(kind, {}))
    lines = [f"  --{key}  [{value}]  {allowed}\n      {text}" for key, allowed, value, text in rows]
    return "\n".join(lines) + "\n"
