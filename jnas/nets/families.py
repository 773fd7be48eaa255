"""The networks of each cell space, by one signature: what scores, supernets and trainings build.

`FAMILIES[space]` says how a network of the space is made and checked, and which of its sizes TE-NAS scores
(Chen, Gong and Wang, ICLR 2021, https://arxiv.org/abs/2102.11535, and its authors' code): the kernel of three
stages for NAS-Bench-201 and of a normal and a reduction cell for DARTS, the regions of one cell and of both.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import numpy as np
from jax.typing import ArrayLike

from jnas.errors import InputError
from jnas.nets import cost, darts, darts_chosen, darts_cost, nasbench201
from jnas.nets.modules import Build


@dataclass(frozen=True)
class Family:
    """network: (channels, classes, build, cells_per_stage, stages, stem) to a network called with images and gates.

    kernel_stages, region_stages: stages of TE-NAS's two networks. planes_for_regions: whether small inputs run
    faster on planes.
    chosen: (channels, classes, build, cells_per_stage, stages) to the network that an architecture is trained as,
    called with images and the operation of each edge, int[cells, E]: what proxies look at.
    check_images: (shape [..., H, W, C], stages), raises `InputError` where they do not fit.
    params, flops, convs: of the network that an architecture is trained as, in closed form, from the operation of each
    edge, int[..., cells, E] (`Space.choices`), whatever part of the operations the space's decisions run over.
    """

    network: Callable[[int, int, Build, int, int, bool], nn.Module]
    kernel_stages: int
    region_stages: int
    planes_for_regions: bool
    chosen: Callable[[int, int, Build, int, int], nn.Module]
    check_images: Callable[[tuple[int, ...], int], None]
    params: Callable[[ArrayLike, cost.Macro], np.ndarray]
    flops: Callable[[ArrayLike, cost.Macro], np.ndarray]
    convs: Callable[[ArrayLike], np.ndarray]


def _nasbench201(
    channels: int, classes: int, build: Build, cells_per_stage: int, stages: int, stem: bool
) -> nn.Module:
    return nasbench201.Network(channels, classes, build, cells_per_stage, stages, stem)


def _darts(
    channels: int, classes: int, build: Build, cells_per_stage: int, stages: int, stem: bool
) -> nn.Module:
    # A stage alone has its reduction cell at the end, so that both cells are there.
    alone = (False,) * cells_per_stage + (True,)
    kinds = alone if stages == 1 else darts_cost.reductions(cells_per_stage, stages)
    return darts.Network(channels, classes, build, kinds, stem)


class _Families(dict[str, Family]):
    def __missing__(self, name: str) -> Family:
        raise InputError(
            f"the space '{name}' has no networks: there are those of {', '.join(self)}; see the page on a space of "
            "your own"
        )


FAMILIES: dict[str, Family] = _Families(
    nasbench201=Family(
        _nasbench201,
        3,
        1,
        False,
        nasbench201.Network,
        nasbench201.check_images,
        lambda choices, macro: cost.params(np.asarray(choices)[..., 0, :], macro),
        lambda choices, macro: cost.flops(np.asarray(choices)[..., 0, :], macro),
        lambda choices: cost.convs(np.asarray(choices)[..., 0, :]),
    ),
    darts=Family(
        _darts,
        1,
        1,
        True,
        darts_chosen.Network,
        lambda shape, stages: darts.check_images(shape, max(1, stages - 1)),
        darts_cost.params,
        darts_cost.flops,
        darts_cost.convs,
    ),
)
