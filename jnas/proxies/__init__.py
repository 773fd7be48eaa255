"""Training-free scores of architectures, one file each; `PROXIES` holds what they declare, by name."""

import numpy as np
from numpy.typing import ArrayLike

from jnas.proxies import (
    az_nas,
    epe_nas,
    fisher,
    grad_norm,
    grasp,
    jacob_cov,
    naswot,
    nngp,
    ntk,
    ntk_spectrum,
    regions,
    snip,
    swap,
    synflow,
    zen,
    zico,
)
from jnas.proxies.base import SIZE, Proxy

_BASELINE = "the baseline that every score is shown beside (closed form, jnas.nets.sizes)"

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        ntk.PROXY,
        ntk_spectrum.TRACE,
        ntk_spectrum.MEAN_EIGENVALUE,
        ntk_spectrum.ALIGNMENT,
        ntk_spectrum.TRAINING_SPEED,
        regions.PROXY,
        naswot.PROXY,
        swap.PROXY,
        jacob_cov.PROXY,
        epe_nas.PROXY,
        synflow.PROXY,
        snip.PROXY,
        grasp.PROXY,
        fisher.PROXY,
        grad_norm.PROXY,
        zico.PROXY,
        zen.PROXY,
        az_nas.EXPRESSIVITY,
        az_nas.PROGRESSIVITY,
        az_nas.TRAINABILITY,
        nngp.PROXY,
        Proxy("params", 1, False, "number of parameters", _BASELINE, subject=SIZE),
        Proxy("flops", 1, False, "multiply-adds for one image", _BASELINE, subject=SIZE),
        Proxy("convs", 1, False, "number of convolutions in the cell", _BASELINE, subject=SIZE),
    )
}


def sign(objective: str) -> int:
    """The sign of the proxy of an objective, `ntk` or `ntk/0`; 1 for other objectives."""
    name = objective.partition("/")[0]
    return PROXIES[name].sign if name in PROXIES else 1


def is_measured(objective: str) -> bool:
    """True where an objective is a proxy that has one value for equivalent architectures."""
    name = objective.partition("/")[0]
    return name in PROXIES and PROXIES[name].subject != SIZE


def proxy_value(objective: str, value: ArrayLike) -> np.ndarray:
    """The proxy's own values of an estimator's, which are oriented: float64, nan for a failure."""
    own = sign(objective) * np.asarray(value, np.float64)
    return np.where(np.isfinite(own), own, np.nan)
