"""The networks of a space: what scores, supernets and trainings build.

`NETWORKS` says how cells are put together and checked, and which sizes TE-NAS scores (Chen, Gong and Wang, ICLR 2021,
https://arxiv.org/abs/2102.11535, and its authors' code): the kernel of three stages for residual networks and of a
normal and a reduction cell for those of two inputs, the regions of one cell and of both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax.typing import ArrayLike

from jnas.errors import InputError
from jnas.nets import macro, own, two_inputs
from jnas.nets.modules import Build
from jnas.nets.sizes import Macro, Sizes, sizes
from jnas.spaces.base import Space


class Kind(NamedTuple):
    """A way to put cells together.

    network: a Flax module of the fields graphs, channels, classes, build, cells_per_stage, stages and stem.
    search: fields of the networks that TE-NAS scores and that supernets are.
    kernel_stages, region_stages: stages of TE-NAS's two networks. planes_for_regions: whether small inputs run
      faster on planes.
    check_images: (shape [..., H, W, C], stages), raises `InputError` where they do not fit.
    """

    network: Callable[..., Any]
    search: dict[str, Any]
    kernel_stages: int
    region_stages: int
    planes_for_regions: bool
    check_images: Callable[[tuple[int, ...], int], None]


NETWORKS: dict[str, Kind] = {
    "residual": Kind(macro.Residual, {}, 3, 1, False, macro.check_halved),
    "two_inputs": Kind(two_inputs.TwoInputs, {"search": True}, 1, 1, True, two_inputs.check_reduced),
}


def kind_of(space: Space) -> Kind:
    """The network that puts cells of the space together. Raises `InputError` where there is none."""
    if callable(space.network):
        raise InputError(
            f"{space.name} gives a network for each architecture and has no supernet: choose architectures instead of "
            "gates, and an estimator that takes them, such as proxies, train or a table"
        )
    if space.network not in NETWORKS:
        raise InputError(
            f"architectures of {space.name} are not built alone, as there is no network '{space.network}': choose an "
            f"estimator with the weights of a supernet, such as inherited, or one of the networks {', '.join(NETWORKS)}"
        )
    return NETWORKS[space.network]


def build(space: Space, size: Macro, form: Build, search: bool = False, **fields: Any) -> Any:
    """The network of all architectures of a space.

    search: as TE-NAS scores it and as supernets are, instead of as architectures are trained; fields: further ones of
    the network, such as `stem`.
    """
    kind = kind_of(space)
    return kind.network(
        space.graphs, size.channels, size.classes, form, size.cells, size.stages,
        **(kind.search if search else {}), **fields,
    )  # fmt: skip


def sizes_of(space: Space, size: Macro, choices: ArrayLike) -> Sizes:
    """Sizes of the networks that architectures are trained as, from choices int[..., cells, E]."""
    if own.is_own(space):
        return own.sizes(space, choices, size.image, size.classes)
    return sizes(build(space, size, Build()), size.image, choices)
