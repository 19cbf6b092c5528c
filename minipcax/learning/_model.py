"""A model, as the algorithms see it: its nodes, its weights, and the part of it that belongs to one sample."""

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float

from minipcax.core import RKGState, get, tree_apply, tree_extract, tree_inject
from minipcax.core.random import keeping_key
from minipcax.core.tree import path_name, walk
from minipcax.functional import Vmap, vmap
from minipcax.nn import BatchNorm, LayerParam
from minipcax.predictive_coding import STATUS, EnergyModule, Vode, VodeParam
from minipcax.utils import M

P = ParamSpec("P")
R = TypeVar("R")

NODES = M(VodeParam).hasnot(frozen=True)
WEIGHTS = M(LayerParam).hasnot(frozen=True)
# The parameters that belong to one sample, and so have an axis of samples.
PER_SAMPLE = M(VodeParam | VodeParam.Cache)

# Any pytrees: each model decides what its samples, targets and predictions are. A batch has one axis more, the first.
Sample = Any
Batch = Any
Gradients = Any  # a tree like the model, with gradients in the places of the selected values
Number = float | Float[Array, ""]


@runtime_checkable
class Model(Protocol):
    """The interface of a model that the algorithms use: any `EnergyModule` with a `__call__` has it.

    Example:
        >>> isinstance(ResidualNetwork(2, 4, 1, depth=2), Model), isinstance(Linear(2, 1), Model)
        (True, False)
    """

    def __call__(self, x: Sample, y: Sample = None, /) -> Sample:
        """Returns the prediction for one sample `x`; sets the observed nodes to the target `y` unless it is `None`."""
        ...

    def nodes(self) -> dict[str, EnergyModule]:
        """Returns the modules with an energy of their own, by path, from input to output."""
        ...


def over_batch(fn: Callable[P, R]) -> Vmap[P, R]:
    """Maps a function of one sample over a batch: a `vmap` over its arguments and over the states of `model`.

    The axis is named "batch", for layers such as `BatchNorm`.

    Args:
        fn: a function of the arrays of one sample, by position, and of a model, by the keyword `model`.

    Returns:
        The function of a batch: its arguments, the states of the nodes, and its results have a leading axis of samples.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> @over_batch
        ... def squares(x, *, model):
        ...     model(x)
        ...     return (model.vode.h ** 2).sum()
        >>> squares(x, model=model).shape
        (5,)
    """
    return vmap({"model": PER_SAMPLE.to((None, 0))}, axis_name="batch")(fn)


def over_samples(fn: Callable[..., R], name: str) -> Callable[..., R]:
    """Maps a function of one sample, like `over_batch`, where it must not depend on other samples.

    Raises:
        ValueError: a layer looks across samples.
    """
    mapped = vmap({"model": PER_SAMPLE.to((None, 0))})(fn)  # without a name for the axis

    def alone(x: Batch, *, model: Model) -> R:
        try:
            return mapped(x, model=model)
        except NameError as error:
            if "axis name" not in str(error):
                raise
            raise ValueError(
                f"{name} expected samples that do not see each other, found a layer that looks across them: {error}"
            ) from error

    return alone


def keeping_keys(fn: Callable[[Model], R], model: Model) -> Callable[[Model], R]:
    """Returns the function with the present keys of `RKG` and of the model's own generators: it draws the same in every
    call, whatever the gradient, which is taken in between, has drawn.
    """
    own = M(RKGState).apply
    keys = tree_extract(model, extract_fn=get, filter_fn=own)

    def keyed(copy: Model) -> R:
        tree_inject(copy, values=keys, filter_fn=own)
        return fn(copy)

    return keeping_key(keyed)


def status_of(model: Model) -> str | None:
    """Returns the status in which the model infers: the present one, but not `STATUS.INIT`, which makes states anew."""
    status: str | None = getattr(model, "status", None)
    return None if status == STATUS.INIT else status


def split_nodes(model: Model) -> tuple[dict[str, Vode[Any]], dict[str, Vode[Any]]]:
    """Returns the inferred nodes, and the observed ones (`h.frozen = True`), by path, from input to output."""
    nodes = vodes(model)
    inferred = {path: node for path, node in nodes.items() if not node.h.frozen}
    return inferred, {path: node for path, node in nodes.items() if path not in inferred}


def vodes(model: Model) -> dict[str, Vode[Any]]:
    """Returns the value nodes by path, from input to output."""
    return {path_name(path): node for path, node in walk(model) if isinstance(node, Vode)}


def keep_statistics(model: Model) -> None:
    """Freezes running statistics; inside a transform, so that it does not outlast it."""
    tree_apply(BatchNorm.eval, lambda node: isinstance(node, BatchNorm), model)


def energy_function(node: Vode[Any]) -> object:
    """Returns the energy function of a node without bound arguments: `se_energy` for `partial(se_energy, ...)`."""
    return getattr(node.energy_fn, "func", node.energy_fn)
