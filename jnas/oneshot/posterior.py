"""Posterior over architecture and weights by variational dropout: the mathematics on flat arrays, and the method.

Zhou, Sun, Luo, Zha and Zeng, "One-Shot Neural Architecture Search Through A Posteriori Distribution Guided
Sampling", 2019, https://arxiv.org/abs/1906.09557 (AAAI-20: "Posterior-Guided Neural Architecture Search").

Weights m are multiplied by Bernoulli masks (the hybrid representation): group g of weights, W_g, is dropped with the
learned probability p_g = sigmoid(logit_g), by C_g independent masks. The negative evidence lower bound, over N images:

    loss = mean CE(f(x; m, mask), y)
         + (l / N) sum_g (1 - p_g) ||W_g||^2
         + (d / N) sum_g C_g [ p_g log(p_g / (1 - u_g)) + (1 - p_g) log((1 - p_g) / u_g) ]

u_g is the prior probability that group g is included; with u = 1/2 the last sum is the paper's negative entropy but for
the constant log 2. In training masks are relaxed and fresh for each image; a candidate is one draw of hard masks, with
the weights it inherits. Activations are not divided by 1 - p, hence the factor (1 - p_g) of ||W_g||^2.

The gates of a cell's operations (NAS-Bench-201) weigh what an operation gives out after normalisation, offsets
included, rather than its weights: a gate of zero removes the operation, and ||W_g||^2 is that of its kernels.

Departures: the paper's printed equations have errors that its code does not have (p for 1 - p, the sign of the
entropy); what stands here is derived, and agrees with the code. The paper's two Gumbel variables are one logistic
variable here, which is their difference. The prior inclusion u, and masks shared by a whole group, are jnas's. One
cosine serves every supernet, where the paper has restarts for ENAS's cell and steps for the networks of ImageNet; there
is no cutout. Logits may learn faster than weights, because the paper's trainings are thirty times longer.

Letters: G groups, D independent masks, M masked channels or operations, N images, B candidates.
"""

from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from scipy.stats import rankdata

from jnas.errors import InputError
from jnas.estimators.training import Batch, sgd
from jnas.oneshot.settings import Posterior
from jnas.oneshot.supernets import Prepare, Supernet, gates_of_masks, objective
from jnas.spaces.base import Space
from jnas.spaces.masks import OPERATIONS as MASKS
from jnas.types import Info, Key, OneShot


class Gating(NamedTuple):
    """Groups of masks that are independent.

    group: int[D], the group whose probability each independent mask has.
    expand: int[M], the independent mask that each masked channel has.
    counts: int[G], the independent masks of each group: C_g in the loss.
    """

    group: np.ndarray
    expand: np.ndarray
    counts: np.ndarray


def gating(sizes: tuple[int, ...], gates: str) -> Gating:
    """The masks of groups with so many channels each: one a channel, the paper's, or one a `"group"`."""
    group_of_channel = np.repeat(np.arange(len(sizes)), sizes)
    if gates == "channel":
        return Gating(group_of_channel, np.arange(len(group_of_channel)), np.array(sizes))
    return Gating(np.arange(len(sizes)), group_of_channel, np.ones(len(sizes), int))


def logits_of(probabilities: ArrayLike) -> Array:
    """log(p / (1 - p)). Raises `InputError` unless every probability lies inside (0, 1)."""
    values = np.asarray(probabilities, np.float64)
    if not ((values > 0) & (values < 1)).all():
        wrong = values[~((values > 0) & (values < 1))].flat[0]
        raise InputError(f"probability {wrong:g} does not fit: give one above 0 and below 1")
    return jnp.asarray(_logit(values), jnp.float32)


def _logit(p: np.ndarray | float) -> Any:
    return np.log(p) - np.log1p(-p)


def relaxed_masks(key: Array, logits: Array, images: int, temperature: float) -> Array:
    """Concrete masks float[N, D], fresh for each image, near 1 where kept and near 0 where dropped.

    mask = sigmoid(-(logit + L) / temperature), L ~ Logistic(0, 1); logits [D] are those of dropping. P(mask < 1/2)
    = p at every temperature; temperature -> 0 gives hard masks (Maddison, Mnih and Teh, ICLR 2017,
    https://arxiv.org/abs/1611.00712).
    """
    noise = jax.random.logistic(key, (images, *logits.shape), logits.dtype)
    return jax.nn.sigmoid(-(logits + noise) / temperature)


def hard_masks(key: Array, logits: Array, count: int) -> Array:
    """`count` draws of masks, bool[count, D], True where kept: each dropped with probability sigmoid(logit)."""
    return jax.random.bernoulli(key, jax.nn.sigmoid(-logits), (count, *logits.shape))


