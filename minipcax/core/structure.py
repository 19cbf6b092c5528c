"""Values inside the structure of a tree, which JAX compares and does not trace."""

from typing import Any


class Structure:
    """A value inside JAX's tree structure: two are equal if their types and values are. It need not be hashable."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = snapshot(value)

    def get(self) -> Any:
        """Returns the value: a copy, if it is a dict, list or set, which the receiver may change."""
        return snapshot(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Structure):
            return False
        if self._value is other._value:
            return True
        if _types(self._value) != _types(other._value):
            return False
        try:
            return bool(self._value == other._value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"a static value needs an == that gives one bool, but that of {type(self._value).__name__} does not; "
                "hold arrays in a Param instead"
            ) from error

    def __hash__(self) -> int:
        try:
            return hash(self._value)
        except TypeError:
            return hash(type(self._value))  # such values may share a hash: == tells them apart


def parts(value: object) -> list[Any] | None:
    """Returns what a dict, list, tuple or set holds, or `None` for anything else."""
    if isinstance(value, dict):
        return [*value.values()]
    return [*value] if isinstance(value, (list, tuple, set)) else None


def _types(value: object) -> Any:
    """Returns its type, and those of its parts: 1 and True are equal, but not the same. A dict or set has no order."""
    if isinstance(value, dict):
        return type(value), {key: _types(item) for key, item in value.items()}
    if isinstance(value, set):
        return type(value), {item: type(item) for item in value}
    return (type(value), [*map(_types, value)]) if isinstance(value, (list, tuple)) else type(value)


def snapshot(value: Any) -> Any:
    """Copies dicts, lists and sets, because JAX keeps structure, to compare it with that of later calls."""
    if type(value) is dict:
        return {key: snapshot(item) for key, item in value.items()}
    if type(value) in (list, set):
        return type(value)(map(snapshot, value))
    return value
