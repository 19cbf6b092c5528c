"""The rule language: what a value node does with the values it is given and asked for, depending on its status.

A rule such as "h, u <- u" or "e -> h:error" is parsed once, when the node is made; `Ruleset` explains the language.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minipcax.core import RandomKeyGenerator
from minipcax.predictive_coding._refusals import check_texts, not_a_rule

# tform(vode, key, value, rkg) -> value: a node may hold any value, and is defined after its rules.
Tform = Callable[[Any, str, Any, RandomKeyGenerator], Any]
Rules = Mapping[str | None, Sequence[str]]


@dataclass(frozen=True)
class Rule:
    """A parsed rule. `others` are the targets of `key` in an input rule, and its one source in an output rule."""

    status: re.Pattern[str]
    text: str
    key: str
    others: tuple[str, ...]
    tforms: tuple[Tform, ...]

    def matches(self, status: str | None, key: str) -> bool:
        """Whether the rule is about this key in this status."""
        return self.key == key and self.status.fullmatch(status or "") is not None

    def transform(self, vode: Any, value: Any, rkg: RandomKeyGenerator) -> Any:
        """Returns the value after all transformations, from left to right."""
        for tform in self.tforms:
            value = tform(vode, self.key, value, rkg)
        return value


class Ruleset:
    """The parsed rules of a value node: where it stores a value it is given, and what it returns when asked for one.

    Rules are strings, listed by status pattern, a regular expression that must match the whole status (`None` is ""):

        {
            STATUS.INIT: ("h, u <- u",),          # setting u sets h and u
            STATUS.ALL: ("u <- u:relu:double",    # setting u sets u to double(relu(u))
                         "e -> h:error"),         # getting e gives error(h)
        }

    In an input rule, `targets <- key:tform`, every rule that matches a key is used, in order; of several output rules,
    `key -> source:tform`, only the first is. The names after colons are transformations, applied from left to right.

    Args:
        rules: a dict from status pattern to a sequence of rules.
        tforms: a dict from name to transformation, a function `tform(vode, key, value, rkg)` that returns a value.

    Raises:
        TypeError: the rules of a status are not a sequence of strings.
        ValueError: a rule or pattern cannot be parsed, or names an unknown transformation.

    Example:
        >>> rules = Ruleset({STATUS.ALL: ("u <- u:half",)}, {"half": lambda vode, key, value, rkg: value / 2})
        >>> [rule.text for rule in rules.inputs_for(None, "u")]
        ['u <- u:half']
        >>> Vode(ruleset={STATUS.ALL: ("u <- u:half",)})
        Traceback (most recent call last):
        ValueError: cannot parse the rule 'u <- u:half': at column 8 expected the name of a transformation, ...
    """

    def __init__(self, rules: Rules, tforms: Mapping[str, Tform]) -> None:
        self.inputs: list[Rule] = []
        self.outputs: list[Rule] = []
        for status, texts in rules.items():
            check_texts(status, texts)
            for text in texts:
                self._parse(status or "", text, tforms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruleset) and (self.inputs, self.outputs) == (other.inputs, other.outputs)

    def __hash__(self) -> int:
        return hash((*self.inputs, *self.outputs))

    def _parse(self, status: str, text: str, tforms: Mapping[str, Tform]) -> None:
        try:
            pattern = re.compile(status, re.DOTALL)
        except re.error as error:
            raise ValueError(f"the status pattern {status!r} is not a regular expression: {error}") from error
        arrow = re.search("<-|->", text)
        if arrow is None:
            raise not_a_rule(text, len(text), "an arrow, as in 'targets <- key:tform' or 'key -> source:tform'")
        names = _names(text, 0, arrow.start(), ",")
        (source, _), *chain = _names(text, arrow.end(), len(text), ":")
        for name, place in chain:
            if name not in tforms:
                raise not_a_rule(text, place, f"the name of a transformation, one of {sorted(tforms)}")
        steps = tuple(tforms[name] for name, _ in chain)
        if arrow.group() == "<-":
            self.inputs.append(Rule(pattern, text, source, tuple(name for name, _ in names), steps))
        elif len(names) == 1:
            self.outputs.append(Rule(pattern, text, names[0][0], (source,), steps))
        else:
            raise not_a_rule(text, names[1][1], "only one key before '->'")

    def inputs_for(self, status: str | None, key: str) -> list[Rule]:
        """Returns the input rules that match a status and a key, in order."""
        return [rule for rule in self.inputs if rule.matches(status, key)]

    def output_for(self, status: str | None, key: str) -> Rule | None:
        """Returns the first output rule that matches a status and a key, or `None`; warns if there are several."""
        matching = [rule for rule in self.outputs if rule.matches(status, key)]
        if len(matching) > 1:
            warnings.warn(
                f"Multiple output rules match {key!r} in status {status!r}: {[rule.text for rule in matching]}; "
                "the first is used",
                stacklevel=4,  # the caller of `Vode.get`
            )
        return matching[0] if matching else None


def _names(text: str, start: int, end: int, separator: str) -> list[tuple[str, int]]:
    """Returns the names in a part of a rule, each with its position."""
    names = []
    for part in text[start:end].split(separator):
        name, place = part.strip(), start + len(part) - len(part.lstrip())
        if not name.isidentifier():
            raise not_a_rule(text, place, "a name")
        names.append((name, place))
        start += len(part) + len(separator)
    return names
