"""Candidates of a trained supernet: pairs of an architecture and the weights it inherits, drawn and evaluated.

A candidate is one fixed set of masks for all images. Many are evaluated side by side: one compiled program, `vmap` over
masks, weights shared. The running statistics of the supernet are averages over masks that no candidate has; they can be
estimated anew for each candidate from training images, as Single Path One-Shot does (Guo et al., ECCV 2020,
https://arxiv.org/abs/1904.00420).

Letters: B candidates, G groups, D independent masks, M masked channels or operations, N images.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jnas.data import Dataset, transforms
from jnas.errors import InputError
from jnas.estimators.training import EVALUATION_BATCH
from jnas.oneshot import posterior
from jnas.oneshot.posterior import Gating
from jnas.oneshot.supernets import Supernet
from jnas.spaces.base import Space


def from_posterior(key: Array, supernet: Supernet, gating: Gating, logits: Array, count: int) -> np.ndarray:
    """Candidates bool[count, D] from the learned probabilities of dropping, sigmoid(logits [G]).

    Where masks are gates of a space with one operation on each edge, they are drawn under the condition that at most
    one operation of an edge is kept: operation k with probability o_k / (1 + sum_j o_j), none with the rest, where
    o_k = (1 - p_k) / p_k. That is exact, as gates are independent. Where a node keeps a pair of the edges that
    lead to it (DARTS), a pair is drawn with probability proportional to the product of its two sums of odds, then an
    operation of each with probability o_k / sum_j o_j.
    """
    per_mask = logits[jnp.asarray(gating.group)]
    if supernet.space is None:
        return np.asarray(posterior.hard_masks(key, per_mask, count))
    if supernet.space.incoming is not None:
        return _pairs_of_edges(key, supernet.space, per_mask, count)
    edges = len(supernet.space.edges)
    odds = jnp.concatenate([jnp.zeros((edges, 1)), -per_mask.reshape(edges, -1)], axis=1)
    chosen = jax.random.categorical(key, odds, shape=(count, edges))
    kept = jax.nn.one_hot(chosen, odds.shape[1], dtype=bool)[..., 1:]
    return np.asarray(kept.reshape(count, -1))


def _pairs_of_edges(key: Array, space: Space, logits: Array, count: int) -> np.ndarray:
    """Candidates of a space whose nodes keep two edges: bool[count, D], from logits of dropping [D]."""
    log_odds = -logits.reshape(space.cells, len(space.edges), -1)
    of_edges = jax.nn.logsumexp(log_odds, axis=-1)
    pair_key, operation_key = jax.random.split(key)
    used = jnp.zeros((count, space.cells, len(space.edges)), bool)
    for target in sorted({target for _, target in space.edges}):
        arriving = [edge for edge, (_, node) in enumerate(space.edges) if node == target]
        pairs = jnp.array(list(combinations(arriving, 2)))
        chosen = jax.random.categorical(
            jax.random.fold_in(pair_key, target), of_edges[:, pairs].sum(-1), shape=(count, space.cells)
        )
        used |= jax.nn.one_hot(pairs[chosen], len(space.edges), dtype=bool).any(-2)
    operations = jax.random.categorical(operation_key, log_odds, shape=(count, *log_odds.shape[:-1]))
    kept = jax.nn.one_hot(operations, log_odds.shape[-1], dtype=bool) & used[..., None]
    return np.asarray(kept.reshape(count, -1))


def blind(key: Array, supernet: Supernet, gating: Gating, share: float, count: int) -> np.ndarray:
    """Candidates bool[count, D] that know nothing: uniform cells, or masks kept with probability `share`."""
    if supernet.space is None:
        return np.asarray(jax.random.bernoulli(key, share, (count, len(gating.group))))
    return masks_of_cells(supernet, np.asarray(supernet.space.sample(key, count)))


def equal_share(supernet: Supernet, gating: Gating, logits: Array) -> float:
    """The probability of keeping every mask at which candidates are as large as those of the posterior, on average."""
    own = weights_of_draws(supernet, gating)
    kept = np.asarray(jax.nn.sigmoid(-logits), np.float64)[gating.group]
    return float(kept @ own / own.sum())


def weights_of_draws(supernet: Supernet, gating: Gating) -> np.ndarray:
    """The weights that each independent mask keeps: int[D]."""
    return np.bincount(gating.expand, weights=supernet.weights_of_mask, minlength=len(gating.group)).astype(
        int
    )


def parameters_of(supernet: Supernet, gating: Gating, kept: np.ndarray) -> np.ndarray:
    """Parameters that candidates bool[B, D] keep: int[B]."""
    return supernet.fixed + kept @ weights_of_draws(supernet, gating)


def masks_of_cells(supernet: Supernet, cells: np.ndarray) -> np.ndarray:
    """Candidates bool[B, D] with the gates of architectures int32[B, .] of the supernet's space."""
    assert supernet.space is not None
    return np.asarray(supernet.space.gates(cells))[..., 1:].reshape(len(cells), -1) > 0


