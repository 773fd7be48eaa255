"""Search spaces, one file each; `SPACES` holds them by name."""

from dataclasses import replace

from jnas.errors import unknown_name
from jnas.spaces import (
    chain,
    darts,
    genotypes,
    grammar,
    hierarchical,
    mobilenet,
    multi_branch,
    nasbench101,
    nasbench201,
    nasbench_macro,
    nasnet,
    size,
    transformer,
)
from jnas.spaces.base import Coding as Coding
from jnas.spaces.base import Graph as Graph
from jnas.spaces.base import Space
from jnas.spaces.base import Text as Text
from jnas.spaces.networks import of_networks as of_networks

MEMBERS = (
    nasbench201, darts, genotypes, nasbench101, size, nasbench_macro, chain, multi_branch, mobilenet, transformer,
    nasnet, hierarchical, grammar,
)  # fmt: skip
SPACES: dict[str, Space] = {member.SPACE.name: member.SPACE for member in MEMBERS}


def get(name: str | Space) -> Space:
    """The space called `name`; of a `Space` itself, without a restriction of its draws.

    Raises `InputError` for a name that is not known, with the known ones.
    """
    if isinstance(name, Space):
        return replace(name, moves=None)
    if name not in SPACES:
        raise unknown_name("search space", name, SPACES)
    return SPACES[name]
