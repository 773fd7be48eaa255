"""The tangent kernel, six training-free scores and a training step in plain PyTorch, for `peers.py`.

The kernel is that of TE-NAS as its authors compute it (Chen, Gong and Wang, ICLR 2021,
https://arxiv.org/abs/2102.11535). The scores are those of Abdelfattah, Mehrotra, Dudziak and Lane ("Zero-Cost Proxies
for Lightweight NAS", ICLR 2021, https://arxiv.org/abs/2101.08134), each with passes of its own.

    python benchmarks/peers_scores.py FILE.pickle

scores the networks that `peers.py` has written, and prints the scores and the largest memory of the process in GB.
"""

import json
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peers_networks import BatchNorm, Graph, images_of, normalisations, residual, weights_of
from torch import Tensor, nn


def freeze(network: nn.Module, x: Tensor) -> None:
    """Let the network normalise by the statistics of the batch x, held constant."""

    # After the pass, which moves the running statistics.
    def keep(norm: BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        norm.running_mean = inputs[0].mean((0, 2, 3))
        norm.running_var = inputs[0].var((0, 2, 3), correction=0)

    hooks = [norm.register_forward_hook(keep) for norm in normalisations(network)]
    with torch.no_grad():
        network.train()(x)
    for hook in hooks:
        hook.remove()
    network.eval()


def kernel(network: nn.Module, x: Tensor, frozen: bool) -> np.ndarray:
    """Tangent kernel [N, N] of the summed logits: a backward pass for each image.

    By all parameters named `weight`: convolutions, scales, classifier. With the statistics of the batch each pass goes
    through the whole batch, as in the authors' code. With frozen statistics an image depends on itself alone, and each
    has forward and backward passes of its own.
    """
    weights = [parameter for name, parameter in network.named_parameters() if name.endswith("weight")]
    if frozen:
        freeze(network, x)
        outputs = (network(image[None]).sum() for image in x)
    else:
        outputs = (logits.sum() for logits in network.train()(x))
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(output, weights, retain_graph=not frozen)])
        for output in outputs
    ]
    jacobian = torch.stack(rows)
    return (jacobian @ jacobian.T).numpy()


def loss_gradients(network: nn.Module, x: Tensor, y: Tensor, **options: bool) -> list[tuple[Tensor, Tensor]]:
    """(weight, gradient of the mean cross-entropy) of each layer that the logits depend on."""
    weights = weights_of(network)
    loss = F.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True, **options)
    return [(w, g) for w, g in zip(weights, gradients, strict=True) if g is not None]


def synflow(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """log sum_w |w dR/dw| of an image of ones, without normalisation; in float64, as float32 overflows."""
    signs = [torch.sign(w) for w in weights_of(network)]
    norms = normalisations(network)
    network.double()
    with torch.no_grad():
        for w in weights_of(network):
            w.abs_()
    for norm in norms:
        norm.off = True
    weights = weights_of(network)
    total = network(torch.ones_like(x[:1], dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    products = sum((w * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None)
    # The network as it was.
    network.float()
    with torch.no_grad():
        for w, sign in zip(weights_of(network), signs, strict=True):
            w.mul_(sign)
    for norm in norms:
        norm.off = False
    return float(torch.log(products.detach()))


def snip(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """sum_w |w dL/dw|"""
    return float(sum((w.detach() * g).abs().sum() for w, g in loss_gradients(network, x, y)))


def grad_norm(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Sum over layers of ||dL/dW||."""
    return float(sum(g.norm() for _, g in loss_gradients(network, x, y)))


def fisher(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """1/2 sum over channels of mean_n (sum over positions of a dL/da)^2, of convolutions and classifier."""
    parts: list[Tensor] = []

    def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        activation = output.detach()

        def add(gradient: Tensor) -> None:
            products = (activation * gradient).reshape(*gradient.shape[:2], -1).sum(2)
            parts.append(products.pow(2).mean(0).sum())

        output.register_hook(add)

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    loss_gradients(network, x, y)
    for hook in hooks:
        hook.remove()
    return float(sum(parts)) / 2


def jacob_cov(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """-sum_n [log(lambda_n + k) + 1 / (lambda_n + k)] of the correlations of the images' input gradients."""
    inputs = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(inputs).sum(), inputs)
    correlations = np.corrcoef(gradient.reshape(len(x), -1).numpy())
    eigenvalues = np.maximum(np.linalg.eigvalsh(correlations), 0) + 1e-5
    return -float(np.sum(np.log(eigenvalues) + 1 / eigenvalues))


def grasp(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """-sum_w w (H g)_w, H g by a gradient of the gradient."""
    pairs = loss_gradients(network, x, y, create_graph=True)
    flow = sum((g * g.detach()).sum() for _, g in pairs)
    weights = [w for w, _ in pairs]
    products = torch.autograd.grad(flow, weights, allow_unused=True)
    return -float(
        sum((w.detach() * p).sum() for w, p in zip(weights, products, strict=True) if p is not None)
    )


PROXIES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    function.__name__: function for function in (synflow, snip, grad_norm, fisher, jacob_cov, grasp)
}


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, clip: float
) -> float:
    """The loss before a step of SGD; `clip`: largest norm of the gradient, 0 for none."""
    optimizer.zero_grad()
    loss = F.cross_entropy(network(x), y)
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()
    return float(loss.detach())


def peak_gb() -> float:
    """Largest memory of this process so far. Unlike `ru_maxrss` it leaves out that of the process it came from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def read(work: Mapping[str, Any]) -> tuple[list[nn.Module], Tensor, Tensor]:
    """Networks of cells of NAS-Bench-201, images and labels, from arrays."""
    built = [residual(Graph(*graph), params, work["cells_per_stage"]) for graph, params in work["networks"]]
    return built, images_of(work["images"]), torch.tensor(work["labels"]).long()


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        work = pickle.load(file)
    torch.set_num_threads(work["threads"])
    built, x, y = read(work)
    scores = [proxy(network, x, y) for network in built for proxy in PROXIES.values()]
    print(json.dumps({"scores": scores, "peak_gb": peak_gb()}))


if __name__ == "__main__":
    main()
