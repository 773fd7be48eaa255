"""Settings of the strategies by family; each makes its own strategy."""

from typing import Annotated, TypeAlias

from msgspec import Meta

# What many strategies have.
Batch: TypeAlias = Annotated[int, Meta(ge=1, description="architectures asked for at a time")]
Initial: TypeAlias = Annotated[int, Meta(ge=1, description="random architectures before the first proposal")]
