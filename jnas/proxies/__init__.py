"""Training-free scores of architectures, one file each; `PROXIES` holds what they declare, by name."""

from jnas.proxies import ntk, regions
from jnas.proxies.base import Proxy

_SIZE = "the baseline that every score is shown beside (closed form, jnas.nets.cost)"

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        ntk.PROXY,
        regions.PROXY,
        Proxy("params", 1, False, "number of parameters", _SIZE),
        Proxy("flops", 1, False, "multiply-adds for one image", _SIZE),
        Proxy("convs", 1, False, "number of convolutions in the cell", _SIZE),
    )
}
