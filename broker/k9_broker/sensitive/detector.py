"""The detector: which categories of sensitive content are present in some texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from k9_broker.sensitive import banking, emails, identities, keys, phones, private_keys
from k9_broker.sensitive.categories import Category
from k9_broker.sensitive.reading import Reading
from k9_broker.sensitive.words import Words

_FINDERS: dict[Category, Callable[[Reading], bool]] = {
    Category.API_KEY: keys.found,
    Category.PRIVATE_KEY: private_keys.found,
    Category.EMAIL: emails.found,
    Category.PHONE: phones.found,
    Category.PAYMENT_CARD: banking.card_found,
    Category.IBAN: banking.iban_found,
    Category.NATIONAL_ID: identities.found,
}


class Detector:
    """Looks for `categories`, and for `words` when `Category.WORD` is one of them.

    Words and phrases match whole and in any casing; in scripts written without spaces they match
    anywhere. Blank ones are left out. A detector never changes and may be shared between threads.
    """

    __slots__ = ("_finders",)

    def __init__(self, categories: Iterable[Category] = tuple(Category), words: Iterable[str] = ()) -> None:
        asked = frozenset(map(Category, categories))
        finders = _FINDERS | {Category.WORD: Words(words).found}
        self._finders = tuple((category, finders[category]) for category in sorted(asked))

    def find(self, texts: Iterable[str]) -> tuple[Category, ...]:
        """The categories present in any of the texts, sorted, each once. Never the matched text itself.

        Each text is read by itself: what is split over two of them is not put together. Never
        raises for any text; the time taken is linear in its length.
        """
        left = dict(self._finders)
        present: list[Category] = []
        for page in _pages(texts):
            suspected = _found_in(_APART.join(page), left)
            if len(page) > 1 and suspected:  # perhaps only for what stands in the text beside it
                suspected = [
                    each for each in suspected if any(_found_in(text, {each: left[each]}) for text in page)
                ]
            present += suspected
            for category in suspected:
                del left[category]
            if not left:
                break
        return tuple(sorted(present))


_APART = "\n\n\n"
_PAGE = 16_000
"""Characters of short texts that are looked through in one go: most have nothing, and each look costs."""


def _pages(texts: Iterable[str]) -> Iterator[list[str]]:
    page: list[str] = []
    size = 0
    for text in texts:
        if page and size + len(text) > _PAGE:
            yield page
            page, size = [], 0
        page.append(text)
        size += len(text)
    if page:
        yield page


def _found_in(text: str, finders: Mapping[Category, Callable[[Reading], bool]]) -> list[Category]:
    reading = Reading(text)
    return [category for category, found in finders.items() if found(reading)]
