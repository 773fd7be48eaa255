"""Measurements of proxies' subjects as stacked arrays, by programs that one test process traces once."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jnas import spaces
from jnas.estimators.settings import NetworkConfig, NtkConfig, RegionsConfig
from jnas.parallel import Program
from jnas.proxies import PROXIES, sign, subjects
from jnas.proxies.base import NETWORK
from jnas.proxies.subjects import SUBJECTS
from jnas.types import STATUSES, Estimator, Values


def stacked(functions, key, rows, *arrays, width=1):
    program = Program("test", functions.measure, cpu_width=width)
    outs = program(functions.init(key, *arrays), np.asarray(rows))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *outs)


def network(
    key, rows, images, labels, names, *, space="nasbench201", classes=3, stages=1, width=1, **settings
):
    """Measurements by name, arrays [B, ...]."""
    settings = NetworkConfig(**{"cells_per_stage": 1, "channels": 2, **settings})
    functions = subjects.network(space, settings, tuple(map(PROXIES.get, names)), classes, stages)
    return stacked(functions, key, rows, images, labels, width=width)


def kernels(key, rows, images, *, space="nasbench201", classes=3, stages=None, width=1, **settings):
    """float32[B, M, M]."""
    functions = subjects.kernel(space, NtkConfig(**{"channels": 1, **settings}), classes, stages)
    return stacked(functions, key, rows, images, width=width)


def counts(key, rows, inputs, *, space="nasbench201", width=1, **settings):
    """int32[B]."""
    functions = subjects.linear_regions(space, RegionsConfig(**{"channels": 1, **settings}))
    return stacked(functions, key, rows, inputs, width=width)


class StandIns:
    """Stand-ins for the compiled measurements of subjects: keys, images and records are the real ones.

    calls: each draw of weights and images, (subject, key, arrays, settings).
    rows: each call of a program, (name, number of rows).
    before: called before each of those; an exception of it is raised there.
    """

    def __init__(self, monkeypatch, measures):
        self.calls, self.rows, self.before = [], [], lambda: None
        for name, measure in measures.items():
            monkeypatch.setitem(SUBJECTS, name, self._subject(name, measure))
        call = Program.__call__

        def watched(program, shared, rows):
            self.before()
            self.rows.append((program._name, len(rows)))
            return call(program, shared, rows)

        monkeypatch.setattr(Program, "__call__", watched)

    def _subject(self, name, measure):
        def functions(space, settings, proxies, classes):
            def init(key, *arrays):
                self.calls.append((name, key, arrays, settings))
                return jax.random.uniform(key), float(np.mean(arrays[0]))

            def measured(shared, row):
                # Both forms of an architecture have one value.
                gates = row if row.ndim == 3 else jax.nn.one_hot(row, len(spaces.get(space).operations))
                out = measure(gates, *shared)
                return {proxy.name: out for proxy in proxies} if name == NETWORK else out

            return subjects.Functions(init, measured)

        return replace(SUBJECTS[name], functions=functions)


def weighed(row, draw, image):
    """A number that depends on the row, on the weights' key and on the images."""
    weights = jnp.sin(1.0 + jnp.arange(row.size, dtype=jnp.float32))
    return jnp.sin(3 * (row.reshape(-1) @ weights) + draw + image)


def diagonal(row, draw, image):
    """A kernel whose condition number is between 1 and 3."""
    return jnp.diag(jnp.array([2 + weighed(row, draw, image), 1.0]))


def hundreds(row, draw, image):
    return jnp.round(100 * (2 + weighed(row, draw, image))).astype(jnp.int32)


class FakeProxies:
    """Stands in for the estimator of `jnas.run.score`: values in closed form, in small chunks.

    value: (architecture int[D], name of a proxy) -> (the proxy's value, status).
    asked: names and architectures' texts of each chunk. made: settings of each estimator.
    fail_at: number of the chunk that raises `error`. before: called before each chunk.
    """

    def __init__(self, value, batch):
        self.value, self.batch = value, batch
        self.asked, self.made = [], []
        self.fail_at, self.error, self.before = None, RuntimeError("the machine burns"), lambda: None

    def __call__(self, space, names, dataset, settings, memory_gb=0.0):
        self.made.append(settings)

        def evaluate(key, candidates):
            self.before()
            if len(self.asked) == self.fail_at:
                raise self.error
            rows = np.asarray(candidates.architectures)
            self.asked.append((tuple(names), [space.to_string(row) for row in rows]))
            pairs = [[self.value(row, name) for name in names] for row in rows]
            values = [[sign(n) * v if s == "ok" else -np.inf for n, (v, s) in zip(names, row, strict=True)]
                      for row in pairs]  # fmt: skip
            status = [[STATUSES.index(s) for _, s in row] for row in pairs]
            return Values(np.array(values), np.array(status, np.int8), np.full(len(rows), 0.5))

        return Estimator(tuple(names), evaluate, batch=self.batch)


def swap_by_place(row, name):
    """A value of its own for each cell and each length of a proxy's name."""
    return float(np.asarray(row) @ 5.0 ** np.arange(6) / 7 + len(name)), "ok"
