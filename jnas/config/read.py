"""Strict reading of settings: layers of nested mappings become one frozen `Settings`, or one line of error.

    defaults  <  Settings.implied (a protocol, a space)  <  file  <  flags

Layers are merged as plain mappings and validated once, by msgspec, whose errors are translated here: where the value
stood, its key with dots, the value, the allowed ones. A union is tagged by `name`: a layer with another name takes the
place of all below it. `strategy: aging` is short for `strategy: {name: aging}`, and `estimator: table:digits` for
`{name: table, path: digits}` (`Member.short`). `none` switches an optional section off.
"""

import contextlib
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import inspect
from msgspec.inspect import Type

from jnas.config import schema
from jnas.config.schema import COMMAND_LINE, Layer
from jnas.errors import InputError, describe
from jnas.settings import Settings

# Of the layout of a run's config.yaml.
FORMAT = 2
# Keys of that file besides the settings, skipped in reading: the file of a run repeats the run.
RESERVED = ("format", "environment")

# The type of an unknown key.
PLAIN = inspect.AnyType()

S = TypeVar("S", bound=Settings)


class Text(str):
    """A value of the command line, read by the type of its field."""


def from_mapping(kind: type[S], mapping: Mapping[str, Any], source: str = "settings") -> S:
    """Settings of a nested mapping. Raises `InputError`, which names `source`, for unknown keys and wrong values."""
    return _read(kind, [Layer(source, mapping)])


def from_options(kind: type[S], options: Sequence[tuple[str, str]], source: str = COMMAND_LINE) -> S:
    """Settings of `(dotted key, text)` pairs. Raises `InputError`."""
    return _read(kind, _layers(options, source))


def from_file(kind: type[S], path: str | Path, options: Sequence[tuple[str, str]] = ()) -> S:
    """Settings of a YAML file, with `(dotted key, text)` pairs of the command line on top. Raises `InputError`."""
    mapping = {key: value for key, value in read_yaml(path).items() if key not in RESERVED}
    return _read(kind, [Layer(str(path), mapping), *_layers(options, COMMAND_LINE)])


def to_mapping(config: Settings) -> dict[str, Any]:
    """Settings as nested plain values, which `from_mapping` reads back unchanged."""
    mapping: dict[str, Any] = msgspec.to_builtins(config)
    return mapping


def digest(config: Settings) -> str:
    """SHA-256 of all settings: equal for equal ones, on every machine."""
    return hashlib.sha256(json.dumps(to_mapping(config), sort_keys=True).encode()).hexdigest()


def differences(old: Settings, new: Settings) -> list[str]:
    """`key: old -> new` for each value in which two settings of one kind differ."""
    return list(_differences(to_mapping(old), to_mapping(new)))


def stored_differences(path: str | Path, config: Settings) -> list[str]:
    """`differences` of the settings in a run's config.yaml, read by today's schema, from `config`.

    Keys that the file lacks take today's defaults. Raises `InputError` for a file of another format.
    """
    mapping = read_yaml(path)
    if mapping.get("format") != FORMAT:
        raise InputError(f"'{path}' was written by another version of jnas: give another --out")
    return differences(from_file(type(config), path), config)


def options(config: Settings) -> Iterator[tuple[str, str, str, str]]:
    """`(dotted key, allowed values, present value, help)` of each field, for the help of the command line."""
    absent = "."
    for key, field, value in schema.fields(schema.struct_type(type(config)), to_mapping(config)):
        members, tagged, optional = schema.section(field.type)
        json_schema = field.type.extra_json_schema if isinstance(field.type, inspect.Metadata) else None
        text = str((json_schema or {}).get("description", ""))
        if key.startswith(absent):
            continue
        if optional and value is None:
            absent = f"{key}."
        if not members:
            yield key, schema.expected(field.type), json.dumps(value), text
        elif tagged:
            yield key, schema.expected(field.type), value["name"] if value else "none", text
        elif value is None:
            keys = ", ".join(below.name for below in members[""].fields)
            yield key, f"none, or a section of {keys}", "none", text


