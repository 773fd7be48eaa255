"""Networks of two inputs: their forms, what they cost, and genotypes of any kind."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from genotypes import DARTS_V2, EVERY_OPERATION
from measure import network

from jnas import spaces
from jnas.errors import InputError
from jnas.nets import cell, macro, networks, stacks, two_inputs
from jnas.nets.fast import separable
from jnas.nets.modules import Build, initial_parameters, initial_statistics
from jnas.nets.sizes import Macro, parameters, sizes
from jnas.programs import counts
from jnas.proxies import PROXIES
from jnas.proxies.base import NETWORK
from jnas.spaces.base import Graph
from jnas.spaces.genotype import parse

DARTS = spaces.get("darts")
CIFAR, IMAGENET = Macro(36, 6, 3, (32, 32, 3), 10), Macro(48, 4, 3, (224, 224, 3), 1000)
TENAS_IMAGENET = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 1), ('sep_conv_3x3', 2), "
    "('sep_conv_3x3', 0), ('dil_conv_5x5', 3), ('sep_conv_3x3', 0), ('dil_conv_3x3', 4)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('dil_conv_3x3', 0), ('sep_conv_5x5', 1), ('dil_conv_3x3', 0), "
    "('sep_conv_3x3', 2), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 4)], "
    "reduce_concat=[2, 3, 4, 5])"
)
# Both edges of a node from one source, the last nodes alone as output, a node that is not read.
OTHER = parse(
    "Genotype(normal=[('sep_conv_7x7', 0), ('sep_conv_7x7', 0), ('conv_7x1_1x7', 2), ('none', 1), "
    "('skip_connect', 3), ('avg_pool_3x3', 2)], normal_concat=[3, 4], "
    "reduce=[('conv_7x1_1x7', 0), ('skip_connect', 1), ('max_pool_3x3', 1), ('skip_connect', 2)], "
    "reduce_concat=range(2, 4))"
)
# Two nodes, each fed by two inputs, of which edges halve the image.
TOY = Graph(
    ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), ("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"), 2,
    stride=2, outputs=(2, 3),
)  # fmt: skip
close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)


def trained(text, sizes, **fields):
    network = networks.build(DARTS, sizes, Build(), **fields)
    return network.clone(graphs=two_inputs.graphs_of(parse(text) if isinstance(text, str) else text))


def shapes_of(network, image):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image)))["params"]


@pytest.mark.parametrize(
    ("text", "network", "published", "flops"),
    # Liu et al. print 3.349342 MB and 4.718752 MB for their second-order cells; Chen et al. say 5.4 M. FLOPs are those
    # of a sum over layers written out.
    [
        (DARTS_V2, CIFAR, 3_349_342, 528_359_050),
        (DARTS_V2, IMAGENET, 4_718_752, 529_912_552),
        (TENAS_IMAGENET, IMAGENET, 5_420_416, 590_415_400),
    ],
    ids=["darts_cifar", "darts_imagenet", "tenas_imagenet"],
)
def test_published_sizes(text, network, published, flops):
    choices = DARTS.choices(DARTS.from_string(text))
    found = sizes(networks.build(DARTS, network, Build()), network.image, choices)
    assert (found.params, found.flops) == (published, flops)
    auxiliary = two_inputs.auxiliary_fits(network.image)
    shapes = shapes_of(trained(text, network, auxiliary=auxiliary), network.image)
    assert parameters(shapes) == published and ("auxiliary_head" in shapes) == auxiliary


def test_sizes_are_those_of_the_whole_program():
    small = Macro(4, 1, 2, (8, 8, 3), 5)
    network = trained(EVERY_OPERATION, small).clone(build=Build(forwards=True))
    x = jnp.zeros((1, 8, 8, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    found = sizes(
        networks.build(DARTS, small, Build(forwards=True)),
        small.image,
        DARTS.choices(DARTS.from_string(EVERY_OPERATION)),
    )
    assert found.flops == counts.of_function(network.apply, variables, x).flops + small.classes
    assert found.convs == 10


@pytest.mark.parametrize("loop", [False, True])
def test_forms_of_a_cell_that_halves(loop, monkeypatch):
    monkeypatch.setattr(cell, "EDGES_ONE_BY_ONE", 0 if loop else 8)
    inputs = list(jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 2)))
    params = stacks.init(TOY, 2, Build(), jax.random.key(1))["params"]
    architecture = (1, 2, 3, 0, 2)
    gates = jnp.asarray(np.eye(4, dtype=np.float32)[list(architecture)])

    def evaluate(graph, params, build=Build(), **form):  # noqa: B008  (frozen)
        own = [jnp.transpose(x, (3, 0, 1, 2)) for x in inputs] if build.planes else inputs

        def total(params):
            y, sown = cell.apply(graph, 2, build, {"params": params}, own, **form)
            y = jnp.transpose(y, (1, 2, 3, 0)) if build.planes else y
            return jnp.sum(jnp.sin(y)), (y, sown)

        gradient, (y, sown) = jax.jit(jax.grad(total, has_aux=True))(params)
        return y, gradient, sown

    expected, slope, sown = evaluate(TOY, params, gates=gates)
    assert expected.shape == (3, 2, 2, 4)
    for build, form in (
        (Build(planes=True), {"gates": gates}),
        (Build(loops=True), {"choices": jnp.array(architecture)}),
    ):
        found, own, also = evaluate(TOY, params, build, **form)
        close(found, expected)
        jax.tree.map(close, own, slope)
    # One sign each of what inputs read, of what the inner node reads and of the second ReLU of two edges.
    read = [name for name, signs in also.patterns.items() if signs.any()]
    assert sorted(read) == ["edge_1_0", "edge_4_0", "node_0", "node_1", "node_2"]
    assert [int(also.readers[name]) for name in sorted(read)] == [1, 1, 1, 1, 1]
    for name in ("node_0", "node_1", "node_2"):
        np.testing.assert_array_equal(also.patterns[name], sown.patterns[name])
    alone = TOY.restricted([(k,) for k in architecture])
    rows = {"skip_connect": [0], "sep_conv_3x3": [1, 4]}
    own = {name: jax.tree.map(lambda leaf, r=r: leaf[np.array(r)], params[name]) for name, r in rows.items()}
    close(evaluate(alone, own)[0], expected)


def test_any_genotype_is_a_network():
    network = trained(OTHER, Macro(4, 1, 3, (8, 8, 1), 3))
    images = jnp.zeros((2, 8, 8, 1))
    logits = jax.eval_shape(lambda key: network.apply(network.init(key, images), images), jax.random.key(1))
    assert logits.shape == (2, 3)
    wrong = OTHER._replace(normal=(("sep_conv_9x9", 0), *OTHER.normal[1:]))
    with pytest.raises(InputError, match="unknown operation 'sep_conv_9x9'"):
        two_inputs.graphs_of(wrong)


def test_a_network_by_choices_is_that_of_its_genotype():
    """With the weights that the genotype's edges have, in the order of its edges; paths dropped change it."""
    small, images = Macro(2, 1, 2, (8, 8, 1), 3), jax.random.normal(jax.random.key(2), (3, 8, 8, 1))
    whole = networks.build(DARTS, small, Build(loops=True))
    choices = DARTS.choices(DARTS.from_string(EVERY_OPERATION))
    params = initial_parameters(whole, jax.random.key(3), images, None, choices)
    found = jax.jit(whole.apply)({"params": params}, images, choices=choices)
    alone = macro.restricted(whole.clone(build=Build()), np.asarray(choices))
    own = macro.restricted_params(whole, params, np.asarray(choices))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, shapes_of(alone, (8, 8, 1)))
    apply = jax.jit(alone.apply)
    expected = apply({"params": own}, images)
    close(found, expected)
    key = jax.random.key(4)
    close(apply({"params": own}, images, drop=0.0, key=key), expected)
    assert not jnp.allclose(apply({"params": own}, images, drop=0.5, key=key), expected)


