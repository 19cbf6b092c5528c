"""`step`: the status of a model, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from minipcax.core.extract import clear_params as clear_params_of
from minipcax.core.filter import Filter
from minipcax.core.refusals import kind_of
from minipcax.core.tree import walk
from minipcax.predictive_coding import EnergyModule
from minipcax.utils._mask import M

Status = str | None


@contextmanager
def step(
    model: object,
    status: Status | tuple[Status, Status] = None,
    *,
    clear_params: Filter | tuple[Filter | None, Filter | None] | None = None,
) -> Iterator[None]:
    """A context manager that sets the status of every energy module of a model, and restores it after the block.

    Args:
        model: the model, or any tree of models.
        status: the status, a string or `None`; or a pair (during, after), whose second element is set after the block
            unless it is `None`.
        clear_params: which parameters to set to `None` after the block: a class, a union of classes, a predicate or an
            `M`; or a pair (before, after) of these, where `None` clears none.

    Raises:
        TypeError: a status is neither a string nor `None`, or a filter is none of the above.
        ValueError: a pair does not have two elements, or the model has no energy modules.

    Example:
        >>> model = Vode()
        >>> with step(model, STATUS.INIT, clear_params=VodeParam.Cache):
        ...     _ = model(jnp.ones(2))
        >>> model.status, model.h, model.cache
        (None, VodeParam([2], float32), Cache(None))
    """
    for given in (status, clear_params):
        if isinstance(given, tuple) and len(given) != 2:
            raise ValueError(f"step expected a pair, found {given!r}")
    during, then = status if isinstance(status, tuple) else (status, None)
    before, after = clear_params if isinstance(clear_params, tuple) else (None, clear_params)
    if not all(isinstance(each, str | None) for each in (during, then)):
        raise TypeError(f"step expected a status, a string or None, or a pair of them, found {status!r}")
    modules = [(node, node.status) for _, node in walk(model) if isinstance(node, EnergyModule)]
    if not modules:
        raise ValueError(f"step expected a model, or models, with energy modules, found none in {kind_of(model)}")
    clear_before, clear_after = (M((lambda param: False) if filter is None else filter) for filter in (before, after))
    clear_params_of(model, clear_before)
    try:
        for module, _ in modules:
            module.status = during
        yield
    finally:
        for module, previous in modules:
            module.status = previous if then is None else then
        clear_params_of(model, clear_after)
