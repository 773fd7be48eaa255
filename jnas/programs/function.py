"""A function of parameters and images, traced once and read.

function = trace(apply, params, images)
function.weights(params)       the parameters that reach convolutions and matrix products, by name
function.run(params, images)   logits, features, and the values at its places: signs, deviations, blocks
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Literal, Var

from jnas.errors import InputError
from jnas.programs.inlining import equations, inline
from jnas.programs.places import Classifier, Level, classifier_of, level_of
from jnas.programs.reading import KERNEL, OFFSET, Flow, Reading, read
from jnas.programs.tapped import Looked, Places, Taps, gates, run

# (parameters, images [N, ...]) -> logits [N, O], or a tuple that begins with them.
Apply = Callable[[Any, Array], Any]


class Seen(NamedTuple):
    """A run of a function: logits [N, O], features and their values before pooling (or None), and its places."""

    logits: Array
    features: Array | None
    last: Array | None
    places: Looked


@dataclass(frozen=True)
class Function:
    """A traced function.

    apply: gives logits alone. images: shape of the batch that it was traced with. classes: O.
    level, classifier: its places.
    names, roles, steps, matters: of its parameters, in the order of `jax.tree.leaves`: the steps of the scan that reads
    one, and whether a logit depends on it. normalises: whether there is a normalisation. couples: whether logits of an
    image depend on other images. loops: whether there is a `while`, inside which nothing is seen.
    programs: of its kernels, so that a second kernel compiles nothing.
    """

    apply: Callable[[Any, Array], Array]
    images: tuple[int, ...]
    classes: int
    closed: ClosedJaxpr
    level: Level
    classifier: Classifier
    names: tuple[str, ...]
    roles: tuple[frozenset[str], ...]
    steps: tuple[int, ...]
    matters: tuple[bool, ...]
    normalises: bool
    couples: bool
    loops: bool
    programs: dict[Any, Any] = field(default_factory=dict)

    def weights(self, tree: Any) -> dict[str, Array]:
        """Leaves of a tree of parameters that are weights: [layers, weights of one], layers the steps of a scan."""
        leaves = zip(self.names, self.roles, self.steps, jax.tree.leaves(tree), strict=True)
        return {name: leaf.reshape(steps, -1) for name, roles, steps, leaf in leaves if KERNEL in roles}

    def counted(self, parameters: str) -> tuple[bool, ...]:
        """For each parameter, True where it counts in a kernel: all, or all that are not only added ("weights")."""
        return tuple(parameters == "all" or roles != {OFFSET} for roles in self.roles)

    def without_normal(self, tree: Any, weight: Callable[[int, Array], Array] | None = None) -> Any:
        """Parameters whose normalisations have scales of one and offsets of zero, and weights `weight(place, leaf)`."""
        leaves, structure = jax.tree.flatten(tree)
        normals = [level.normal for level in self.level.levels()]
        for place, leaf in enumerate(leaves):
            if any(place in normal.scales for normal in normals):
                leaves[place] = jnp.ones_like(leaf)
            elif any(place in normal.offsets for normal in normals):
                leaves[place] = jnp.zeros_like(leaf)
            elif weight is not None and KERNEL in self.roles[place]:
                leaves[place] = weight(place, leaf)
        return jax.tree.unflatten(structure, leaves)

    def run(self, params: Any, images: Array, taps: Taps = Taps()) -> Seen:  # noqa: B008
        """Run the function with changes, and look."""
        leaves = jax.tree.leaves(params)
        outputs, places, values = run(self.level, self.closed.consts, [*leaves, images], taps)
        features, last, _ = (None if variable is None else values[variable] for variable in self.classifier)
        count = len(images)
        flat = None if features is None else features.reshape(count, -1)
        return Seen(outputs[0], flat, last, places)

    def gates(self) -> Places:
        """Ones for all channels; see `jnas.programs.tapped`."""
        return gates(self.level, self.images[0])


def trace(apply: Apply, params: Any, images: Any) -> Function:
    """Trace and read a function.

    images: array or shape [N, ...], N at least 2. Raises `InputError` where the function cannot be traced, gives no
    logits [N, O], or makes another program of more images.
    """
    logits = logits_of(apply)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    twice = jax.ShapeDtypeStruct((2 * shape.shape[0], *shape.shape[1:]), shape.dtype)
    one, again, two = (_traced(logits, params, batch) for batch in (shape, shape, twice))
    output = one.out_avals[0]
    if (
        output.ndim != 2
        or output.shape[0] != shape.shape[0]
        or not jnp.issubdtype(output.dtype, jnp.floating)
    ):
        raise InputError(
            f"apply returns {output.dtype}{list(output.shape)} for {shape.shape[0]} images: give logits, floats [N, O]"
        )
    same = _constants(one) == _constants(again)
    one, two = inline(one), inline(two)
    if not same:
        raise InputError(
            "two calls of apply make different programs: give a pure function, without counters or NumPy's "
            "random numbers"
        )
    flows = [Flow(params=frozenset((place,))) for place in range(len(leaves))]
    reading = read(one.jaxpr, two.jaxpr, [*flows, Flow(data=True)])
    if not reading.of(one.jaxpr.outvars[0]).data:
        raise InputError(
            "the logits do not depend on the images: return logits of the images that apply is given"
        )
    classifier = classifier_of(reading)
    level = level_of(reading, classifier.output)
    return Function(
        logits,
        shape.shape,
        output.shape[1],
        one,
        level,
        classifier,
        tuple(jax.tree_util.keystr(path, simple=True, separator="/") or "parameters" for path, _ in leaves),
        tuple(frozenset(reading.roles.get(place, ())) for place in range(len(leaves))),
        tuple(reading.steps.get(place, 1) for place in range(len(leaves))),
        tuple(place in reading.of(one.jaxpr.outvars[0]).params for place in range(len(leaves))),
        any(inner.normal.ones for inner in level.levels()),
        any(_couples(inner) for inner in reading.levels()),
        any(equation.primitive.name == "while" for equation in equations(one.jaxpr)),
    )


def _constants(closed: ClosedJaxpr) -> list[Any]:
    """Everything about a program that a side effect of Python could change: equations and constant numbers."""
    literals = [
        (equation.primitive.name, *(str(atom.val) for atom in equation.invars if isinstance(atom, Literal)))
        for equation in equations(closed.jaxpr)
    ]
    known = [const for const in closed.consts if not isinstance(const, jax.core.Tracer)]
    return literals + [np.asarray(const).tobytes() for const in known]


def logits_of(apply: Apply) -> Callable[[Any, Array], Array]:
    """The function that returns logits alone, where it returns a tuple that begins with them."""

    def logits(params: Any, images: Array) -> Array:
        out = apply(params, images)
        return out[0] if isinstance(out, tuple) and out else out

    return logits


def _couples(reading: Reading) -> bool:
    """True where a value of each image is made with a value of all, which has lost the axis of images."""
    for equation in reading.jaxpr.eqns:
        data = [atom for atom in equation.invars if reading.of(atom).data]
        lost = any(isinstance(atom, Var) and reading.axis[atom] is None for atom in data)
        if lost and any(reading.axis.get(variable) is not None for variable in equation.outvars):
            return True
    return False


def _traced(logits: Callable[[Any, Array], Array], params: Any, images: Any) -> ClosedJaxpr:
    try:
        # A function object of its own: JAX would answer a second call with the trace of the first.
        closed = jax.make_jaxpr(lambda params, images: logits(params, images))(params, images)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(
            f"apply cannot be traced by JAX, as its program depends on values: {first}"
        ) from error
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise InputError(
            f"apply fails on images {list(images.shape)}: {type(error).__name__}: {first}"
        ) from error
    if len(closed.out_avals) != 1:
        raise InputError(
            f"apply returns {len(closed.out_avals)} arrays: give logits [N, O], or a tuple that begins with them"
        )
    return closed
