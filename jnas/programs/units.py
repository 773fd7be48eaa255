"""ReLUs and their like in a flat program.

    max(x, 0), max(x, a x)    ReLU, ReLU6, hard swish (of x + 3), leaky ReLU
    where(x > 0, x, ...)      leaky ReLU, PReLU, ELU, SELU
    x g(x)                    GELU, SiLU: g a sigmoid of x alone
    softplus(x)               and Mish, by the name of the call

The sign of x is the pattern of the unit. A tanh or a sigmoid alone is none: it has no side on which it is off.
"""

from jax.extend.core import JaxprEqn, Literal, Var

from jnas.programs.inlining import CUSTOM_DERIVATIVES, NAMED_UNITS, body_of, inline
from jnas.programs.reading import Reading, read

SIGMOIDS = ("tanh", "logistic", "erf", "erfc")
ELEMENTWISE = (
    "add", "sub", "mul", "div", "neg", "abs", "exp", "log", "log1p", "expm1", "square", "integer_pow", "pow", "sqrt",
    "max", "min", "tanh", "logistic", "erf", "erfc", "sign", "convert_element_type",
)  # fmt: skip


def units(reading: Reading) -> dict[Var, int]:
    """The inputs of ReLUs and their like, in the order of the program, with how many read each."""
    inputs: dict[Var, int] = {}
    # For elementwise functions of one value: that value, and whether a sigmoid is among them.
    roots: dict[Var, tuple[Var, bool]] = {}
    for equation in reading.jaxpr.eqns:
        if len(equation.outvars) != 1 or not reading.of(equation.outvars[0]).data:
            continue
        unit = _unit(reading, equation, roots)
        if unit is not None:
            inputs[unit] = inputs.get(unit, 0) + 1
        root = _root(reading, equation, roots)
        if root is not None:
            roots[equation.outvars[0]] = root
    return inputs


def _unit(reading: Reading, equation: JaxprEqn, roots: dict[Var, tuple[Var, bool]]) -> Var | None:
    name, atoms = equation.primitive.name, equation.invars
    if name == "max":
        moving = [atom for atom in atoms if isinstance(atom, Var) and not reading.is_constant(atom, 0)]
        if len(moving) == 1:
            return moving[0] if any(reading.is_constant(atom, 0) for atom in atoms) else None
        one, two = (roots.get(atom, (atom, False))[0] for atom in moving)
        return moving[0] if one is two else None
    if name == "select_n" and len(atoms) == 3:
        compared = _compared_with_zero(reading, atoms[0])
        return compared[0] if compared and atoms[1 + compared[1]] is compared[0] else None
    if name == "mul":
        pairs = [roots.get(atom, (atom, False)) for atom in atoms if isinstance(atom, Var)]
        same = len(pairs) == 2 and pairs[0][0] is pairs[1][0]
        return pairs[0][0] if same and pairs[0][1] != pairs[1][1] else None
    if equation.params.get("name") in NAMED_UNITS and isinstance(atoms[0], Var):
        return atoms[0]
    body = body_of(equation) if name in CUSTOM_DERIVATIVES else None
    if body is not None and len(body.jaxpr.invars) == len(atoms):
        flat = inline(body).jaxpr
        inside = units(read(flat, flat, [reading.of(atom) for atom in atoms]))
        at = [place for place, variable in enumerate(flat.invars) if variable in inside]
        unit = atoms[at[0]] if at else None
        return unit if isinstance(unit, Var) else None
    return None


def _root(
    reading: Reading, equation: JaxprEqn, roots: dict[Var, tuple[Var, bool]]
) -> tuple[Var, bool] | None:
    """The one value that an elementwise equation is a function of, and whether through a sigmoid."""
    name = equation.primitive.name
    if name not in ELEMENTWISE and name not in CUSTOM_DERIVATIVES:
        return None
    moving = [atom for atom in equation.invars if isinstance(atom, Var) and reading.of(atom).data]
    pairs = [roots.get(atom, (atom, False)) for atom in moving]
    mixed = any(reading.of(atom).params for atom in equation.invars if not reading.of(atom).data)
    if mixed or any(pair[0] is not pairs[0][0] for pair in pairs):
        return None
    return pairs[0][0], name in SIGMOIDS or any(pair[1] for pair in pairs)


def _compared_with_zero(reading: Reading, atom: Var | Literal) -> tuple[Var, int] | None:
    """(x, the case of `select_n` that x > 0 chooses) of a comparison of x with 0."""
    made = None if isinstance(atom, Literal) else reading.producer.get(atom)
    if made is None or made.primitive.name not in ("gt", "ge", "lt", "le"):
        return None
    one, two = made.invars
    greater = made.primitive.name in ("gt", "ge")
    if reading.is_constant(two, 0) and isinstance(one, Var):
        return one, int(greater)
    if reading.is_constant(one, 0) and isinstance(two, Var):
        return two, int(not greater)
    return None
