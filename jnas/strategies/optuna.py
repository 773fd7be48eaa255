"""Any sampler of optuna, through its ask and tell.

Every decision is a categorical parameter `d0`, `d1`, ... of a study that maximises. A study is made anew of the
observations at each ask, and its sampler is seeded by the key: nothing but the observations has to be kept, and one
key and state give one ask. Several objectives are one by `jnas.proxies.combination.fitness`; a failure is a failed
trial.

Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019,
https://arxiv.org/abs/1907.10902; https://optuna.readthedocs.io.

Departures: an architecture is asked for once; after `ATTEMPTS` asks in vain a random one takes its place. Generations
of genetic samplers are not those of an uninterrupted study, as optuna keeps them in trials that it has sampled itself.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jnas.errors import InputError, one_line
from jnas.proxies.combination import fitness
from jnas.spaces import Space
from jnas.strategies import observations
from jnas.strategies.observations import Observations
from jnas.strategies.settings.bayesian import Optuna
from jnas.types import Candidates, Key, Strategy

# Asks for each architecture before a random one takes its place.
ATTEMPTS = 20


def optuna(space: Space, settings: Optuna, objectives: int) -> Strategy:
    """Ask a sampler of optuna for `batch` architectures at a time.

    Raises `InputError` where optuna is not installed, and for a sampler that it has not or that takes no seed.
    """
    make_sampler = _sampler(settings.sampler)
    make_sampler(0)
    names = [f"d{place}" for place in range(len(space.decisions))]

    def ask(key: Key, state: Observations) -> tuple[Candidates, Observations]:
        seed_key, fill_key = jax.random.split(key)
        study, domain = _study(make_sampler(int(jax.random.bits(seed_key)) % 2**31), state, space, names)
        proposals = []
        with warnings.catch_warnings():
            # Some of its samplers are marked as experimental.
            warnings.simplefilter("ignore")
            seen = set(observations.codes(space, state.architectures))
            for _ in range(settings.batch * ATTEMPTS):
                asked = study.ask(domain).params
                row = np.array([asked[name] for name in names], np.int32)
                (code,) = observations.codes(space, row[None])
                if code not in seen and bool(space.contains(row)):
                    seen.add(code)
                    proposals.append(row)
                if len(proposals) == settings.batch:
                    break
        rows = np.array(proposals, np.int32).reshape(-1, len(names))
        return Candidates(observations.distinct_new(space, state, rows, settings.batch, fill_key)), state

    return Strategy(
        name="optuna",
        init=lambda key: observations.nothing(space, objectives),
        ask=ask,
        tell=lambda state, candidates, values: (observations.add(state, candidates, values), {}),
        done=lambda state: False,
        best=observations.best,
    )


def _sampler(name: str) -> Callable[[int], Any]:
    """The sampler of a seed."""
    try:
        from optuna import samplers
    except ImportError:
        raise InputError("strategy optuna needs optuna: pip install 'jnas[optuna]'") from None
    logging.getLogger("optuna").setLevel(logging.WARNING)
    known = sorted(own for own in samplers.__all__ if own.endswith("Sampler") and own != "BaseSampler")
    if name not in known:
        raise InputError(f"optuna has no sampler '{name}': choose one of {', '.join(known)}")

    def make(seed: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return getattr(samplers, name)(seed=seed)
            except (TypeError, ImportError) as error:
                raise InputError(
                    f"sampler {name} of optuna is not made from a seed alone ({one_line(error)}): choose another"
                ) from None

    return make


def _study(sampler: Any, state: Observations, space: Space, names: list[str]) -> tuple[Any, dict[str, Any]]:
    """A study that has observed all that was told, and its parameters."""
    from optuna import create_study
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    domain: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(tuple(range(count)))
        for name, count in zip(names, space.decisions, strict=True)
    }
    study = create_study(direction="maximize", sampler=sampler)
    for row, worth in zip(state.architectures.tolist(), fitness(state.values).tolist(), strict=True):
        good = bool(np.isfinite(worth))
        study.add_trial(
            create_trial(
                params=dict(zip(names, row, strict=True)),
                distributions=domain,
                value=worth if good else None,
                state=TrialState.COMPLETE if good else TrialState.FAIL,
            )
        )
    return study, domain
