"""The shape that all transforms share: a callable that stands for the function it wraps."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from minipcax.core import BaseModule, BaseParam
from minipcax.core._tree import walk
from minipcax.functional._tracking import Keywords, Skeleton, Value, run

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
Instance = TypeVar("Instance")


class Transform(Generic[P, R]):
    """A function of pure positional and tracked keyword arguments, which behaves as the one it wraps.

    As a method, it tracks `self`. Keywords that the function was bound to, or has as defaults, are tracked when they
    hold parameters.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:  # what fn returns is not always what the transform returns
        self.fn = fn
        self._bound: Keywords = {}
        self._target = fn
        if isinstance(fn, functools.partial):
            self._bound = {name: value for name, value in fn.keywords.items() if _holds_params(value)}
            rest = {name: value for name, value in fn.keywords.items() if name not in self._bound}
            self._target = functools.partial(fn.func, *fn.args, **rest) if fn.args or rest else fn.func
        elif inspect.ismethod(fn) and _holds_params(fn.__self__):
            self._bound, self._target = {"self": fn.__self__}, fn.__func__
        elif isinstance(fn, BaseModule):
            self._bound, self._target = {"self": fn}, type(fn).__call__
        if inspect.isfunction(self._target):
            defaults = self._target.__kwdefaults__ or {}
            self._bound |= {name: value for name, value in defaults.items() if _holds_params(value)}
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function through the transform."""
        keywords = {**self._bound, **kwargs} if self._bound else kwargs
        return self._transformed(args, keywords)  # type: ignore[no-any-return]  # JAX does not know what fn returns

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        raise NotImplementedError  # each transform has its own

    def _call(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        """The plain function; a method gets its `self` first, unless another transform is there to track it."""
        if "self" in keywords and not isinstance(_innermost(self._target), Transform):
            return self._target(keywords.pop("self"), *args, **keywords)
        return self._target(*args, **keywords)

    def _run(
        self, skeleton: Skeleton, values: Sequence[Value], args: tuple[Any, ...]
    ) -> tuple[Any, list[Value], frozenset[int]]:
        return run(self._call, skeleton, values, args)

    def __get__(
        self: "Transform[Concatenate[Instance, Q], R]", instance: Instance, owner: type[Instance] | None = None
    ) -> Callable[Q, R]:
        if instance is None:
            return self  # type: ignore[return-value]  # looked up on the class, it is the function itself
        return functools.partial(self, self=instance)  # type: ignore[arg-type]  # `self` is a tracked keyword

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fn={_describe(self.fn)})"


def _innermost(fn: Callable[..., Any]) -> Callable[..., Any]:
    return _innermost(fn.func) if isinstance(fn, functools.partial) else fn


def _holds_params(value: object) -> bool:
    return any(isinstance(node, BaseParam) for _, node in walk(value))


def _describe(fn: Callable[..., Any]) -> str:
    """A function's name with its default and bound arguments; an object's class name."""
    if isinstance(_innermost(fn), Transform):
        return repr(_innermost(fn))
    if isinstance(fn, functools.partial):
        name = _describe(fn.func).partition("(")[0]
        bound = [repr(value) for value in fn.args]
    elif inspect.isroutine(fn):
        name, bound = fn.__name__, []
    else:
        return type(fn).__name__
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not say
        parameters = {}.values()
    keyword_only = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    others = [p for p in parameters if p.kind is not p.KEYWORD_ONLY and p.default is not p.empty]
    arguments = bound + [f"{p.name}={p.default!r}" for p in others]
    if keyword_only:
        arguments += ["*", *(f"{p.name}={p.default!r}" for p in keyword_only)]
    return f"{name}({', '.join(arguments)})" if arguments else name
