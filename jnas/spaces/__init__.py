"""Search spaces: what can be built. One file each; `SPACES` holds them by name."""

from jnas.errors import unknown_name
from jnas.spaces import darts, nasbench201
from jnas.spaces.base import Space

SPACES: dict[str, Space] = {space.name: space for space in (nasbench201.SPACE, darts.SPACE)}


def get(name: str) -> Space:
    """The space called `name`. Raises `InputError` when there is none, with the names there are."""
    if name not in SPACES:
        raise unknown_name("search space", name, SPACES)
    return SPACES[name]
