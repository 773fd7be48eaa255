import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure import counts
from nasbench201_networks import Network

from jnas import spaces
from jnas.nets.modules import Build, initial_parameters
from jnas.proxies import regions

SPACE = spaces.get("nasbench201")
count_distinct = jax.jit(regions.count_distinct)


def patterns(seed: int, rows: int, width: int, distinct: int, density: float) -> np.ndarray:
    """bool[rows, width] with at most `distinct` different rows."""
    generator = np.random.default_rng(seed)
    pool = generator.random((distinct, width)) < density
    return pool[generator.integers(0, distinct, rows)]


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    # Around the boundaries of 32-bit words; few shapes, as each compiles.
    shape=st.sampled_from([(1, 1), (2, 31), (40, 32), (40, 33), (40, 64), (41, 65), (7, 200)]),
    distinct=st.integers(1, 45),
    density=st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0]),
)
def test_counting_equals_numpy(seed, shape, distinct, density):
    rows = patterns(seed, *shape, distinct, density)
    assert count_distinct(rows) == len(np.unique(rows, axis=0))


@pytest.mark.parametrize("width", [1, 31, 32, 33, 96, 97])
def test_one_sign_makes_a_pattern(width):
    """Rows that differ in one place each, wherever it stands: none is lost between the words."""
    rows = np.concatenate([np.eye(width, dtype=bool), np.zeros((1, width), bool), np.eye(width, dtype=bool)])
    assert count_distinct(rows) == width + 1


@pytest.mark.parametrize("width", [1, 32, 33, 70])
def test_packing_keeps_every_sign(width):
    rows = patterns(0, 5, width, 5, 0.5)
    words = np.asarray(regions.pack(jnp.asarray(rows)))
    assert words.dtype == np.uint32 and words.shape == (5, -(-width // 32))
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.array_equal(bits.reshape(5, -1)[:, :width], rows)


@pytest.fixture(scope="module")
def batch():
    """Gates of 7 cells (more than one step of a program that takes 4), 60 crops, and their counts."""
    cells = SPACE.sample(jax.random.key(0), 4)
    mixed = jax.nn.softmax(jax.random.normal(jax.random.key(1), (3, 1, 6, 5)))
    gates = jnp.concatenate([SPACE.gates(cells), mixed])
    crops = jax.random.normal(jax.random.key(2), (60, 3, 3, 1))
    return gates, crops, counts(jax.random.key(3), gates, crops, width=4)


def test_counts_are_those_of_the_network(batch):
    gates, crops, expected = batch
    network = Network(1, 1, Build(), 1, 1, stem=False)

    @jax.jit
    def signs(gates):
        params = initial_parameters(network, jax.random.key(3), crops[:1], gates)
        _, sown = network.apply({"params": params}, crops, gates, mutable=["patterns"])
        return [leaf.reshape(len(crops), -1) for leaf in jax.tree.leaves(sown["patterns"])]

    alone = [len(np.unique(np.concatenate(signs(g), axis=1), axis=0)) for g in gates]
    assert expected.dtype == np.int32 and expected.tolist() == alone
    assert len(set(alone)) > 1


def test_equal_to_one_by_one_and_to_the_same_key(batch):
    gates, crops, expected = batch
    single = [int(counts(jax.random.key(3), g[None], crops)[0]) for g in gates]
    assert single == expected.tolist()
    assert counts(jax.random.key(4), gates, crops).tolist() != expected.tolist()


def test_whole_colour_images():
    """Inputs of three channels go through a stem to the network's one."""
    gates = SPACE.gates(np.array([[3] * 6, [1] * 6], np.int32))
    images = jax.random.normal(jax.random.key(0), (9, 4, 4, 3))
    found = counts(jax.random.key(1), gates, jnp.concatenate([images, images]))
    # Each image has a pattern of its own, and its copy the same.
    assert found.tolist() == [9, 9]
