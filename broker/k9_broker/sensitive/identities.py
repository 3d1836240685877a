"""Personal numbers given by states: `identity_table` says which, this says whether one is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from itertools import islice

from k9_broker.sensitive import identity_checks
from k9_broker.sensitive.identity_table import FORMS, LONG_NEEDLES, SHORT_NEEDLES, Form
from k9_broker.sensitive.names import Names
from k9_broker.sensitive.reading import MOST_CANDIDATES, Reading

_BEFORE = r"(?<!\w)(?<![0-9][.,/+:=-])(?<!\w[/-])"
_AFTER = r"(?!\w)(?![.,/:=-][0-9])(?!-\w)"

_MOST_ALONE = 10 * MOST_CANDIDATES
"""A number told by its form alone is sought for longer: where so many fail, the text is a table of others."""


class _Sought:
    """A form with its expressions compiled."""

    __slots__ = ("form", "names", "shape")

    def __init__(self, form: Form) -> None:
        self.form = form
        self.shape = re.compile(f"{_BEFORE}(?:{form.shape}){_AFTER}")
        self.names = Names(form.names) if form.names else None

    def passes(self, number: str) -> bool:
        return not self.form.check or _check(self.form.check)(number)


@cache
def _outlined() -> tuple[_Sought, ...]:
    """The forms that the outline of a text tells."""
    return tuple(_Sought(form) for form in FORMS if form.needles)


@cache
def _named() -> tuple[tuple[_Sought, Names], ...]:
    """The forms that only a name beside them tells."""
    sought = (_Sought(form) for form in FORMS if not form.needles)
    return tuple((one, one.names) for one in sought if one.names is not None)


def found(reading: Reading) -> bool:
    """Whether the number of a person stands in the text."""
    return _outlined_found(reading) or (bool(reading.islands) and _named_found(reading))


def _outlined_found(reading: Reading) -> bool:
    needles = {needle for needle in SHORT_NEEDLES if needle in reading.shape}
    needles.update(needle for needle in LONG_NEEDLES if needle in reading.shape_nearby)
    return bool(needles) and any(
        sought.passes(match[0])
        and (sought.names is None or sought.names.stand_in(reading.beside(*match.span())))
        for sought in _outlined()
        if not needles.isdisjoint(sought.form.needles)
        if sought.names is None or sought.names.may_stand_in(reading.lower_text)
        for needle in needles.intersection(sought.form.needles)
        for match in islice(reading.begin_with(needle, sought.shape), _MOST_ALONE)
    )


def _named_found(reading: Reading) -> bool:
    return any(
        sought.passes(match[0])
        for sought, names in _named()
        for match in islice(_beside_names(reading, sought.shape, names), MOST_CANDIDATES)
    )


def _beside_names(reading: Reading, shape: re.Pattern[str], names: Names) -> Iterator[re.Match[str]]:
    text = reading.ascii
    for start, end in names.islands(reading):
        # Room for the letter that some numbers end with.
        yield from shape.finditer(text, start, min(len(text), end + 4))


@cache
def _check(name: str) -> Callable[[str], bool]:
    check: Callable[[str], bool] = (
        import_module(f"stdnum.{name}").is_valid if "." in name else getattr(identity_checks, name)
    )
    return check
