"""Influence: the inputs of a function that each of its outputs is computed from, read from its jaxpr.

It errs on one side only: every output of a `while_loop` counts as computed from every input.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal

from minipcax.core.random import global_key, lend_key

Sources = frozenset[str]  # of the inputs, by path
NONE: Sources = frozenset()
INLINED = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call"}


# Arguments and outputs are any pytrees; the answer has the structure of the output.
def influences(fn: Callable[..., Any], *args: Any) -> Any:
    """Returns the output of a function, with each array replaced by the paths of the inputs that influence it.

    Example:
        >>> influences(lambda x, y: {"first": 2 * x, "none": 3.0}, 1.0, 2.0)
        {'first': frozenset({'[0]'}), 'none': frozenset()}
    """
    paths = [frozenset({jax.tree_util.keystr(path)}) for path, _ in jax.tree_util.tree_leaves_with_path(args)]

    def lent(*args: Any) -> Any:  # draws leave no trace in the global key
        with lend_key(global_key.value):
            return fn(*args)

    closed, shapes = jax.make_jaxpr(lent, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(shapes), _flow(closed.jaxpr, paths))


def is_sources(node: object) -> bool:
    """Whether a node of such an answer is a leaf, in the place of an array."""
    return isinstance(node, frozenset)


def union(found: object) -> Sources:
    """Returns everything that influences any leaf of such an answer."""
    return NONE.union(*jax.tree.leaves(found, is_leaf=is_sources))


def _flow(jaxpr: Any, inputs: Sequence[Sources]) -> list[Sources]:  # the type of a jaxpr has no public name
    found = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(variables: Sequence[Any]) -> list[Sources]:
        return [NONE if isinstance(variable, Literal) else found.get(variable, NONE) for variable in variables]

    for equation in jaxpr.eqns:
        sources = of(equation.invars)
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if equation.primitive.name in INLINED and len(getattr(inner, "invars", ())) == len(sources):
            outputs = _flow(inner, sources)
        elif equation.primitive.name == "scan":
            # By their ranks, for JAX has changed the names of its parameters: what a scan loops over has an axis more.
            carried = sum(map(_same_rank, inner.outvars, equation.outvars))
            consts = sum(map(_same_rank, inner.invars, equation.invars)) - carried
            outputs = _flow_of_scan(inner, sources, consts, carried)
        elif equation.primitive.name == "cond":
            branches = [_flow(branch.jaxpr, sources[1:]) for branch in equation.params["branches"]]
            outputs = [sources[0].union(*each) for each in zip(*branches, strict=True)]
        else:
            outputs = [NONE.union(*sources)] * len(equation.outvars)
        found.update(zip(equation.outvars, outputs, strict=True))
    return of(jaxpr.outvars)


def _same_rank(one: Any, other: Any) -> bool:
    return len(getattr(one.aval, "shape", ())) == len(getattr(other.aval, "shape", ()))


def _flow_of_scan(step: Any, sources: Sequence[Sources], consts: int, carried: int) -> list[Sources]:
    """Returns the influences on the carry and the outputs of a loop, which grow from step to step up to a limit."""
    carry, before = list(sources[consts : consts + carried]), None
    outputs: list[Sources] = []
    while carry != before:
        before = carry
        outputs = _flow(step, [*sources[:consts], *carry, *sources[consts + carried :]])
        carry = [one | other for one, other in zip(carry, outputs, strict=False)]
    return [*carry, *outputs[carried:]]
