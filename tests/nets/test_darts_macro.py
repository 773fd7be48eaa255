import jax
import jax.numpy as jnp
import numpy as np
import pytest
from genotypes import DARTS_V2

from jnas.errors import InputError
from jnas.nets import darts_cost, darts_macro
from jnas.nets.cost import Macro
from jnas.nets.modules import Build, initial_parameters, initial_statistics
from jnas.spaces import darts
from jnas.spaces.genotype import parse

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


def shapes_of(genotype, network, auxiliary=False):
    built = darts_macro.Network(
        genotype, network.channels, network.classes, Build(), network.cells, network.stages, auxiliary
    )
    images = jax.ShapeDtypeStruct((1, *network.image), jnp.float32)
    return jax.eval_shape(built.init, jax.random.key(0), images)["params"]


@pytest.mark.parametrize(
    ("text", "network", "published"),
    # Liu et al. print 3.349342 MB and 4.718752 MB for their second-order cells; Chen et al. say 5.4 M.
    [(DARTS_V2, CIFAR, 3_349_342), (DARTS_V2, IMAGENET, 4_718_752), (TENAS_IMAGENET, IMAGENET, 5.4e6)],
    ids=["darts_cifar", "darts_imagenet", "tenas_imagenet"],
)
def test_published_numbers_of_parameters(text, network, published):
    counted = darts_macro.parameters(shapes_of(parse(text), network, auxiliary=True))
    assert counted == darts_cost.params(darts.SPACE.choices(darts.from_string(text)), network)
    assert counted == published if isinstance(published, int) else f"{counted:.1e}" == f"{published:.1e}"


def multiply_adds(genotype, network):
    """Of convolutions and matrix products in the traced program, one by one."""
    built = darts_macro.Network(
        genotype, network.channels, network.classes, Build(), network.cells, network.stages
    )
    images = jnp.zeros((1, *network.image))
    variables = jax.eval_shape(built.init, jax.random.key(0), images)
    total = 0

    def walk(jaxpr):
        nonlocal total
        for equation in jaxpr.eqns:
            out = equation.outvars[0].aval.shape
            if equation.primitive.name == "conv_general_dilated":
                total += np.prod(out) * np.prod(equation.invars[1].aval.shape[:3])
            elif equation.primitive.name == "dot_general":
                ((contracted, _), _) = equation.params["dimension_numbers"]
                total += np.prod(out) * np.prod([equation.invars[0].aval.shape[axis] for axis in contracted])
            for parameter in equation.params.values():
                inner = getattr(parameter, "jaxpr", None)
                if inner is not None:
                    walk(inner)

    walk(
        jax.make_jaxpr(lambda variables, images: built.apply(variables, images, mutable=["batch_stats"])[0])(
            variables, images
        ).jaxpr
    )
    return int(total) + network.classes


@pytest.mark.parametrize(
    "network", [Macro(4, 1, 3, (8, 8, 1), 10), Macro(8, 2, 2, (9, 12, 3), 5), Macro(4, 1, 3, (64, 64, 3), 7)]
)
def test_costs_are_those_of_the_network(network):
    for architecture in np.asarray(darts.SPACE.sample(jax.random.key(0), 1)):
        genotype = darts.genotype(architecture)
        choices = darts.SPACE.choices(architecture)
        assert darts_macro.parameters(shapes_of(genotype, network)) == darts_cost.params(choices, network)
        if all(side % 2 ** (network.stages - 1) == 0 for side in network.image[:2]):
            assert multiply_adds(genotype, network) == darts_cost.flops(choices, network)


def test_any_genotype_is_a_network():
    darts_macro.check(OTHER)
    network = darts_macro.Network(OTHER, 4, 3, Build(), 1, 3)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = network.init(jax.random.key(1), images)
    logits, extra = network.apply(variables, images)
    assert logits.shape == (2, 3) and extra is None and jnp.isfinite(logits).all()
    wrong = OTHER._replace(normal=(("sep_conv_9x9", 0), *OTHER.normal[1:]))
    with pytest.raises(InputError, match="unknown operation 'sep_conv_9x9'"):
        darts_macro.check(wrong)


def test_dropped_paths():
    x = jnp.ones((4000, 2, 2, 1))
    dropped = darts_macro.drop_path(jax.random.key(0), x, 0.3)
    # A whole image at a time, and the same on average.
    assert set(np.unique(dropped)) <= {0.0, np.float32(1 / 0.7)}
    assert (dropped == dropped[:, :1, :1]).all()
    assert float(dropped.mean()) == pytest.approx(1, abs=0.06)
    network = darts_macro.Network(parse(DARTS_V2), 4, 3, Build(), 1, 3)
    images = jax.random.normal(jax.random.key(0), (8, 8, 8, 1))
    variables = network.init(jax.random.key(1), images)
    plain = network.apply(variables, images)[0]
    assert jnp.array_equal(network.apply(variables, images, 0.0, jax.random.key(2))[0], plain)
    assert not jnp.allclose(network.apply(variables, images, 0.5, jax.random.key(2))[0], plain)


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
    assert darts_macro.auxiliary_fits(image) == fits
    if fits and image[0] < 64:
        network = Macro(4, 1, 3, image, 5)
        assert "auxiliary_head" in shapes_of(parse(DARTS_V2), network, auxiliary=True)


def test_initial_parameters_of_the_network():
    network = darts_macro.Network(parse(DARTS_V2), 8, 3, Build(), 1, 3)
    images = jnp.zeros((1, 8, 8, 1))
    params = initial_parameters(network, jax.random.key(0), images)
    kernel = params["cell_0"]["edge_0_sep_conv_3x3"]["pointwise_0"]
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / 8), rel=0.3)
    depthwise = params["cell_0"]["edge_0_sep_conv_3x3"]["depthwise_0"]
    assert float(depthwise.std()) == pytest.approx(np.sqrt(2 / 9), rel=0.3)
    assert initial_statistics(network, images)["cell_0"]["older"]["norm"]["variance"].shape == (8,)
