"""Bases of all settings: frozen fields by keyword, with bounds and help in `Annotated[int, Meta(ge=1, ...)]`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one thing; `jnas.config.read` reads them."""

    @staticmethod
    def implied(given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values that take the place of defaults where nothing is given, as a nested mapping."""
        return {}


class Member(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name"):
    """Settings of one member of a family. Its `tag` is its name there.

    The first line of its docstring is printed by `jnas list`.
    short: the field that `name:text` sets, such as `path` in `table:digits`; empty for none.
    """

    short: ClassVar[str] = ""


# A JAX key is made from 32 bits.
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1, description="seed of everything random")]
Data: TypeAlias = Annotated[
    str, Meta(description="name of a data set (jnas list data), or the path of a file or folder")
]