def whole_numbers(text: str, name: str, least: int) -> tuple[int, ...]:
    """`"8,16"` to (8, 16), ascending. Raises `InputError`, which calls the option `name`."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or list(numbers) != sorted(set(numbers)) or numbers[0] < least:
        raise InputError(
            f"{name} is '{text}': give ascending whole numbers from {least}, separated by commas"
        )
    return numbers


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The YAML mapping in a file. Raises `InputError`, with the line, where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no configuration file '{path}': give an existing YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text: give a YAML file") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}' ({error.strerror}): give a readable YAML file") from None
    try:
        mapping = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise InputError(f"{path}{line}: not valid YAML ({problem}): write 'key: value' lines") from None
    except (ValueError, OverflowError, RecursionError) as error:
        # PyYAML passes on the errors of dates and numbers that do not exist, and of too deep a nesting.
        raise InputError(f"{path}: holds a value that YAML cannot read ({error}): put it in quotes") from None
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: holds {describe(mapping)}: write 'key: value' lines")
    return mapping


class Loader(yaml.SafeLoader):
    """Safe YAML with two changes: the second of two equal keys is an error, and 1e-3 is a number as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            if str(key_node.value) in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key_node.value}' appears twice", key_node.start_mark
                )
            keys.add(str(key_node.value))
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read(kind: type[S], layers: Sequence[Layer]) -> S:
    """Merge, type and validate; see the head of this file."""
    struct = schema.struct_type(kind)
    merge = functools.partial(_merged, struct)
    given: Any = functools.reduce(merge, (mapping for _, mapping in layers), {})
    whole = _typed(struct, functools.reduce(merge, [*kind.implied(given), given], {}))
    try:
        return msgspec.convert(whole, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise schema.refusal(struct, whole, str(error), layers) from None


def _layers(options: Sequence[tuple[str, str]], source: str) -> list[Layer]:
    """A layer for each option: `strategy` comes before `strategy.population`, whatever their order."""
    layers = []
    for key, text in sorted(options, key=lambda option: option[0].count(".")):
        value: Any = Text(text)
        for name in reversed(key.split(".")):
            value = {name: value}
        layers.append(Layer(source, value))
    return layers


def _merged(kind: Type, below: Any, above: Any) -> Any:
    """`above` on top of `below`, with short forms written in full; another member takes the place of the one below."""
    members, tagged, optional = schema.section(kind)
    if isinstance(above, str) and above == "none" and optional:
        return None
    if isinstance(above, str) and tagged:
        name, colon, text = above.partition(":")
        short = getattr(members[name].cls, "short", "") if name in members else ""
        above = {"name": name, short: type(above)(text)} if colon and short else {"name": str(above)}
    if not isinstance(above, Mapping):
        return above
    above = {str(key): value for key, value in above.items()}
    below = below if isinstance(below, Mapping) else {}
    if below.get("name", above.get("name")) != above.get("name", below.get("name")):
        below = {}
    branch = schema.branch(kind, {**below, **above})
    kinds = {field.name: field.type for field in branch.fields} if branch else {}
    merged = {key: _merged(kinds.get(key, PLAIN), below.get(key), value) for key, value in above.items()}
    return {**below, **merged}


def _typed(kind: Type, value: Any, default: Any = None) -> Any:
    """`value` with texts of the command line read by their types, and with the names of default members."""
    if isinstance(value, Mapping):
        branch = schema.branch(kind, value, default)
        fields = {field.name: field for field in branch.fields} if branch else {}
        typed = {
            name: _typed(fields[name].type, entry, fields[name].default) if name in fields else entry
            for name, entry in value.items()
        }
        return {"name": branch.tag, **typed} if branch and branch.tag else typed
    if isinstance(value, Text):
        text = value = str(value)
        if not isinstance(schema.plain(kind), inspect.StrType | inspect.LiteralType):
            with contextlib.suppress(yaml.YAMLError, ValueError, OverflowError, RecursionError):
                value = yaml.load(text, Loader=Loader)
    # msgspec takes infinity and, without bounds, NaN for numbers; as text they are refused.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and a.get("name") == b.get("name"):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            a, b = (value.get("name", value) if isinstance(value, Mapping) else value for value in (a, b))
            yield f"{prefix}{key}: {describe(a)} -> {describe(b)}"