def regulariser(
    logits: Array,
    squared_norms: Array,
    counts: ArrayLike,
    inclusion: np.ndarray | float,
    images: float,
    *,
    weight_penalty: float,
    entropy: float = 1.0,
    penalty: str = "kept",
) -> Array:
    """The loss without its cross-entropy: a scalar.

    Args:
      logits: float[G], of dropping; squared_norms: float[G], ||W_g||^2; counts: [G], C_g; inclusion: u, [G] or one.
      images: N.
      weight_penalty: l; entropy: d, 1 in the paper.
      penalty: `"kept"` weighs ||W_g||^2 by 1 - p_g; `"constant"` does not (plain L2, for comparison).
    """
    log_drop, log_keep = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    drop, keep = jnp.exp(log_drop), jnp.exp(log_keep)
    weights = squared_norms * (keep if penalty == "kept" else 1.0)
    # Before they are rounded: an inclusion next to 1 has a logarithm in float64 alone.
    prior = np.asarray(inclusion, np.float64)
    log_excluded, log_included = (
        jnp.asarray(values, logits.dtype) for values in (np.log1p(-prior), np.log(prior))
    )
    divergence = drop * (log_drop - log_excluded) + keep * (log_keep - log_included)
    return (weight_penalty * jnp.sum(weights) + entropy * jnp.sum(jnp.asarray(counts) * divergence)) / images


def expected_parameters(logits: Array, weights_of_mask: ArrayLike, fixed: int) -> Array:
    """Expected number of parameters of a candidate: fixed + sum_D (1 - p) weights_of_mask [D]; logits [D]."""
    return fixed + jnp.sum(jax.nn.sigmoid(-logits) * jnp.asarray(weights_of_mask, jnp.float32), axis=-1)


class Prior(NamedTuple):
    """Probabilities of each group, float64[G]: of dropping, where training starts; of inclusion in the prior, u."""

    drop: np.ndarray
    inclusion: np.ndarray


class State(NamedTuple):
    """params, batch_stats: of the supernet; logits: float32[G], of dropping; optimizer: state of optax."""

    params: Any
    batch_stats: Any
    logits: Array
    optimizer: Any


def flat_prior(supernet: Supernet, settings: Posterior) -> Prior:
    """The probabilities of the settings for every group."""
    groups = len(supernet.groups)
    return Prior(np.full(groups, settings.drop_probability), np.full(groups, settings.inclusion))


def informed(drop: float, inclusion: float, missed: np.ndarray, strength: float) -> Prior:
    """Probabilities of each group that theory moves, from how much its operation is missed [G].

    Scores that know no label (TE-NAS's: the kernel's condition number and the linear regions of the supernet without
    an operation) rank the operations by how much they are missed. From ranks r_g in (0, 1), 1 for the most missed,

        logit u_g = logit u + s (2 r_g - 1)          inclusion probability of the prior
        logit p_g = logit p - s (2 r_g - 1)          drop probability that training starts from

    u and p are those without theory, s >= 0 is how much theory counts. jnas's own; nobody has published it.
    """
    rank = (rankdata(missed) - 0.5) / len(missed)
    shift = strength * (2 * rank - 1)
    return Prior(*(1 / (1 + np.exp(-x)) for x in (_logit(drop) - shift, _logit(inclusion) + shift)))


def loss(
    trained: dict[str, Any],
    batch_stats: Any,
    images: Array,
    labels: Array,
    key: Array,
    *,
    supernet: Supernet,
    settings: Posterior,
    inclusion: np.ndarray,
    examples: float,
) -> tuple[Array, tuple[Any, Info]]:
    """The loss of a batch, with the running statistics and the record that it leaves.

    trained: `{"params", "logits" [G]}`; images: float[N, H, W, C], standardised; key: of the masks; examples: N.
    """
    params, logits = trained["params"], trained["logits"]
    masking = gating(supernet.sizes, settings.gates)
    masks = relaxed_masks(key, logits[jnp.asarray(masking.group)], len(images), settings.temperature)
    extra = regulariser(
        logits, supernet.squared_norms(params), masking.counts, inclusion, examples,
        weight_penalty=settings.weight_penalty, entropy=settings.entropy, penalty=settings.penalty,
    )  # fmt: skip
    masks = masks[:, jnp.asarray(masking.expand)]
    return objective(supernet, params, batch_stats, masks, (images, labels), extra)


