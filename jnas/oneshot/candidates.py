"""Candidates of a trained supernet: pairs of an architecture and the weights it inherits, drawn and evaluated.

A candidate is one fixed set of masks for all images. One compiled program evaluates many, weights shared: side by side,
`vmap` over masks; or, on a CPU where they are cells, one after another without leaving the program, each running the
operations alone that it has. Several devices share the candidates. The running statistics of the supernet are averages
over masks that no candidate has; they can be estimated anew for each candidate from training images, as Single Path
One-Shot does (Guo et al., ECCV 2020, https://arxiv.org/abs/1904.00420).

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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnas.data import Dataset, transforms
from jnas.errors import InputError
from jnas.estimators.training import EVALUATION_BATCH
from jnas.oneshot import posterior
from jnas.oneshot.posterior import Gating
from jnas.oneshot.supernets import Supernet
from jnas.parallel import AXIS, over_architectures
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

    @partial(jax.jit, static_argnames="mesh")
    def calibrate(
        params: Any, subjects: Array, sums: Any, images: Array, share: float, mesh: Mesh | None
    ) -> Any:
        def one(shared: Any, each: Any) -> Any:
            (params, images), (subject, sums) = shared, each
            found = supernet.statistics(params, subject, images)
            return jax.tree.map(lambda total, new: total + share * new, sums, found)

        shared = params, transforms.normalise(dataset, images)
        return over_architectures(one, shared, (subjects, sums), _width(subjects, mesh), mesh)

    @partial(jax.jit, static_argnames=("own", "mesh"))
    def right(
        params: Any,
        batch_stats: Any,
        subjects: Array,
        images: Array,
        labels: Array,
        own: bool,
        mesh: Mesh | None,
    ) -> Array:
        def one(shared: Any, each: Any) -> Array:
            params, statistics, images, labels = shared
            subject, statistics = each if own else (each, statistics)
            logits = supernet.evaluate(params, statistics, subject, images)
            hits = jnp.sum((jnp.argmax(logits, axis=-1) == labels) & (labels >= 0))
            return jnp.where(jnp.isfinite(logits).all(), hits, jnp.nan)

        shared = params, None if own else batch_stats, transforms.normalise(dataset, images), labels
        each = (subjects, batch_stats) if own else subjects
        return over_architectures(one, shared, each, _width(subjects, mesh), mesh)

    def evaluate(
        params: Any, batch_stats: Any, kept: np.ndarray, images: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        devices, count = jax.local_devices(), len(kept)
        mesh = Mesh(np.array(devices), (AXIS,)) if 1 < len(devices) <= count else None
        if mesh is not None:
            # Filled up, so that each device has as many.
            kept = kept[np.arange(-(-count // mesh.size) * mesh.size) % count]
            params, batch_stats = jax.device_put((params, batch_stats), NamedSharding(mesh, PartitionSpec()))
        subjects, own = _subjects(supernet, gating, kept), recalibrate is not None
        if recalibrate is not None:
            # A last batch that is not full sits out.
            size = min(EVALUATION_BATCH, len(recalibrate))
            starts = range(0, len(recalibrate) - size + 1, size)
            batch_stats = jax.tree.map(
                lambda leaf: np.zeros((len(kept), *leaf.shape), leaf.dtype), batch_stats
            )
            for start in starts:
                part = recalibrate[start : start + size]
                batch_stats = calibrate(params, subjects, batch_stats, part, 1 / len(starts), mesh)
        total = np.zeros(len(kept))
        # As few parts as may be, all equal: a last one that is mostly filling costs as much as the others.
        size = -(-len(images) // -(-len(images) // EVALUATION_BATCH))
        for x, y in transforms.parts(images, labels, size):
            total += np.asarray(right(params, batch_stats, subjects, x, y, own, mesh), np.float64)
        return 100.0 * total[:count] / len(images)

    return evaluate


def _subjects(supernet: Supernet, gating: Gating, kept: np.ndarray) -> np.ndarray:
    """Candidates bool[B, D] as the network takes them: masks float32[B, M], or architectures int32[B, .]."""
    if supernet.choices and jax.default_backend() == "cpu":
        assert supernet.space is not None
        of_edges = kept.reshape(len(kept), len(supernet.space.edges), -1)
        if (of_edges.sum(axis=-1) <= 1).all():
            return cells_of_masks(supernet, kept)
    return kept[:, gating.expand].astype(np.float32)


def _width(subjects: Array, mesh: Mesh | None) -> int:
    """How many of subjects [B, ...] one device takes side by side: all that it has, cells by their choices alone."""
    if jnp.issubdtype(subjects.dtype, jnp.integer):
        return 1
    return len(subjects) // (1 if mesh is None else mesh.size)
