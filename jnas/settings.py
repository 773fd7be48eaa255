"""Bases of all settings: frozen fields by keyword, with bounds and help in `Annotated[int, Meta(ge=1, ...)]`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one thing; `jnas.config.read` reads them."""

    @staticmethod
    def implied(given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Layers of values that take the place of defaults, as nested mappings; a later one goes before."""
        return ()


def names_in(text: str) -> list[str]:
    """Names separated by commas, each once, without what is empty."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


class Member(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name"):
    """Settings of one member of a family. Its `tag` is its name there.

    The first line of its docstring is printed by `jnas list`.
    short: the field that `name:text` sets, such as `path` in `table:digits`; empty for none.
    title: its name in sentences and figures; the tag where empty.
    """

    short: ClassVar[str] = ""
    title: ClassVar[str] = ""

    @classmethod
    def spelled(cls) -> str:
        """The title, or the tag with spaces."""
        return cls.title or str(cls.__struct_config__.tag).replace("_", " ")


# Candidates that a strategy asks for and an estimator takes. Trainings are architectures with a share of the full
# training each; only an estimator for which a share means something takes them.
Kind: TypeAlias = Literal["architectures", "gates", "trainings"]
# A JAX key is made from 32 bits.
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1, description="seed of everything random")]
Data: TypeAlias = Annotated[
    str, Meta(description="name of a data set (jnas list data), or the path of a file or folder")
]
LearningRate: TypeAlias = Annotated[
    float, Meta(gt=0, description="first learning rate of the cosine schedule")
]
Augment: TypeAlias = Annotated[
    bool, Meta(description="shifted and mirrored images, where the images allow it")
]
Batch: TypeAlias = Annotated[int, Meta(ge=1, description="images in a batch")]
WeightDecay: TypeAlias = Annotated[float, Meta(ge=0, description="weight decay")]
Resamples: TypeAlias = Annotated[int, Meta(ge=20, description="bootstrap samples of each interval")]
Channels: TypeAlias = Annotated[int, Meta(ge=1, description="channels of the first stage")]
CellsPerStage: TypeAlias = Annotated[int, Meta(ge=1, description="cells in each stage")]
