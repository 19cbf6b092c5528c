"""What all transforms share: each is a callable that stands for the function that it wraps."""

import functools
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from inspect import Parameter, Signature
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import minipcax.functional._refusals as refusals
from minipcax.core import RKG, BaseModule, BaseParam
from minipcax.core.tree import walk
from minipcax.functional._types import Function, Keywords

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
Instance = TypeVar("Instance")


class Transform(Generic[P, R]):
    """A function of pure positional and tracked keyword arguments, which behaves like the one that it wraps.

    As a method, it tracks `self`. Keywords that the function is bound to, or has as defaults, are tracked if they hold
    parameters, until a call gives others in their place.

    Raises:
        TypeError: a positional argument that the function is bound to holds parameters.
    """

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self._bound = _bound_keywords(fn)
        # An argument that a call gives by position takes the place of a default.
        by_position = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        names = [p.name for p in parameters_of(fn) if p.kind in by_position]
        self._positions = [name for name in names if name != "self"]
        self._of_self: bool = fn._of_self if isinstance(fn, Transform) else names[:1] == ["self"]
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function through the transform."""
        return self._transformed(args, self._keywords(args, kwargs) if self._bound else kwargs)  # type: ignore[no-any-return]  # JAX does not know what fn returns

    def _keywords(self, args: tuple[Any, ...], kwargs: Keywords) -> Keywords:
        """The keyword arguments of a call, with those that the function is bound to."""
        if isinstance(self.fn, Transform):  # which knows what a call replaces
            return self.fn._keywords(args, kwargs)
        given = self._given(args, kwargs)
        return {**{name: value for name, value in self._bound.items() if name not in given}, **kwargs}

    def _given(self, args: tuple[Any, ...], kwargs: Keywords) -> set[str]:
        """The names of the arguments of a call, by position or by keyword."""
        return {*self._positions[: len(args)], *kwargs}

    def _takes(self, *first: str, skip: int = 0) -> None:
        """Tells transforms around this one that a call has other positional arguments than the function."""
        with suppress(TypeError, ValueError):  # the signature of a builtin is not known
            rest = [*inspect.signature(self.fn).parameters.values()][skip:]
            self.__signature__ = Signature([*(Parameter(name, Parameter.POSITIONAL_ONLY) for name in first), *rest])

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        raise NotImplementedError

    def _call(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        """Calls the undecorated function. The keywords include what it is bound to: inside `run`, the copies."""
        return _call(self.fn, args, keywords)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: "Transform[Concatenate[Instance, Q], R]", instance: Instance, owner: type[Instance] | None = None
    ) -> Callable[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        # As for plain functions (https://docs.python.org/3/howto/descriptor.html), but `self` goes by name.
        return self._unbound if instance is None else functools.partial(self, self=instance)  # type: ignore[arg-type]  # `self` is a tracked keyword

    @functools.cached_property
    def _unbound(self) -> Any:  # `Self`, of a class that type checkers do not see
        """What a class returns: the transform itself, but `Counter.count(counter, x)` is `counter.count(x)`."""
        if not self._of_self:
            return self
        kind = type(self)
        unbound: Any = object.__new__(type(kind.__name__, (_Unbound, kind), {}))
        vars(unbound).update(vars(self))
        return unbound

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fn={describe(self.fn)})"


class _Unbound(Transform[P, R]):
    """A transform that takes `self` first, instead of by name."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> R:
        if args and "self" not in kwargs:
            args, kwargs = args[1:], {"self": args[0], **kwargs}
        return super().__call__(*args, **kwargs)


def _call(fn: Function, args: tuple[Any, ...], keywords: Keywords) -> Any:
    """Calls a function with its bound objects replaced. Only a transform takes `self` by name."""
    if isinstance(fn, functools.partial):
        return _call(fn.func, (*fn.args, *args), {**fn.keywords, **keywords})
    if isinstance(fn, BaseModule):
        return _call(type(fn).__call__, args, keywords)
    if "self" in keywords and not isinstance(fn, Transform):
        return getattr(fn, "__func__", fn)(
            keywords["self"], *args, **{k: v for k, v in keywords.items() if k != "self"}
        )
    return fn(*args, **keywords)


def _bound_keywords(fn: Function) -> Keywords:
    """Whatever a function is bound to that holds parameters, by keyword."""
    if isinstance(fn, functools.partial):
        if is_tracked(fn.args):
            raise refusals.bound_by_position(describe(fn))
        keywords = {**_bound_keywords(fn.func), **fn.keywords}
        return {name: value for name, value in keywords.items() if is_tracked(value)}
    if isinstance(fn, Transform):
        return fn._bound
    if isinstance(fn, BaseModule):
        return {**_bound_keywords(type(fn).__call__), "self": fn}
    if inspect.ismethod(fn) and is_tracked(fn.__self__):
        return {**_bound_keywords(fn.__func__), "self": fn.__self__}
    return {p.name: p.default for p in parameters_of(fn) if p.default is not p.empty and is_tracked(p.default)}


def decorator(name: str, make: Callable[[Function], Any]) -> Function:
    """The decorator returned by `grad(...)` or `vmap(...)`, which must not have been given the function already."""

    def decorate(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or not callable(args[0]):
            found = ", ".join([*(type(arg).__name__ for arg in args), *(f"{keyword}=..." for keyword in kwargs)])
            raise TypeError(
                f"{name}(...) expected the function to transform, found ({found}): the options come first, then the "
                f"function, {name}({{'model': mask}})(function)(x, model=model); above a function, write @{name}()"
            )
        return make(args[0])

    return decorate


def named_after(fn: Function, pure: Function) -> Function:
    """Gives a pure function the name of the user's, for the messages and profiles of JAX."""
    signature = inspect.signature(pure)  # by which JAX resolves static_argnums, and which the next line would replace
    functools.update_wrapper(pure, fn, updated=())
    pure.__name__ = pure.__qualname__ = getattr(fn, "__name__", type(fn).__name__)
    vars(pure)["__signature__"] = signature
    return pure


def parameters_of(fn: Function) -> Iterable[Parameter]:
    """The parameters of a function, as far as Python can tell."""
    try:
        return inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return ()


def is_tracked(value: object) -> bool:
    """Whether a value holds parameters or modules. Every call carries the key of `RKG` anyway."""
    return value is not RKG and any(isinstance(node, (BaseParam, BaseModule)) for _, node in walk(value))


def _innermost(fn: Function) -> Function:
    return _innermost(fn.func) if isinstance(fn, functools.partial) else fn


def describe(fn: Function) -> str:
    """The name of a function, with its default and bound arguments; the class of any other object."""
    if isinstance(_innermost(fn), Transform):
        return repr(_innermost(fn))
    if isinstance(fn, functools.partial):
        name = describe(fn.func).partition("(")[0]
        bound = [repr(value) for value in fn.args]
    elif inspect.isroutine(fn):
        name, bound = fn.__name__, []
    else:
        return type(fn).__name__
    defaults = [p.replace(annotation=p.empty) for p in parameters_of(fn) if p.default is not p.empty]
    arguments = ", ".join(filter(None, [*bound, str(Signature(defaults))[1:-1]]))
    return f"{name}({arguments})" if arguments else name