def test_images_of_imagenets_size_go_through_its_stem():
    network = networks.build(DARTS, Macro(4, 1, 1, classes=3), Build())
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert {"stem_0", "stem_1", "stem_2"} <= set(shapes["params"])
    assert {"stem_1_input", "stem_2_input"} <= set(shapes["patterns"])


def test_a_share_of_paths_is_dropped():
    x = jnp.ones((4000, 2, 2, 1))
    dropped = cell.drop_path(jax.random.key(0), x, 0.3)
    # A whole image at a time, and the same on average.
    assert set(np.unique(dropped)) <= {0.0, np.float32(1 / 0.7)}
    assert (dropped == dropped[:, :1, :1]).all()
    assert float(dropped.mean()) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        ((32, 32, 3), True),
        ((224, 224, 3), True),
        ((8, 8, 1), False),
        ((28, 28, 1), True),
        ((32, 28, 1), False),
    ],
)
def test_where_the_auxiliary_head_fits(image, fits):
    assert two_inputs.auxiliary_fits(image) == fits


def test_initial_parameters():
    """Weights of edges side by side have the deviation of one."""
    network = networks.build(DARTS, Macro(8, 1, 2, classes=3), Build())
    images = jnp.zeros((1, 8, 8, 1))
    edges = initial_parameters(network, jax.random.key(0), images)["cell_0"]
    assert float(edges["sep_conv_3x3"]["pointwise_0"].std()) == pytest.approx(np.sqrt(2 / 8), rel=0.1)
    assert float(edges["sep_conv_5x5"]["depthwise_0"].std()) == pytest.approx(np.sqrt(2 / 25), rel=0.1)
    assert (edges["sep_conv_3x3"]["norms_0"]["scale"] == 1).all()
    assert initial_statistics(network, images)["cell_0_older"]["norm"]["variance"].shape == (8,)


