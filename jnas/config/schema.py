"""A schema of settings as msgspec describes it: its sections, the members of its unions, the words for its types."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect
from msgspec.inspect import Field, StructType, Type

from jnas.settings import Settings


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


def help_text(kind: Type) -> str:
    """The help of a type; empty where it has none."""
    schema = kind.extra_json_schema if isinstance(kind, inspect.Metadata) else None
    return str((schema or {}).get("description", ""))


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
