"""Types of what is used of tqdm, which ships none."""

from collections.abc import Iterable, Iterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

class tqdm(Generic[Item]):
    n: int
    def __init__(
        self,
        iterable: Iterable[Item],
        desc: str | None = None,
        leave: bool = True,
        disable: bool | None = False,
        unit: str = "it",
    ) -> None: ...
    def __iter__(self) -> Iterator[Item]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def set_postfix(self, **values: str) -> None: ...
    def set_postfix_str(self, s: str) -> None: ...