def posterior(
    supernet: Supernet,
    settings: Posterior,
    *,
    steps: int,
    images: int,
    prepare: Prepare,
    prior: Prior | None = None,
) -> OneShot:
    """The method: weights and logits are trained jointly by SGD for `steps` steps on `images` training images.

    prepare: (key, images as stored) -> standardised images; prior: `flat_prior` where None.
    """
    prior = prior or flat_prior(supernet, settings)
    masking = gating(supernet.sizes, settings.gates)
    first_logits = logits_of(prior.drop)
    optimizer = optax.chain(
        sgd(settings.learning_rate, steps),
        optax.masked(optax.scale(settings.logits_rate), {"params": False, "logits": True}),
    )

    def init(key: Key) -> State:
        params, batch_stats = supernet.init(key)
        trained = {"params": params, "logits": first_logits}
        return State(params, batch_stats, first_logits, optimizer.init(trained))

    def step(state: State, key: Key, batch: Batch, held_out: Any = None) -> tuple[State, Info]:
        augment_key, mask_key = jax.random.split(key)
        trained = {"params": state.params, "logits": state.logits}
        gradient, (batch_stats, info) = jax.grad(loss, has_aux=True)(
            trained, state.batch_stats, prepare(augment_key, batch[0]), batch[1], mask_key,
            supernet=supernet, settings=settings, inclusion=prior.inclusion, examples=settings.examples * images,
        )  # fmt: skip
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, trained)
        trained = optax.apply_updates(trained, updates)
        return State(trained["params"], batch_stats, trained["logits"], optimizer_state), info

    def gates(state: State, key: Key, n: int) -> Array:
        masks = relaxed_masks(key, state.logits[jnp.asarray(masking.group)], n, settings.temperature)
        return gates_of_masks(supernet.space, masks[:, jnp.asarray(masking.expand)])

    def sample(state: State, key: Key, n: int) -> np.ndarray:
        return draw(key, supernet.space, masking, state.logits, n)

    return OneShot(init, step, gates, sample, lambda state: (state.params, state.batch_stats))


def draw(key: Key, space: Space, masking: Gating, logits: Array, count: int) -> np.ndarray:
    """Architectures int32[count, .] from the learned probabilities of dropping, sigmoid(logits [G]).

    Where masks are gates of a space with one operation on each edge, they are drawn under the condition that at most
    one operation of an edge is kept: operation k with probability o_k / (1 + sum_j o_j), none with the rest, where
    o_k = (1 - p_k) / p_k. That is exact, as gates are independent. Where a node keeps a pair of the edges that
    lead to it (DARTS), a pair is drawn with probability proportional to the product of its two sums of odds, then an
    operation of each with probability o_k / sum_j o_j.
    """
    per_mask = logits[jnp.asarray(masking.group)]
    edges = len(space.edges)
    if len(space.operations) == 2:
        # Masks: with one gate an edge, every draw is an architecture.
        masks = hard_masks(key, per_mask, count)[:, jnp.asarray(masking.expand)]
    elif space.incoming is not None:
        masks = _pairs_of_edges(key, space, per_mask, count)
    else:
        odds = jnp.concatenate([jnp.zeros((edges, 1)), -per_mask.reshape(edges, -1)], axis=1)
        choices = jax.random.categorical(key, odds, shape=(count, edges))
        masks = jax.nn.one_hot(choices, odds.shape[1], dtype=bool)[..., 1:].reshape(count, -1)
    # An edge without any operation carries the first, `none`.
    gates = np.array(gates_of_masks(space, masks))
    gates[..., 0] = ~gates[..., 1:].any(axis=-1)
    return np.stack([space.from_gates(one) for one in gates])


def _pairs_of_edges(key: Key, space: Space, logits: Array, count: int) -> Array:
    """Masks of a space whose nodes keep two edges: bool[count, M], from logits of dropping [M]."""
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
    return kept.reshape(count, -1)


def equal_share(supernet: Supernet, masking: Gating, logits: Array) -> float:
    """The probability of keeping every mask at which candidates are as large as those of the posterior, on average."""
    kept = np.asarray(jax.nn.sigmoid(-logits), np.float64)[masking.group][masking.expand]
    return float(kept @ supernet.weights_of_mask / supernet.weights_of_mask.sum())


def blind(key: Key, supernet: Supernet, masking: Gating, share: float, count: int) -> np.ndarray:
    """Architectures int32[count, D] that know nothing: uniform cells, or masks kept with probability `share`."""
    if supernet.space.operations != MASKS:
        return np.asarray(supernet.space.sample(key, count))
    kept = jax.random.bernoulli(key, share, (count, len(masking.group)))
    return np.asarray(kept[:, masking.expand], np.int32)
