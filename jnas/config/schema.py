"""A schema of settings as msgspec describes it: its sections, the words for its types, its errors in one line."""

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect
from msgspec.inspect import Field, StructType, Type

from jnas.errors import InputError, describe
from jnas.settings import Settings

COMMAND_LINE = "command line"


class Layer(NamedTuple):
    """A nested mapping, and where it stood."""

    source: str
    mapping: Any


class Section(NamedTuple):
    """Structs of a type.

    members: by their tags, one without a tag under ""; empty for a plain value.
    tagged: whether a name chooses among them.
    optional: whether there may be none.
    """

    members: Mapping[str, StructType]
    tagged: bool
    optional: bool


@functools.cache
def struct_type(kind: type[Settings]) -> StructType:
    """The schema of settings."""
    struct = inspect.type_info(kind)
    assert isinstance(struct, StructType)
    return struct


def plain(kind: Type) -> Type:
    """A type without its help."""
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def section(kind: Type) -> Section:
    """The structs that a type stands for."""
    kind = plain(kind)
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    members = {str(entry.tag or ""): entry for entry in kinds if isinstance(entry, StructType)}
    optional = any(isinstance(entry, inspect.NoneType) for entry in kinds)
    return Section(members, tagged=bool(members) and "" not in members, optional=optional)


def branch(kind: Type, value: Any, default: Any = None) -> StructType | None:
    """The member that `value` names, or `default` where it names none."""
    members, tagged, _ = section(kind)
    if not tagged:
        return members.get("")
    name = value.get("name") if isinstance(value, Mapping) else None
    if name is None and isinstance(default, msgspec.Struct):
        name = default.__struct_config__.tag
    return members.get(name) if isinstance(name, str) else None


def fields(
    struct: StructType, mapping: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Field, Any]]:
    """`(dotted key, field, value)` of each field of the members that `mapping` chooses, sections before their keys."""
    for field in struct.fields:
        value = mapping.get(field.name, msgspec.to_builtins(field.default))
        yield prefix + field.name, field, value
        below = branch(field.type, value, field.default)
        if below:
            yield from fields(below, value if isinstance(value, Mapping) else {}, f"{prefix}{field.name}.")


def choices(kind: Type) -> list[str]:
    """Names that a value is one of; empty where any value of its type will do."""
    kind = plain(kind)
    if isinstance(kind, inspect.LiteralType):
        return [str(value) for value in kind.values]
    members, tagged, optional = section(kind)
    return [*members, *["none"] * optional] if tagged else []


def expected(kind: Type) -> str:
    """Allowed values of a type, in words: 'a whole number >= 1', 'one of train, frozen'."""
    kind = plain(kind)
    if names := choices(kind):
        return "one of " + ", ".join(names)
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return "true or false" if isinstance(kind, inspect.BoolType) else "text"
    signs = {">=": kind.ge, ">": kind.gt, "<=": kind.le, "<": kind.lt}
    bounds = " and ".join(f"{sign} {bound}" for sign, bound in signs.items() if bound is not None)
    return f"a {'whole ' if isinstance(kind, inspect.IntType) else ''}number {bounds}".strip()


def refusal(struct: StructType, whole: Any, message: str, layers: Sequence[Layer]) -> InputError:
    """msgspec's error as one line: where the value stood, its key, the value, the allowed ones, and the mend."""
    problem, _, place = message.partition(" - at `$")
    keys = [key for key in place.rstrip("`").split(".") if key]
    unknown = re.search("unknown field `(.*)`", problem)

    # Follow the key to its type and value. The name of a member stands for the member.
    kind: Type = struct
    value = whole
    for name in keys:
        member = branch(kind, value)
        field = next((field for field in member.fields if field.name == name), None) if member else None
        kind = plain(field.type) if field else kind
        value = value.get(name) if isinstance(value, Mapping) else None
    keys = keys[:-1] if keys[-1:] == ["name"] else keys
    below = [unknown[1]] if unknown else []
    holders = [source for source, mapping in layers if _holds(mapping, [*keys, *below])]
    source = holders[-1] if holders else layers[0].source
    dashes = "--" if source == COMMAND_LINE else ""
    members, tagged, optional = section(kind)
    # A flag goes on below a plain value or an unknown key, such as --seed.x.
    rest = value[below[0]] if below else value
    while dashes and isinstance(rest, Mapping) and rest and (below or not members):
        below.append(next(iter(rest)))
        rest = rest[below[-1]]
    key = ".".join([*keys, *below])

    # A wrong value of a known key.
    if not below and members and not tagged and dashes:
        mend = f"set one of its keys, such as --{key}.{members[''].fields[0].name}{', or none' * optional}"
        return InputError(f"{source}: '--{key}' is a section: {mend}")
    if not below:
        close = difflib.get_close_matches(str(value), choices(kind), n=1)
        mend = f"give {expected(kind)}" + (f"; did you mean '{close[0]}'?" if close else "")
        if members and not tagged:
            mend = f"give the keys of {key} below it, indented"
        return InputError(f"{source}: '{key}' is {describe(value)}: {mend}")

    # An unknown key. A right name in the wrong section is as frequent as a slip of the pen.
    parent, _, name = key.rpartition(".")
    others = [tag for tag, member in members.items() if any(field.name == name for field in member.fields)]
    known = [other for other, _, _ in fields(struct, whole)]
    if others and parent and "" not in members:
        mend = f"it is a key of {' and '.join(others)}"
    elif close := (
        [other for other in known if f".{other}".endswith(f".{key}")]
        or [other for other in known if other.rpartition(".")[2] == name]
        or difflib.get_close_matches(key, known, n=1)
    ):
        mend = "did you mean " + " or ".join(f"'{dashes}{other}'" for other in close) + "?"
    else:
        siblings = [other for other in known if other.rpartition(".")[0] == parent] or known
        mend = "choose one of " + ", ".join(siblings)
    return InputError(f"{source}: unknown key '{dashes}{key}': {mend}")


def _holds(mapping: Any, keys: Sequence[str]) -> bool:
    """True where a nested mapping has the key that `keys` lead to."""
    if not keys:
        return True
    return isinstance(mapping, Mapping) and keys[0] in mapping and _holds(mapping[keys[0]], keys[1:])
