"""What influences what: which inputs of a function its outputs are computed from, read off its jaxpr.

It errs on one side only: of a `while_loop`, every output counts as made from every input.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal

from minipcax.core.random import global_key

Sources = frozenset[str]  # of the inputs, by path
NONE: Sources = frozenset()
INLINED = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call"}


# Outputs and arguments are any pytrees; the answer has the structure of the output.
def influences(fn: Callable[..., Any], *args: Any) -> Any:
    """The output of a function, with the paths of the inputs that influence it in the place of each array.

    Example:
        >>> influences(lambda x, y: {"first": 2 * x, "none": 3.0}, 1.0, 2.0)
        {'first': frozenset({'[0]'}), 'none': frozenset()}
    """
    paths = [frozenset({jax.tree_util.keystr(path)}) for path, _ in jax.tree_util.tree_leaves_with_path(args)]

    def lent(*args: Any) -> Any:  # what is drawn on the way is not kept
        with global_key.lend(global_key.value):
            return fn(*args)

    closed, shapes = jax.make_jaxpr(lent, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(shapes), _flow(closed.jaxpr, paths))


def is_sources(node: object) -> bool:
    """Whether a node of such an answer stands for an array."""
    return isinstance(node, frozenset)


def union(found: object) -> Sources:
    """All that influences any of a tree of such answers."""
    return NONE.union(*jax.tree.leaves(found, is_leaf=is_sources))


def _flow(jaxpr: Any, inputs: Sequence[Sources]) -> list[Sources]:  # JAX has no public name for the type of a jaxpr
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
            outputs = _flow_of_scan(inner, sources, equation.params["num_consts"], equation.params["num_carry"])
        elif equation.primitive.name == "cond":
            branches = [_flow(branch.jaxpr, sources[1:]) for branch in equation.params["branches"]]
            outputs = [sources[0].union(*each) for each in zip(*branches, strict=True)]
        else:
            outputs = [NONE.union(*sources)] * len(equation.outvars)
        found.update(zip(equation.outvars, outputs, strict=True))
    return of(jaxpr.outvars)


def _flow_of_scan(step: Any, sources: Sequence[Sources], consts: int, carried: int) -> list[Sources]:
    """What influences the carry and the outputs of a loop: as much as it grows to from step to step."""
    carry, before = list(sources[consts : consts + carried]), None
    outputs: list[Sources] = []
    while carry != before:
        before = carry
        outputs = _flow(step, [*sources[:consts], *carry, *sources[consts + carried :]])
        carry = [one | other for one, other in zip(carry, outputs, strict=False)]
    return [*carry, *outputs[carried:]]
