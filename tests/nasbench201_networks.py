"""NAS-Bench-201's networks and their sizes in short, for tests."""

from jnas import spaces
from jnas.nets import macro, networks
from jnas.nets.modules import Build
from jnas.nets.sizes import Macro

SPACE = spaces.get("nasbench201")


def Network(channels, classes, build, cells_per_stage=1, stages=3, stem=True, architecture=None):
    """The network of all cells, or that of one."""
    network = macro.Residual(SPACE.graphs, channels, classes, build, cells_per_stage, stages, stem)
    return network if architecture is None else macro.restricted(network, [architecture])


def specialise(params, architecture):
    """The parameters, or statistics, that the network of one cell shares with that of all."""
    stages = sum(name.startswith("cells_") for name in params)
    return macro.restricted_params(Network(1, 1, Build(), stages=stages), params, [architecture])


def sizes(architectures, network=Macro()):  # noqa: B008
    """Parameters, multiply-adds and convolutions of architectures int[..., 6]: int64[...] each."""
    return networks.sizes_of(SPACE, network, SPACE.choices(architectures))
