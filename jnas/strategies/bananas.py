"""BANANAS: an ensemble of small networks on path encodings, and draws of their predictions.

    ensemble    `networks` perceptrons of `layers` layers of `width` units, ReLU, trained apart by Adam on the mean
                absolute error of standardised values
    prediction  mean m and deviation s over the ensemble
    candidates  `candidates` mutants of the `parents` best
    choice      the `batch` highest of independent draws from N(m, s^2)

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
Search", AAAI 2021, https://arxiv.org/abs/1910.11858. Settings are theirs: 10 random architectures, then 10 a round of
100 mutants of the best; 5 networks of 10 layers of 20 units, Adam with rate 0.01 and betas 0.9 and 0.99, batches of
32.

Departures: training takes as many steps as 150 epochs over a full archive would, at most `MOST_STEPS`, with batches
drawn with replacement, so that one program serves every number of observations. Mutants have one to three changes, as
a cell has few neighbours. An archive of failures, whose values are the worst finite one, and several objectives are
treated as by `gaussian_process`. A space without cells has its decisions one-hot for encoding.
Training amplifies rounding: many searches at once (`jnas.run.loop.simulate`) are others than the same keys one by one.

Letters: B candidates asked for, N to choose from, T evaluations that fit, F features.
"""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jnas.spaces import Space
from jnas.spaces.graph_features import has_paths
from jnas.strategies import archive
from jnas.strategies.acquisition import independent_thompson
from jnas.strategies.archive import Archive
from jnas.strategies.encodings import path_encoding
from jnas.strategies.gaussian_process import targets
from jnas.strategies.settings.bayesian import Bananas
from jnas.strategies.unseen import mutants, unseen
from jnas.types import Candidates, Key, Strategy

# Observations in a step, epochs over all, and the most steps of one training.
OBSERVATIONS = 32
EPOCHS = 150
MOST_STEPS = 1000
Layers = list[tuple[Array, Array]]


def bananas(space: Space, settings: Bananas, objectives: int, budget: int) -> Strategy:
    """The first `initial` at random, then `batch` at a time by the ensemble."""
    pool = unseen(space)
    encode = path_encoding(space, settings.longest) if has_paths(space) else space.one_hot
    steps = min(EPOCHS * -(-budget // OBSERVATIONS), MOST_STEPS)

    def ask(key: Key, state: Archive) -> tuple[Candidates, Archive]:
        training_key, mutation_key, draw_key, choice_key = jax.random.split(key, 4)
        values, observed = targets(state)
        bits = encode(state.architectures)
        ensemble = jax.vmap(lambda own: train(own, bits, values, observed, settings, steps))(
            jax.random.split(training_key, settings.networks)
        )
        rows = mutants(mutation_key, space, state, settings.candidates, settings.parents)
        predicted = jax.vmap(predict, (0, None))(ensemble, encode(rows))
        scores = independent_thompson(draw_key, predicted.mean(axis=0), predicted.std(axis=0))
        ready = (state.told >= settings.initial) & observed.any()
        scores = jnp.where(ready, scores, -jnp.inf)
        return Candidates(pool.choose(choice_key, state, rows, scores, settings.batch)), state

    return archive.strategy("bananas", space, objectives, budget, ask, pool.used_up)


def initial(key: Key, features: int, settings: Bananas) -> Layers:
    """Weights of one network, He's uniform ones, and biases 0."""
    widths = [features, *[settings.width] * settings.layers, 1]
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (jax.nn.initializers.he_uniform()(own, (before, after)), jnp.zeros(after))
        for own, before, after in zip(keys, widths, widths[1:], strict=False)
    ]


def predict(layers: Layers, bits: Array) -> Array:
    """Standardised values of encodings float32[N, F]: float32[N]."""
    *hidden, (last, shift) = layers
    for weights, bias in hidden:
        bits = jax.nn.relu(bits @ weights + bias)
    return (bits @ last + shift)[:, 0]


def train(key: Key, bits: Array, values: Array, observed: Array, settings: Bananas, steps: int) -> Layers:
    """One network, trained on the observed of float32[T, F] and float32[T]."""
    start_key, step_key = jax.random.split(key)
    optimizer = optax.adam(settings.learning_rate, b1=0.9, b2=0.99)
    layers = initial(start_key, bits.shape[1], settings)
    # The observed come first in an archive.
    count = jnp.maximum(observed.sum(), 1)

    def error(layers: Layers, rows: Array) -> Array:
        return jnp.abs(predict(layers, bits[rows]) - values[rows]).mean()

    def step(carry: tuple[Layers, optax.OptState], key: Key) -> tuple[tuple[Layers, optax.OptState], None]:
        layers, state = carry
        rows = jax.random.randint(key, (OBSERVATIONS,), 0, count)
        updates, state = optimizer.update(jax.grad(error)(layers, rows), state)
        return (optax.apply_updates(layers, updates), state), None

    keys = jax.random.split(step_key, steps)
    (layers, _), _ = jax.lax.scan(step, (layers, optimizer.init(layers)), keys)
    return layers
