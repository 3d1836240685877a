"""Names of things, looked for near a number: a word that says what the number is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from k9_broker.sensitive.reading import AFTER, BEFORE, WORD, Reading, joined


class _Name(NamedTuple):
    text: str
    longest_word: str
    begins: bool
    ends: bool

    def places(self, folded: str, low: int = 0, high: int | None = None) -> Iterator[tuple[int, int]]:
        """Where the name stands in the text, not as a part of a longer word."""
        high = len(folded) if high is None else high
        at = folded.find(self.text, low, high)
        while at >= 0:
            after = at + len(self.text)
            if not (self.begins and _is_letter(folded[at - 1 : at])) and not (
                self.ends and _is_letter(folded[after : after + 1])
            ):
                yield at, after
            at = folded.find(self.text, at + 1, high)


class Names:
    """Alternatives parted by `|`, in small letters, whole words unless `*` stands before or after one."""

    __slots__ = ("_names",)

    def __init__(self, names: str) -> None:
        self._names = tuple(map(_name, names.split("|")))

    def may_stand_in(self, folded: str) -> bool:
        """False when none stands in this text in small letters; quick, and right only in saying no."""
        return any(name.text in folded for name in self._names)

    def stand_in(self, folded: str) -> bool:
        """Whether one of the names stands in this text in small letters."""
        return any(name.text in folded and any(name.places(folded)) for name in self._names)

    def islands(self, reading: Reading, before: int = BEFORE, after: int = AFTER) -> list[tuple[int, int]]:
        """The islands of digits with one of the names at most so many characters before or after them.

        An island is digits and separators: a name can only stand outside it. As names are rare, and
        islands may be all there is, names are looked for first.
        """
        islands, named = reading.islands, set[int]()
        for begin, end in self._places_nearby(reading):
            following = bisect_left(islands, (end, 0))
            while following < len(islands) and islands[following][0] <= begin + before:
                named.add(following)
                following += 1
            preceding = bisect_left(islands, (begin, 0)) - 1
            while preceding >= 0 and islands[preceding][1] >= end - after:
                named.add(preceding)
                preceding -= 1
        return [islands[place] for place in sorted(named)]

    def _places_nearby(self, reading: Reading) -> Iterator[tuple[int, int]]:
        words = reading.words_nearby
        for name in self._names:
            if name.longest_word in words:
                for low, high in reading.surroundings:
                    yield from name.places(reading.lower_text, low, high)


def _name(written: str) -> _Name:
    name = written.strip("*")
    longest = max(WORD.findall(name), key=len)
    return _Name(name, longest, not written.startswith("*"), not written.endswith("*"))


def _is_letter(character: str) -> bool:
    """Whether a character, or none, continues a word of a script whose words have edges."""
    return character.isalpha() and not joined(character)
