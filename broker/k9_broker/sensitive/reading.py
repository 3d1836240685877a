"""A text as the finders read it: one spelling for every digit, dash and space, and its cheap views.

The views exist for speed. A finder first asks one of them a question CPython answers with a memory
search (is there an `@`, a run of eight digits, a word of twenty characters), and looks closely, with
regular expressions and libraries, only where the answer was yes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property, lru_cache

BEFORE, AFTER = 60, 30
"""How many characters before and after a number are searched for its name."""
MOST_CANDIDATES = 2_000
"""So many places of one text are shown to a library; only a made-up text has more that all fail."""
# Scripts written without spaces, or, as Korean, with endings joined to the word: Thai to Khmer, kana,
# Han, Hangul. Between their characters no word begins or ends.
_JOINED_RANGES = (
    ("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1100", "\u11ff"), ("\u1780", "\u17ff"),
    ("\u3005", "\u30ff"), ("\u3130", "\u318f"), ("\u31f0", "\u31ff"), ("\u3400", "\u9fff"),
    ("\uac00", "\ud7af"), ("\U00020000", "\U0003ffff"),
)  # fmt: skip
JOINED = "".join(f"{low}-{high}" for low, high in _JOINED_RANGES)
"""The characters of these scripts, to stand in a set of a regular expression."""
# Sorting combining marks is quadratic in the length of their run; the Unicode stream-safe format
# (UAX #15, 13) allows 30, so a longer run is no human's text.
_MARKS = re.compile(r"[^\w\s\x00-\x7f]{64,}")
# Two characters stand for whole Arabic phrases, of 18 and 8 letters: they are read as spaces, as a text of
# them would grow as many times. No other is longer than this.
_LONGEST_EXPANSION = 6
# One replacement is quick, translation takes as long for one character as for a thousand.
_MOST_REPLACED = 32
_LONG_VOWEL = re.compile("(?<=[0-9])[\u30fc\uff70](?=[0-9])")
# Without ink, and not of the category of format characters: fillers, joiners, variation selectors.
_BLANKS = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))
)
_SHAPE = {
    code: "0" if chr(code).isdigit() else "A" if chr(code).isalpha() else chr(code) for code in range(128)
} | dict.fromkeys(map(ord, ".-/"), " ")
_RUNS = {code: "x" if chr(code).isalnum() or chr(code) in "_-" else " " for code in range(128)}
# The glance ahead turns away most numbers; possessive, so that none is read twice.
_ISLAND = re.compile(r"[0-9](?=[0-9 ().\-/]{7})[0-9]*+(?:[ ().\-/]{1,3}[0-9]++)*+")
_ISLAND_LENGTH = 8
WORD = re.compile("[a-z\x80-\U0010ffff]+")
"""A run of letters in a text in small letters; whatever is not ASCII counts as one."""


def normal(text: str) -> str:
    """`text` in NFKC, with ASCII digits and dashes, and without invisible characters."""
    if text.isascii():
        return text
    strange = {character for character in set(text) if character > "\x7f"}
    plain = {character: read for character in strange if (read := _plain(character)) != character}
    if len(plain) > _MOST_REPLACED:
        text = text.translate({ord(character): read for character, read in plain.items()})
    else:
        for character, read in plain.items():
            text = text.replace(character, read)
    if any(map(unicodedata.combining, strange)):
        text = _MARKS.sub(_without_stacked_marks, text)
    text = unicodedata.normalize("NFKC", text)
    # Japanese keyboards offer the long-vowel sign where a dash is meant.
    return _LONG_VOWEL.sub("-", text) if "\u30fc" in text else text


def joined(character: str) -> bool:
    """Whether a character is of a script in which words are not told apart by spaces."""
    return character > "\u0dff" and any(low <= character <= high for low, high in _JOINED_RANGES)


@lru_cache(maxsize=8_192)
def _plain(character: str) -> str:
    """What a character is read as: digits, dashes, line ends as in ASCII, the invisible as nothing."""
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    kind = unicodedata.category(character)
    if kind == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    if kind in ("Zl", "Zp") or character == "\u0085":
        return "\n"
    if kind == "Cf" or character in _BLANKS:
        return ""
    # By itself first: a text of such characters alone is then in NFKC, and normalising it costs nothing.
    normalized = unicodedata.normalize("NFKC", character)
    return normalized if len(normalized) <= _LONGEST_EXPANSION else " "


def _without_stacked_marks(run: re.Match[str]) -> str:
    return "".join(character for character in run[0] if not unicodedata.combining(character))


class Reading:
    """One text and its views, each made when first asked for. A place has the same offset in all."""

    def __init__(self, text: str) -> None:
        self.text = normal(text)

    @cached_property
    def ascii(self) -> str:
        """The text with `?` for whatever is not ASCII."""
        return self.text if self.text.isascii() else self.text.encode("ascii", "replace").decode("ascii")

    @cached_property
    def lower(self) -> str:
        """`ascii` in small letters."""
        return self.ascii.lower()

    @cached_property
    def lower_text(self) -> str:
        """As `lower`, with the letters that are not ASCII."""
        # The one letter whose small form is two characters would move every place after it.
        return self.lower if self.text.isascii() else self.text.replace("\u0130", "i").lower()

    @cached_property
    def shape(self) -> str:
        """Every digit as `0`, every letter as `A`, dots, dashes and slashes as spaces, the rest as it is."""
        return self.ascii.translate(_SHAPE)

    @cached_property
    def runs(self) -> str:
        """`x` for letters, digits, `_` and `-`; a space for everything else."""
        return self.ascii.translate(_RUNS)

    @cached_property
    def islands(self) -> tuple[tuple[int, int], ...]:
        """Where digits stand together, eight characters or more, parted by brackets, dots, dashes, spaces."""
        spans = (match.span() for match in _ISLAND.finditer(self.ascii))
        return tuple((start, end) for start, end in spans if end - start >= _ISLAND_LENGTH)

    @cached_property
    def surroundings(self) -> tuple[tuple[int, int], ...]:
        """The islands and what stands so near them that it may name them; where two meet, as one."""
        merged: list[tuple[int, int]] = []
        low, high = 0, -1
        for start, end in self.islands:
            if start - BEFORE > high:
                merged.append((low, high))
                low = max(0, start - BEFORE)
            high = end + AFTER
        merged.append((low, high))
        return tuple(span for span in merged if span[1] >= 0)

    @cached_property
    def shape_nearby(self) -> str:
        """The shape of the surroundings: an outline of eight digits or more that is not in it is nowhere."""
        return "\n".join(self.shape[low:high] for low, high in self.surroundings)

    def begin_with(self, needle: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """What matches the pattern where in the shape the needle stands.

        A match begins with the word in which the needle begins, at most 20 characters before it.
        """
        shape, first_word = self.shape, len(needle) - len(needle.lstrip("0A"))
        at = shape.find(needle)
        while at >= 0:
            begin = at
            if at and shape[at - 1] in "0A":
                begin = max(0, at - 20)
                begin += len(shape[begin:at].rstrip("0A"))
            match = pattern.match(self.ascii, begin)
            if match is not None:
                yield match
            at = shape.find(needle, at + first_word)

    @cached_property
    def words_nearby(self) -> str:
        """Every word of the surroundings once, one in a line: what is not in it names no island."""
        words = (WORD.findall(self.lower_text, low, high) for low, high in self.surroundings)
        return "\n".join(set().union(*words))

    def beside(self, start: int, end: int) -> str:
        """What stands before and after a place, in small letters, without what stands in it."""
        text = self.lower_text
        return f"{text[max(0, start - BEFORE) : start]} {text[end : end + AFTER]}"
