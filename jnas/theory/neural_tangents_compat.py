"""neural-tangents 0.6.5 on today's JAX: `import jnas; import neural_tangents` is all that a user writes.

neural-tangents (Novak, Xiao, Hron, Lee, Alemi, Sohl-Dickstein, Schoenholz, 2020,
https://arxiv.org/abs/1912.02803; fast finite-width kernels: Novak, Sohl-Dickstein, Schoenholz, 2022,
https://arxiv.org/abs/2206.08720) stopped at JAX 0.4. Its modules are adapted while they are imported: a
finder on `sys.meta_path` compiles their source after the substitutions listed in `ADAPTATIONS`. JAX itself is
not touched, so no other code sees a difference, and the adapted bytecode is never written to disk, so neither
does a process without jnas.

Departures from the release:
- `neural_tangents.experimental` is empty (it imports TensorFlow and tf2jax).
- STRUCTURED_DERIVATIVES walks the jaxpr made by `jnas.theory.linear_jaxpr` instead of `ad.linearize`'s, which
  additionally gives it `jax.checkpoint`, `jnp.split` and functions that `jax.custom_vjp` defines.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import CodeType, ModuleType

SUPPORTED_JAX = ((0, 7, 2), (0, 13))  # from, up to but without; the range of `jax` in pyproject.toml
SUPPORTED_NEURAL_TANGENTS = "0.6.5"

Substitutions = tuple[tuple[str, str], ...]

_EXTEND_CORE: Substitutions = tuple(
    (f"from jax.core import {name}\n", f"from jax.extend.core import {name}\n")
    for name in ("Jaxpr", "JaxprEqn", "Literal", "Var")
)

_PREDICT_IMPORTS = (
    "from contextlib import nullcontext; from functools import lru_cache; "
    "from jnas.theory.neural_tangents_runtime import once_outside_traces as once_outside\n"
)

ADAPTATIONS: Mapping[str, Substitutions] = {
    "neural_tangents": (),
    "neural_tangents.experimental": (
        ("from .empirical_tf.empirical import empirical_ntk_fn_tf\n", ""),
        ("from .empirical_tf.empirical import get_apply_fn_and_params\n", ""),
    ),
    "neural_tangents._src.empirical": (
        *_EXTEND_CORE,
        (
            "from jax.extend import linear_util as lu\n",
            "from jnas.theory import linear_jaxpr as _linear\n",
        ),
        (
            "from jax.util import safe_map as map\nfrom jax.util import safe_zip as zip\n",
            "from jnas.theory.neural_tangents_runtime import strict_map as map\n"
            "from jnas.theory.neural_tangents_runtime import strict_zip as zip\n",
        ),
        ("    prim: core.Primitive,\n", "    prim: jax.extend.core.Primitive,\n"),
        # `ad.linearize` has another signature in every JAX release and keeps calls; once serves both modes.
        (
            '  """Computes primitive output cotangents (`df/dy`) and Jacobians (`dy/dw`)."""\n',
            "  fn = _linear.linear_jaxpr(fn, params)\n",
        ),
        (
            "  fn_flat, out_tree = jax.api_util.flatten_fun_nokwargs(\n      lu.wrap_init(fn), in_tree)\n",
            "",
        ),
        (
            "  with jax.disable_jit():\n    outs = ad.linearize(fn_flat, *primals_in_flat, has_aux=False)\n\n"
            "  primals_out, pvals, jaxpr, consts = outs\n"
            "  primals_out = tree_unflatten(out_tree(), primals_out)\n",
            "  primals_out, is_linear, closed = fn\n  jaxpr, consts = closed.jaxpr, closed.consts\n",
        ),
        (
            "tuple(ct for ct, pval in zip(cts_in, pvals) if not pval.is_known())",
            "tuple(ct for ct, linear in zip(cts_in, is_linear) if linear)",
        ),
        # `ad` no longer re-exports the internals that named the equations of the backward pass.
        ("ctx = ad.source_info_util.transform_name_stack('transpose')", "ctx = jax.named_scope('transpose')"),
        (
            """  name_stack = (ad.source_info_util.current_name_stack() +
                eqn.source_info.name_stack)
  with ad.source_info_util.user_context(eqn.source_info.traceback,
                                        name_stack=name_stack):
    if eqn.primitive.call_primitive or eqn.primitive.map_primitive:
      cts_in_avals = [v.aval for v in eqn.outvars]
      params = dict(eqn.params)
      call_jaxpr = params.pop('call_jaxpr')
      cts_out = ad.get_primitive_transpose(eqn.primitive)(
          params, call_jaxpr, invals, cts_in, cts_in_avals, ())
    elif eqn.primitive in ad.reducing_transposes:
      cts_out = ad.reducing_transposes[eqn.primitive](
          (), (cts_in,), *invals, **eqn.params)
    else:
      cts_out = ad.get_primitive_transpose(eqn.primitive)(cts_in, *invals,
                                                          **eqn.params)
  return cts_out
""",
            "  return _linear.transpose(eqn, cts_in, *invals)\n",
        ),
        (
            """  if ad.config.jax_enable_checks:
    ct_aval = core.get_aval(ct_env[v])
    joined_aval = core.lattice_join(
        v.aval, ct_aval).strip_weak_type().strip_named_shape()
    assert v.aval.strip_weak_type().strip_named_shape() == joined_aval, (
        prim, v.aval, ct_aval)
