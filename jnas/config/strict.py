"""Strict reading of frozen dataclasses: from YAML, from mappings, from flags of the command line.

A field is `int`, `float`, `bool`, `str`, a `Literal` of texts or another dataclass, and is made by `option`,
which keeps its help and its bounds. Every departure is an `InputError` of one line: where it stood, the key,
the value, what is allowed.
"""

import contextlib
import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from jnas.errors import InputError


def option(default: Any, help: str, **bounds: float) -> Any:
    """A dataclass field with its default, a line of help, and any of `minimum`, `above`, `maximum`, `below`."""
    return field(default=default, metadata={"help": help, **bounds})


def leaves(kind: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """`(dotted key, field, type)` of each field that is not itself a dataclass, depth first."""
    annotations = typing.get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        annotation = annotations[entry.name]
        if dataclasses.is_dataclass(annotation):
            yield from leaves(typing.cast(type, annotation), f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, entry, annotation


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The YAML mapping in a file. Raises `InputError`, with the line, where there is none."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no configuration file '{path}': give an existing YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text: give a YAML file") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}' ({error.strerror}): give a readable YAML file") from None
    try:
        mapping = yaml.load(text, Loader=_unique_key_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise InputError(f"{path}{line}: not valid YAML ({problem}): write 'key: value' lines") from None
    except (ValueError, OverflowError, RecursionError) as error:
        # PyYAML does not catch what making a date or a number of a text raises, nor too deep a nesting.
        raise InputError(f"{path}: holds a value that YAML cannot read ({error}): put it in quotes") from None
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: holds {describe(mapping)}: write 'key: value' lines")
    return mapping


def build(kind: type, mapping: Any, source: str, prefix: str = "", root: type | None = None) -> Any:
    """The dataclass `kind` from a nested mapping; what the mapping leaves out keeps its default.

    Raises `InputError` for a key that `kind` does not have and for a value of another type or out of bounds.
    """
    root = root or kind
    if not isinstance(mapping, Mapping):
        key = prefix.rstrip(".")
        raise InputError(
            f"{source}: '{key}' is {describe(mapping)}: give the keys of {key} below it, indented"
        )
    annotations = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    values = {}
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if name not in fields:
            raise _unknown_key(root, key, source)
        annotation = annotations[name]
        if dataclasses.is_dataclass(annotation):
            values[name] = build(typing.cast(type, annotation), value, source, f"{key}.", root)
        else:
            values[name] = _checked(annotation, fields[name].metadata, key, value, source)
    return kind(**values)


def override(kind: type, mapping: Mapping[str, Any], key: str, text: str, source: str) -> dict[str, Any]:
    """`mapping` with the dotted `key` set to what `text` means for that field's type, as in YAML.

    Raises `InputError` for a key that `kind` does not have; the value is left for `build` to check.
    """
    annotations = {name: annotation for name, _, annotation in leaves(kind)}
    if key not in annotations:
        raise _unknown_key(kind, key, source, dashes="--")
    value: Any = text
    if annotations[key] in (int, float, bool):
        import yaml

        with contextlib.suppress(yaml.YAMLError, ValueError, OverflowError):
            value = yaml.safe_load(text)
    return _set(mapping, key.split("."), value)


def overridden(
    kind: type, mapping: Mapping[str, Any], options: Sequence[tuple[str, str]], source: str
) -> dict[str, Any]:
    """`mapping` with each of `(dotted key, text)` pairs set by `override`."""
    result = dict(mapping)
    for key, text in options:
        result = override(kind, result, key, text, source)
    return result


def expected(annotation: Any, metadata: Mapping[str, Any]) -> str:
    """What a field takes, in words: 'a whole number >= 1', 'one of train, frozen'."""
    choices = typing.get_args(annotation)
    if choices:
        return "one of " + ", ".join(choices)
    text = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[annotation]
    signs = {"minimum": ">=", "above": ">", "maximum": "<=", "below": "<"}
    bounds = [f"{sign} {metadata[name]}" for name, sign in signs.items() if name in metadata]
    return " ".join([text, " and ".join(bounds)]).strip()


def describe_options(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """`(dotted key, what it takes, default, help)` of each field, for the help of the command line."""
    for key, entry, annotation in leaves(kind):
        yield key, expected(annotation, entry.metadata), json.dumps(entry.default), entry.metadata["help"]


def describe(value: Any) -> str:
    """A value as an error message shows it: on one line, and never longer than about 80 characters."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "empty"
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checked(annotation: Any, metadata: Mapping[str, Any], key: str, value: Any, source: str) -> Any:
    if annotation is float and isinstance(value, str | int) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3, without a point, as text.
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    choices = typing.get_args(annotation)
    fits = value in choices if choices else type(value) is annotation
    if fits and annotation in (int, float):
        fits = (
            math.isfinite(value)
            and value >= metadata.get("minimum", -math.inf)
            and value > metadata.get("above", -math.inf)
            and value <= metadata.get("maximum", math.inf)
            and value < metadata.get("below", math.inf)
        )
    if not fits:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise InputError(
            f"{source}: '{key}' is {describe(value)}: give {expected(annotation, metadata)}{hint}"
        )
    return value


def _set(mapping: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**mapping, first: _set(mapping.get(first, {}), rest, value) if rest else value}


def _unknown_key(kind: type, key: str, source: str, dashes: str = "") -> InputError:
    known = [name for name, _, _ in leaves(kind)]
    section, _, name = key.rpartition(".")
    below = [other for other in known if other.startswith(f"{key}.")]
    if below:
        return InputError(
            f"{source}: '{dashes}{key}' is a section: set one of its keys, such as {dashes}{below[0]}"
        )
    # A right name in the wrong section is as frequent as a slip of the pen.
    close = [other for other in known if other.rpartition(".")[2] == name]
    close = close or difflib.get_close_matches(key, known, n=1)
    siblings = [other for other in known if other.rpartition(".")[0] == section] or known
    guesses = " or ".join(f"'{dashes}{other}'" for other in close)
    mend = f"did you mean {guesses}?" if close else "choose one of " + ", ".join(siblings)
    return InputError(f"{source}: unknown key '{dashes}{key}': {mend}")


def _unique_key_loader() -> Any:
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """YAML takes the last of two equal keys in silence; here the second is an error."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                if str(key_node.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key '{key_node.value}' appears twice", key_node.start_mark
                    )
                seen.add(str(key_node.value))
            return super().construct_mapping(node, deep)

    return UniqueKeyLoader


def whole_numbers(text: str, name: str, least: int) -> tuple[int, ...]:
    """`"8,16"` to (8, 16), ascending. Raises `InputError`, which calls the option `name`."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or list(found) != sorted(set(found)) or found[0] < least:
        raise InputError(
            f"{name} is '{text}': give ascending whole numbers from {least}, separated by commas"
        )
    return found
