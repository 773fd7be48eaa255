"""Search spaces: what can be built. One file each; `SPACES` holds them by name."""

from jnas.errors import unknown_name
from jnas.spaces import nasbench201
from jnas.spaces.base import Space

SPACES: dict[str, Space] = {nasbench201.SPACE.name: nasbench201.SPACE}


def get(name: str) -> Space:
    """The space called `name`. Raises `InputError` when there is none, with the names there are."""
    if name not in SPACES:
        raise unknown_name("search space", name, SPACES)
    return SPACES[name]
