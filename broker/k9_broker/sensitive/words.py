"""Words and phrases the operator configured."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache

from k9_broker.sensitive.reading import JOINED, Reading, joined, normal


@cache
def _token() -> re.Pattern[str]:
    return re.compile(rf"[^\W{JOINED}]+")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text.casefold())


class Words:
    """A list of words, ready to be looked for: most texts are told apart by their set of tokens alone."""

    __slots__ = ("_anywhere", "_phrases", "_single")

    def __init__(self, words: Iterable[str]) -> None:
        anywhere: set[str] = set()
        single: set[str] = set()
        phrases: set[tuple[frozenset[str], str]] = set()
        for word in {" ".join(_folded(normal(word)).split()) for word in words} - {""}:
            tokens = frozenset(_token().findall(word))
            if tokens == {word}:
                single.add(word)
            elif " " in word or (tokens and not any(map(joined, word))):
                phrases.add((tokens, word))
            else:
                anywhere.add(word)
        self._anywhere, self._single, self._phrases = tuple(anywhere), frozenset(single), tuple(phrases)

    def found(self, reading: Reading) -> bool:
        """Whether one of the words stands in the text."""
        if not (self._anywhere or self._single or self._phrases):
            return False
        text = _folded(reading.text)
        if any(word in text for word in self._anywhere):
            return True
        if not (self._single or self._phrases):
            return False
        tokens = frozenset(_token().findall(text))
        return not tokens.isdisjoint(self._single) or any(
            needed <= tokens and _pattern(phrase).search(text) for needed, phrase in self._phrases
        )


@lru_cache(maxsize=512)
def _pattern(phrase: str) -> re.Pattern[str]:
    edge = rf"[^\W{JOINED}]"
    before = rf"(?<!{edge})" if re.match(edge, phrase) else ""
    after = rf"(?!{edge})" if re.search(rf"{edge}\Z", phrase) else ""
    return re.compile(before + r"\s+".join(map(re.escape, phrase.split(" "))) + after)
