"""Text to token ids: BERT's uncased basic tokenizer and greedy WordPiece.

Source of the rules: "BERT: Pre-training of Deep Bidirectional Transformers" (Devlin et al., 2018)
and its published tokenizer. Python's Unicode tables are newer than the reference's, so some
hundreds of rare characters (punctuation and marks assigned since) split differently; the model
knows none of them. One table, filled as characters are met, holds what cleaning, accent
stripping, lower-casing and splitting make of each character; one dictionary holds the pieces of
each word met. Both make a second text of the same language cheap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from unicodedata import category, normalize

from k9_broker.errors import ConfigurationError
from k9_broker.minilm import GET_AGAIN

MAX_TOKENS: Final = 256
"""Tokens of one text, the first and last marker included; the rest is cut off, as the reference does."""

MAX_WORD: Final = 100
"""Characters; a longer word is one unknown token."""

CACHED_WORDS: Final = 50_000
"""Words remembered, so that memory stays flat whatever is sent."""

MARKERS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_MARKER = re.compile("(" + "|".join(map(re.escape, MARKERS)) + ")")
_PIECE = re.compile(r".{1,4096}[^ \n\t]*", re.DOTALL)

_IDEOGRAPHS: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class _Characters(dict[int, str]):
    """For `str.translate`: what becomes of each character, worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        text = self[code] = _normalized(chr(code))
        return text


def _normalized(character: str) -> str:
    if character in "\t\n\r":
        return " "
    # 0xFFFD stands for undecodable bytes; the model has never seen either of these.
    if character == "\ufffd" or category(character) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    bare = "".join(part for part in normalize("NFD", character) if category(part) != "Mn").lower()
    spaced = "".join(_spaced(part) for part in bare)
    return f" {spaced} " if _is_ideograph(character) else spaced


def _spaced(part: str) -> str:
    if part.isspace():
        return " "
    ascii_symbol = part.isascii() and part.isprintable() and not part.isalnum()
    return f" {part} " if ascii_symbol or category(part).startswith("P") else part


def _is_ideograph(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)


class WordPiece:
    """The tokenizer of one vocabulary. Threads may share it: what one adds to the tables suits all."""

    def __init__(self, tokens: Sequence[str], limit: int = MAX_TOKENS) -> None:
        """`tokens` in the order of their ids, the markers among them; `limit` counts those at both ends."""
        self._ids = {token: number for number, token in enumerate(tokens)}
        self._first, self._last = self._ids["[CLS]"], self._ids["[SEP]"]
        self._unknown = (self._ids["[UNK]"],)
        self._limit = limit
        self._characters = _Characters()
        self._words: dict[str, tuple[int, ...]] = {}

    @classmethod
    def load(cls, path: Path, size: int, limit: int = MAX_TOKENS) -> WordPiece:
        """Read a `vocab.txt` of `size` tokens, one a line.

        Raises `ConfigurationError` when it cannot be read or is another model's.
        """
        try:
            tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}). {GET_AGAIN}") from None
        if len(tokens) != size or not set(MARKERS) <= set(tokens):
            raise ConfigurationError(
                f"{path} is not this model's vocabulary: {len(tokens)} tokens, not {size}. {GET_AGAIN}"
            )
        return cls(tokens, limit)

    def encode(self, text: str) -> list[int]:
        """The token ids of `text` between the two markers: 2 to `limit` of them."""
        room = self._limit - 2
        ids = [self._first]
        for word in self._split(text):
            ids += self._words.get(word) or self._pieces(word)
            if len(ids) > room:
                break
        del ids[room + 1 :]
        ids.append(self._last)
        return ids

    def _split(self, text: str) -> Iterator[str]:
        # A marker written in a text counts as the marker, as in the reference.
        for part in _MARKER.split(text) if "[" in text else (text,):
            if part in MARKERS:
                yield part
                continue
            # Piece by piece, because only the first tokens of a very long text are wanted.
            for piece in _PIECE.finditer(part):
                yield from piece[0].translate(self._characters).split()

    def _pieces(self, word: str) -> tuple[int, ...]:
        pieces = self._longest_matches(word)
        if len(self._words) < CACHED_WORDS:
            self._words[word] = pieces
        return pieces

    def _longest_matches(self, word: str) -> tuple[int, ...]:
        if word in MARKERS:
            return (self._ids[word],)
        if len(word) > MAX_WORD:
            return self._unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._ids.get(prefix + word[start:end])
                if number is not None:
                    found.append(number)
                    start = end
                    break
            else:
                return self._unknown
        return tuple(found)