def cells_of_masks(supernet: Supernet, kept: np.ndarray) -> np.ndarray:
    """The architectures int32[B, .] of candidates that are of the supernet's space, bool[B, D]."""
    space = supernet.space
    assert space is not None
    per_edge = kept.reshape(len(kept), space.cells, len(space.edges), -1)
    gates = np.concatenate([~per_edge.any(axis=-1, keepdims=True), per_edge], axis=-1)
    return np.stack([space.from_gates(own) for own in gates])


def to_text(supernet: Supernet, kept: np.ndarray) -> str:
    """One candidate bool[D] as text: the space's string, or its masks as hexadecimal digits, first mask first."""
    if supernet.space is not None:
        return supernet.space.to_string(cells_of_masks(supernet, kept[None])[0])
    return f"{supernet.name}:{np.packbits(kept).tobytes().hex()}"


def from_text(supernet: Supernet, text: str) -> np.ndarray:
    """The masks bool[D] that `to_text` wrote, D as many as there. Raises `InputError` for other text.

    The supernet must be as wide and deep, and its gates as many, as those of the text.
    """
    if supernet.space is not None:
        return masks_of_cells(supernet, supernet.space.from_string(text)[None])[0]
    name, colon, digits = text.partition(":")
    try:
        packed = np.frombuffer(bytes.fromhex(digits), np.uint8)
    except ValueError:
        packed = np.zeros(0, np.uint8)
    wanted = {size: -(-size // 8) for size in (supernet.masks, len(supernet.groups))}
    fitting = [size for size, count in wanted.items() if count == len(packed)]
    if name != supernet.name or not colon or not fitting:
        raise InputError(
            f"'{text[:40]}' is no candidate of {supernet.name} with {supernet.masks} masks: "
            f"give {supernet.name}: and {2 * wanted[supernet.masks]} hexadecimal digits"
        )
    return np.unpackbits(packed)[: fitting[0]].astype(bool)


def evaluator(
    supernet: Supernet, gating: Gating, dataset: Dataset, recalibrate: np.ndarray | None
) -> Callable[[Any, Any, np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """A function `(params, batch_stats, kept [B, D], images, labels) -> percent right, float64[B]`.

    recalibrate: training images whose statistics each candidate is normalised by, the mean over batches of up to 256
    of them; the supernet's running statistics where None. A candidate whose logits are not finite has nan. Programs are
    compiled once for each B; images go through in parts, so that memory grows with B alone.
    """
    expand = jnp.asarray(gating.expand)

    @jax.jit
    def calibrate(params: Any, kept: Array, images: Array) -> Any:
        images = transforms.normalise(dataset, images)
        return jax.vmap(lambda masks: supernet.statistics(params, masks, images))(_full(kept))

    @partial(jax.jit, static_argnames="own")
    def right(params: Any, batch_stats: Any, kept: Array, images: Array, labels: Array, own: bool) -> Array:
        images = transforms.normalise(dataset, images)

        def one(statistics: Any, masks: Array) -> Array:
            logits = supernet.evaluate(params, statistics, masks, images)
            hits = jnp.sum((jnp.argmax(logits, axis=-1) == labels) & (labels >= 0))
            return jnp.where(jnp.isfinite(logits).all(), hits, jnp.nan)

        return jax.vmap(one, in_axes=(0 if own else None, 0))(batch_stats, _full(kept))

    def _full(kept: Array) -> Array:
        return kept[:, expand].astype(jnp.float32)

    def evaluate(
        params: Any, batch_stats: Any, kept: np.ndarray, images: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        own = recalibrate is not None
        if recalibrate is not None:
            # A last batch that is not full sits out.
            size = min(EVALUATION_BATCH, len(recalibrate))
            starts = range(0, len(recalibrate) - size + 1, size)
            found = [calibrate(params, kept, recalibrate[start : start + size]) for start in starts]
            batch_stats = jax.tree.map(lambda *values: sum(values) / len(values), *found)
        total = np.zeros(len(kept))
        for x, y in transforms.parts(images, labels, EVALUATION_BATCH):
            total += np.asarray(right(params, batch_stats, kept, x, y, own), np.float64)
        return 100.0 * total / len(images)

    return evaluate
