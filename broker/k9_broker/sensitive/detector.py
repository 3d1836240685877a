"""The detector: which categories of sensitive content are present in some texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
        for text in texts:
            if not left:
                break
            reading = Reading(text)
            here = [category for category, found in left.items() if found(reading)]
            present += here
            for category in here:
                del left[category]
        return tuple(sorted(present))