def test_targets_that_are_not_there_cost_nothing_and_change_nothing():
    keys = jax.random.split(jax.random.key(0), 12)
    shapes = [(3, side, side, 2) for side, _ in separable.KINDS]
    first = tuple(jax.random.normal(keys[i], shape) for i, shape in enumerate(shapes))
    second = tuple(jax.random.normal(keys[4 + i], shapes[i]) for i in range(2))
    ones, zeros = jnp.ones((3, 4, 2)), jnp.zeros((3, 4, 2))
    weights = separable.Weights(
        first, jax.random.normal(keys[6], (3, 4, 2, 2)), ones, zeros,
        second, jax.random.normal(keys[7], (3, 2, 2, 2)), ones[:, :2], zeros[:, :2],
    )  # fmt: skip
    x = jax.random.normal(keys[8], (2, 3, 5, 5))
    gates = jnp.ones((3, 4)).at[2].set(0)

    @jax.jit
    def gradient(count):
        def total(x, weights):
            return jnp.sum(jnp.sin(separable.convolutions(x, weights, gates, count)[0]))

        return jax.grad(total, (0, 1))(x, weights)

    jax.tree.map(np.testing.assert_array_equal, gradient(2), gradient(3))


def test_images_that_are_too_small():
    with pytest.raises(InputError, match="do not fit a network of 2 reduction cells"):
        two_inputs.check_reduced((3, 3, 3), 3)


def test_every_proxy_of_the_network_scores_cells_and_finds_nothing_in_nothing():
    names = tuple(name for name, proxy in PROXIES.items() if proxy.subject == NETWORK)
    good = DARTS.choices(DARTS.from_string(DARTS_V2))
    # With few images the sample-wise patterns of any cell are all that there can be.
    images, labels = jax.random.normal(jax.random.key(1), (2, 12, 8, 8, 1)), np.arange(24).reshape(2, 12) % 3
    rows = jnp.stack([good, jnp.zeros_like(good)])
    measured = network(jax.random.key(0), rows, images, jnp.asarray(labels), names, space="darts")
    for name in names:
        (good, good_status), (nothing, nothing_status) = (
            PROXIES[name].finish(jax.tree.map(lambda leaf, row=row: leaf[row], measured[name]), labels[0])
            for row in (0, 1)
        )
        assert good_status == "ok" and np.isfinite(good), name
        if name == "grasp":
            assert nothing == 0 and good != 0
        else:
            sign = PROXIES[name].sign
            assert nothing_status != "ok" or sign * nothing < sign * good, name
