"""What JAX does not trace: values inside the structure of a tree, which it compares."""

from typing import Any


class Structure:
    """A value inside JAX's tree structure: equal to another when type and value are. It need not be hashable."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:  # anything at all
        self._value = snapshot(value)

    def get(self) -> Any:
        """The value, for someone who may change what it holds."""
        return snapshot(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Structure) or type(self._value) is not type(other._value):
            return False
        if self._value is other._value:
            return True
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
            return hash(type(self._value))


def snapshot(value: Any) -> Any:
    """The same value, which does not change when its container does: JAX keeps structure to compare with later ones."""
    if type(value) is dict:
        return {key: snapshot(item) for key, item in value.items()}
    if type(value) in (list, set):
        return type(value)(map(snapshot, value))
    return value
