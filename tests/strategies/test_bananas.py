"""The ensemble learns, and ignores what is not there; asks are mutants, different and new."""

import jax
import jax.numpy as jnp
import numpy as np

from jnas import spaces
from jnas.strategies import archive
from jnas.strategies.bananas import bananas, predict, train
from jnas.strategies.settings.bayesian import Bananas
from jnas.types import Candidates, Values

SPACE = spaces.get("nasbench201")
SMALL = Bananas(layers=3, networks=3, batch=6, candidates=60)


def test_a_network_fits_what_was_observed_and_nothing_else():
    rows = np.asarray(SPACE.sample(jax.random.key(0), 40))
    bits, values = SPACE.one_hot(rows), jnp.asarray((rows == 3).sum(1) - 1.2, jnp.float32)
    observed = jnp.arange(40) < 30

    @jax.jit
    def errors(values):
        layers = train(jax.random.key(1), bits, values, observed, SMALL, 400)
        return jnp.abs(predict(layers, bits) - values)[:30].mean()

    error = errors(values)
    assert error < 0.3 * jnp.abs(values[:30]).mean()
    assert errors(values.at[30:].set(1e6)) == error


def test_asks_are_new_different_mutants_of_the_best():
    rows = np.asarray(SPACE.sample(jax.random.key(0), 20))
    values = (rows == 3).sum(1).astype(float)[:, None]
    strategy = bananas(SPACE, SMALL, 1, 30)
    state, _ = strategy.tell(
        strategy.init(jax.random.key(0)), Candidates(rows), Values(values, values > 9, values[:, 0])
    )
    asked = np.asarray(jax.jit(strategy.ask)(jax.random.key(2), state)[0].architectures)
    codes = [tuple(row) for row in np.asarray(SPACE.canonical(np.concatenate([asked, rows]))).tolist()]
    assert len(set(codes[:6])) == 6 and not set(codes[:6]) & set(codes[6:])
    assert ((asked != np.asarray(archive.best(state))).sum(1) <= 3).all()
