"""Errors of settings, in one line: where the value stood, its key, the value, the allowed ones, and the mend."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.inspect import StructType, Type

from jnas.config import schema
from jnas.errors import InputError, describe

COMMAND_LINE = "command line"


class Layer(NamedTuple):
    """A nested mapping, and where it stood."""

    source: str
    mapping: Any


def refusal(struct: StructType, whole: Any, message: str, layers: Sequence[Layer]) -> InputError:
    """msgspec's error as one line: where the value stood, its key, the value, the allowed ones."""
    problem, _, place = message.partition(" - at `$")
    keys = [key for key in place.rstrip("`").split(".") if key]
    unknown = re.search("unknown field `(.*)`", problem)
    # The name of a member stands for the member.
    kind, value = _at(struct, whole, keys)
    keys = keys[:-1] if keys[-1:] == ["name"] else keys
    below = [unknown[1]] if unknown else []
    holders = [source for source, mapping in layers if _holds(mapping, [*keys, *below])]
    source = holders[-1] if holders else layers[0].source
    dashes = "--" if source == COMMAND_LINE else ""
    members, tagged, optional = schema.section(kind)
    # A flag goes on below a plain value or an unknown key, such as --seed.x.
    rest = value[below[0]] if below else value
    while dashes and isinstance(rest, Mapping) and rest and (below or not members):
        below.append(next(iter(rest)))
        rest = rest[below[-1]]
    key = ".".join([*keys, *below])
    if below:
        return _unknown_key(struct, whole, key, source, dashes)
    if members and not tagged and dashes:
        mend = f"set one of its keys, such as --{key}.{members[''].fields[0].name}{', or none' * optional}"
        return InputError(f"{source}: '--{key}' is a section: {mend}")
    if members and not tagged:
        return InputError(
            f"{source}: '{key}' is {describe(value)}: give the keys of {key} below it, indented"
        )
    close = difflib.get_close_matches(str(value), schema.choices(kind), n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return InputError(f"{source}: '{key}' is {describe(value)}: give {schema.expected(kind)}{hint}")


def _unknown_key(struct: StructType, whole: Any, key: str, source: str, dashes: str) -> InputError:
    section, _, name = key.rpartition(".")
    members = schema.section(_at(struct, whole, section.split(".") if section else [])[0]).members
    others = [tag for tag, member in members.items() if any(field.name == name for field in member.fields)]
    if others and section and "" not in members:
        mend = f"it is a key of {' and '.join(others)}"
        return InputError(f"{source}: unknown key '{dashes}{key}': {mend}")
    known = [other for other, _, _ in schema.fields(struct, whole)]
    # A right name in the wrong section is as frequent as a slip of the pen.
    close = [other for other in known if f".{other}".endswith(f".{key}")]
    close = close or [other for other in known if other.rpartition(".")[2] == name]
    close = close or difflib.get_close_matches(key, known, n=1)
    siblings = [other for other in known if other.rpartition(".")[0] == section] or known
    guesses = " or ".join(f"'{dashes}{other}'" for other in close)
    mend = f"did you mean {guesses}?" if close else "choose one of " + ", ".join(siblings)
    return InputError(f"{source}: unknown key '{dashes}{key}': {mend}")


def _at(struct: StructType, whole: Any, keys: Sequence[str]) -> tuple[Type, Any]:
    """The type and the value at a key."""
    kind: Type = struct
    value = whole
    for key in keys:
        branch = schema.branch(kind, value)
        field = next((field for field in branch.fields if field.name == key), None) if branch else None
        kind = schema.plain(field.type) if field else kind
        value = value.get(key) if isinstance(value, Mapping) else None
    return kind, value


def _holds(mapping: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(mapping, Mapping) or key not in mapping:
            return False
        mapping = mapping[key]
    return True
