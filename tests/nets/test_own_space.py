"""Spaces of one's own: what they cost, by hand, and that they have all that spaces have."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas.errors import InputError
from jnas.estimators.settings import NtkConfig
from jnas.nets import cell, macro, networks, stacks, trainable
from jnas.nets.candidates import OPERATIONS, average_pool, convolution
from jnas.nets.modules import Build, initial_parameters
from jnas.nets.sizes import Macro, sizes
from jnas.oneshot import supernets
from jnas.proxies import ntk
from jnas.spaces import SPACES, Graph, Space, get
from jnas.strategies import pruning

CHAIN = Graph(((0, 1), (1, 2), (2, 3)), ("conv_1x1", "conv_3x3", "conv_5x5"))
# A cell without a kernel written by hand.
POOLED = Graph(((0, 1), (0, 2), (1, 2)), ("none", "max_pool_3x3", "nor_conv_3x3"))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    own = {f"conv_{size}x{size}": convolution(size) for size in (1, 3, 5)}
    for name, operation in (own | {"avg_pool_5x5": average_pool(5)}).items():
        monkeypatch.setitem(OPERATIONS, name, operation)
    full = get("nasbench201")
    part = tuple(graph.without("none", "avg_pool_3x3") for graph in full.graphs)
    for space in (Space("chain", (CHAIN,)), replace(full, name="no_pool", graphs=part, canonical_form=None)):
        monkeypatch.setitem(SPACES, space.name, space)


def test_sizes_of_a_chain_by_hand():
    """Digits are 8x8x1; three stages of 4, 8 and 16 channels and images of 8, 4 and 2.

    Parameters: the stem 36 + 8; a convolution k x k of c channels k^2 c^2 + 2 c, three of them a stage; residual blocks
    to c channels 9 c^2 / 2 + 9 c^2 + c^2 / 2 + 4 c; the last normalisation 32, the classifier 170.
    FLOPs: the stem 36 x 64; a convolution k^2 c^2 h^2; residual blocks 14 c^2 h^2; the classifier 170.
    """
    space, network = SPACES["chain"], Macro(4, 1, 3, (8, 8, 1), 10)
    choices = space.choices(np.array([[0, 0, 0], [2, 2, 2]]))
    found = sizes(networks.build(space, network, Build()), network.image, choices)
    # 336 and 8,400 weights of a stage's squares 16 + 64 + 256, times three convolutions.
    rest = 36 + 8 + (14 * 64 + 32) + (14 * 256 + 64) + 32 + 170
    norms = 3 * 2 * (4 + 8 + 16)
    assert found.params.tolist() == [rest + norms + 3 * 336, rest + norms + 3 * 8400]
    flops = 36 * 64 + 14 * 64 * 16 + 14 * 256 * 4 + 170
    each = 16 * 64 + 64 * 16 + 256 * 4
    assert found.flops.tolist() == [flops + 3 * each, flops + 3 * 25 * each]
    assert found.convs.tolist() == [3, 3]


def test_a_part_of_a_space_costs_what_it_costs_in_the_whole():
    """NAS-Bench-201's table has 1.531546 M parameters for six 3x3 convolutions; FLOPs on digits by hand.

    The stem 9 x 16 x 64; convolutions 9 c^2 h^2, thirty a stage; residual blocks 14 c^2 h^2; the classifier 650.
    """
    part, whole = SPACES["no_pool"], get("nasbench201")
    text = whole.to_string([3] * 6)
    found = [
        sizes(networks.build(space, Macro(), Build()), (32, 32, 3), space.choices(space.from_string(text)))
        for space in (part, whole)
    ]
    assert found[0] == found[1] and found[0].params == 1_531_546
    digits = sizes(networks.build(part, Macro(), Build()), (8, 8, 1), part.choices(np.array([2] * 6)))
    assert digits.params == 1_531_546 - 2 * 9 * 16
    assert digits.flops == 9 * 16 * 64 + 270 * 3 * 16384 + 14 * 2 * 16384 + 650
    assert part.size == 729 and part.from_string(text).tolist() == [2] * 6
    with pytest.raises(InputError, match="avg_pool_3x3 on edge 1<-0 is not of the space no_pool"):
        part.from_string(whole.to_string([4] * 6))


def test_pruning_a_part_of_a_space_starts_from_it_and_ends_in_it():
    state = pruning.init(SPACES["no_pool"])
    assert np.array_equal(state.active, SPACES["no_pool"].allowed) and state.active.sum() == 18
    assert (pruning.result(state) < 3).all()


def test_text_of_a_chain():
    space = SPACES["chain"]
    assert space.to_string([0, 1, 2]) == "conv_1x1|conv_3x3|conv_5x5"
    assert space.from_string("conv_5x5|conv_1x1|conv_1x1").tolist() == [2, 0, 0]
    for text, fault in (
        ("conv_1x1", "write 3 operations"),
        ("conv_1x1|conv_1x1|conv_7x7", "unknown operation"),
    ):
        with pytest.raises(InputError, match=fault):
            space.from_string(text)
    with pytest.raises(InputError, match="give 3 integers below"):
        space.to_string([0, 1, 3])


def test_planes_of_any_convolutions_and_pools():
    """The hand-written kernel of a node, with sizes that NAS-Bench-201 does not have."""
    graph = Graph(((0, 1), (0, 2), (1, 2)), ("skip_connect", "conv_1x1", "conv_5x5", "avg_pool_5x5"))
    params = stacks.init(graph, 2, Build(), jax.random.key(0))["params"]
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    gates = jax.random.uniform(jax.random.key(2), (3, 4))

    def evaluate(planes, params):
        own = jnp.transpose(x, (3, 0, 1, 2)) if planes else x
        y, _ = cell.apply(graph, 2, Build(planes=planes), {"params": params}, [own], gates=gates)
        return jnp.transpose(y, (1, 2, 3, 0)) if planes else y

    np.testing.assert_allclose(evaluate(True, params), evaluate(False, params), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("graph", [CHAIN, POOLED], ids=["by hand", "general"])
def test_the_exact_kernel(graph):
    """jnas's kernel against neural-tangents', with and without a kernel written by hand."""
    space = Space("own", (graph,))
    images = jax.random.normal(jax.random.key(0), (3, 4, 4, 1))
    gates = jax.random.uniform(jax.random.key(1), (1, 3, 3))

    def network(build):
        return networks.build(space, Macro(2, 1, 1, classes=2), build, search=True)

    params = initial_parameters(network(Build()), jax.random.key(2), images, gates)
    own, reference = (
        jax.jit(lambda gates, settings=settings: ntk.kernel(params, images, network, gates, settings))(gates)
        for settings in (
            NtkConfig(parameters="all"),
            NtkConfig(parameters="all", implementation="jacobian_contraction"),
        )
    )
    assert macro.build_of(Build(planes=True), (graph,)).planes == (graph is CHAIN)
    np.testing.assert_allclose(own, reference, rtol=1e-3, atol=1e-3 * float(jnp.abs(reference).max()))


def test_signs_of_cells_without_a_kernel_written_by_hand():
    """Such a network evaluates images where planes are asked for: the signs are of images too."""
    twice = Graph(((0, 2), (1, 2)), ("none", "skip_connect", "nor_conv_3x3", "max_pool_3x3"), 2)
    for graph, name in ((POOLED, "residual"), (twice, "two_inputs")):
        space, images = Space("own", (graph,) * graph.inputs, network=name), jnp.zeros((3, 4, 4, 1))
        gates = jnp.ones((len(space.graphs), *graph.mask.shape))

        def signs(build, space=space, gates=gates, images=images):
            network = networks.build(space, Macro(2, 1, 1, classes=2), build, search=True)
            _, sown = jax.eval_shape(
                lambda key: network.init_with_output(key, images, gates, mutable=["params", "patterns"]),
                jax.random.key(0),
            )
            return jax.tree.map(lambda leaf: leaf.shape, sown["patterns"])

        assert signs(Build(planes=True)) == signs(Build())


def test_a_chain_is_trained_and_is_a_supernet():
    network = trainable.of_architecture("chain", "conv_1x1|conv_5x5|conv_1x1", (8, 8, 1), 10, 4, 1)
    params, _ = trainable.shapes(network)
    assert params["cells_0"]["conv_5x5"]["kernel"].shape == (1, 1, 5, 5, 4, 4)
    assert "conv_3x3" not in params["cells_0"]
    supernet = supernets.SUPERNETS["chain"]((8, 8, 1), 10, 4, 1)
    assert supernet.masks == 9 and supernet.groups[1] == "conv_3x3 0→1"
    assert supernet.weights_of_mask[1] == sum(9 * c**2 + 2 * c for c in (4, 8, 16))