""",
            "",
        ),
        # Arrays of dynamic shape left JAX.
        (
            """  if type(a) is core.DShapedArray:
    shape = [env[d] if type(d) is core.Var else d for d in a.shape]
    a = a.update(shape=tuple(shape))
""",
            "",
        ),
        # Every equation depends on the inputs here; searching for those that do recurses once a layer.
        (
            "  visit(set(jaxpr.invars))\n",
            "  need_cts.update(variable for eqn in jaxpr.eqns for variable in eqn.outvars)\n",
        ),
        # `jnp.size` and `jnp.shape` refuse descriptions of arrays, `jnp.dtype` refuses arrays.
        ("  ndim = sum(map(jnp.size, leaves))\n", "  ndim = sum(map(utils.size_at, leaves))\n"),
        ("arr.shape[:axis] + jnp.shape(l) + arr.shape", "arr.shape[:axis] + l.shape + arr.shape"),
        (
            "np.cumsum([jnp.size(l) for l in leaves[:-1]])",
            "np.cumsum([utils.size_at(l) for l in leaves[:-1]])",
        ),
        ("tree_map(jnp.dtype, params)", "tree_map(lambda x: x.dtype, params)"),
        # `cost_analysis` of a compiled program returns the dictionary itself.
        ("e.compile().cost_analysis()[0]", "e.compile().cost_analysis()"),
    ),
    "neural_tangents._src.utils.rules": (
        *_EXTEND_CORE,
        ("from jax.core import Primitive\n", "from jax.extend.core import Primitive\n"),
        # Unused by JAX since 0.4.24 and removed since.
        (
            "STRUCTURE_RULES[jax.interpreters.ad.zeros_like_p] = _eye_s\n"
            "JACOBIAN_RULES[jax.interpreters.ad.zeros_like_p] = _zeros_like_j\n",
            "",
        ),
    ),
    "neural_tangents._src.predict": (
        ("from functools import lru_cache\n", _PREDICT_IMPORTS),
        *(
            (
                f"  @lru_cache(1)\n  def {name}():\n    with jax.core.eval_context():\n",
                f"  @once_outside(k_train_train, diag_reg)\n  def {name}():\n    with nullcontext():\n",
            )
            for name in ("get_predict_fn_inf", "get_predict_fn_finite")
        ),
        # SciPy 1.14 removed `eigvals`.
        (
            """                                 eigvals=(ntk_train_train.shape[0] - 1,  # pytype: disable=attribute-error  # jax-ndarray
                                          ntk_train_train.shape[0] - 1))[-1]  # pytype: disable=attribute-error  # jax-ndarray
""",  # noqa: E501
            """                                 subset_by_index=(ntk_train_train.shape[0] - 1,
                                                  ntk_train_train.shape[0] - 1))[-1]
""",
        ),
    ),
}


class AdaptedLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its source after `substitutions`, each of which must match exactly once."""

    def __init__(self, fullname: str, path: str, substitutions: Substitutions) -> None:
        super().__init__(fullname, path)
        self._substitutions = substitutions

    def get_source(self, fullname: str) -> str:
        source = importlib.util.decode_source(self.get_data(self.path))
        for old, new in self._substitutions:
            if source.count(old) != 1:
                raise ImportError(
                    f"{self.path} is not of neural-tangents {SUPPORTED_NEURAL_TANGENTS}, which jnas adapts: "
                    f"pip install neural-tangents=={SUPPORTED_NEURAL_TANGENTS}",
                    name=fullname,
                    path=self.path,
                )
            kept_lines = "\n" * (old.count("\n") - new.count("\n"))  # tracebacks show the file on disk
            source = source.replace(old, new + kept_lines)
        return source

    def exec_module(self, module: ModuleType) -> None:
        """Raises `ImportError` naming the range where the installed JAX is outside `SUPPORTED_JAX`."""
        import jax

        low, high = (".".join(map(str, version)) for version in SUPPORTED_JAX)
        if not SUPPORTED_JAX[0] <= jax.__version_info__ < SUPPORTED_JAX[1]:
            raise ImportError(
                f"neural-tangents {SUPPORTED_NEURAL_TANGENTS} under jnas works on JAX >={low},<{high}, not on "
                f"JAX {jax.__version__}: pip install 'jax>={low},<{high}'",
                name="neural_tangents",
            )
        super().exec_module(module)

    def get_code(self, fullname: str) -> CodeType:
        # The inherited method would read and write __pycache__, which belongs to the source as released.
        return compile(self.get_source(fullname), self.path, "exec", dont_inherit=True)


class AdaptingFinder:
    """Finds the modules named in `adaptations` where Python would, and hands them to `AdaptedLoader`."""

    def __init__(self, adaptations: Mapping[str, Substitutions]) -> None:
        self._adaptations = adaptations

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._adaptations:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        if fullname == "neural_tangents" and target is None:
            # Modules of an import that failed before jnas was imported are not adapted.
            for name in [name for name in sys.modules if name.startswith("neural_tangents.")]:
                del sys.modules[name]
        spec.loader = AdaptedLoader(fullname, spec.origin, self._adaptations[fullname])
        return spec


def install() -> None:
    """Make later imports of `neural_tangents` load the adapted modules; a second call changes nothing."""
    if not any(isinstance(finder, AdaptingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AdaptingFinder(ADAPTATIONS))
