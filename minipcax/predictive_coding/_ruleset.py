"""The rule language: what a value node does with what it is given and asked for, depending on its status.

Rules are strings under a status pattern, a regular expression that must match the whole status (`None` is ""):

    {
        STATUS.INIT: ("h, u <- u",),          # a u that is set goes to h and u
        STATUS.ALL: ("u <- u:relu:double",    # a u that is set goes through relu, then double, then to u
                     "e -> h:error"),         # e, when asked for, is error of h
    }

`tform(vode, key, value, rkg)` is a transformation; names after colons look them up. Keys match whole.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# tform(vode, key, value, rkg) -> value: values are arrays, and a node may hold any.
Tform = Callable[..., Any]
Rules = Mapping[str | None, Sequence[str]]


@dataclass(frozen=True)
class Rule:
    """One parsed rule: for an input rule, where the value of `key` goes; for an output rule, what `key` is made of."""

    status: re.Pattern[str]
    text: str
    key: str
    others: tuple[str, ...]
    tforms: tuple[tuple[str, Tform], ...]

    def matches(self, status: str | None, key: str) -> bool:
        """Whether the rule is about this key in this status."""
        return self.key == key and self.status.fullmatch(status or "") is not None


class Ruleset:
    """The rules of a node, parsed.

    Args:
        rules: by status pattern.
        tforms: the transformations that the rules name.

    Raises:
        TypeError: the rules of a status are not a sequence of strings.
        ValueError: a rule or pattern can not be parsed, or names an unknown transformation.
    """

    def __init__(self, rules: Rules, tforms: Mapping[str, Tform]) -> None:
        self.inputs: list[Rule] = []
        self.outputs: list[Rule] = []
        for status, texts in rules.items():
            if isinstance(texts, str):
                raise TypeError(f"the rules of status {status!r} must be a sequence of strings, found {texts!r}")
            for text in texts:
                self._parse(status or "", text, tforms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruleset) and (self.inputs, self.outputs) == (other.inputs, other.outputs)

    def __hash__(self) -> int:
        return hash((*self.inputs, *self.outputs))

    def _parse(self, status: str, text: str, tforms: Mapping[str, Tform]) -> None:
        try:
            pattern = re.compile(status)
        except re.error as error:
            raise ValueError(f"the status pattern {status!r} is not a regular expression: {error}") from error
        left, arrow, right = re.fullmatch(r"(.*?)(<-|->|$)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # it matches any text
        if not arrow:
            raise ValueError(
                f"can not parse the rule {text!r}: expected 'targets <- key:tform' or 'key -> source:tform'"
            )
        names = [name.strip() for name in left.split(",")]
        source, *chain = [name.strip() for name in right.split(":")]
        for name in (*names, source, *chain):
            if not name.isidentifier():
                raise ValueError(f"can not parse the rule {text!r}: expected a name, found {name!r}")
        for name in chain:
            if name not in tforms:
                raise ValueError(
                    f"the rule {text!r} names the transformation {name!r}, expected one of {sorted(tforms)}"
                )
        steps = tuple((name, tforms[name]) for name in chain)
        if arrow == "<-":
            self.inputs.append(Rule(pattern, text, source, tuple(names), steps))
        elif len(names) == 1:
            self.outputs.append(Rule(pattern, text, names[0], (source,), steps))
        else:
            raise ValueError(f"can not parse the rule {text!r}: expected one key before '->', found {len(names)}")

    def inputs_for(self, status: str | None, key: str) -> list[Rule]:
        """All input rules for a key that is set."""
        return [rule for rule in self.inputs if rule.matches(status, key)]

    def output_for(self, status: str | None, key: str) -> Rule | None:
        """The output rule for a key that is asked for, if there is one; a warning if there are several."""
        matching = [rule for rule in self.outputs if rule.matches(status, key)]
        if len(matching) > 1:
            warnings.warn(
                f"Multiple output rules match {key!r} in status {status!r}: {[rule.text for rule in matching]}; "
                "the first is used",
                stacklevel=3,
            )
        return matching[0] if matching else None
