"""Payment cards and IBANs. The checksum of IBANs is python-stdnum's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice

from k9_broker.sensitive.names import Names
from k9_broker.sensitive.reading import MOST_CANDIDATES, Reading

# Digits in one piece, or in groups as they stand on cards; not inside a longer number, word or decimal.
_CARD = re.compile(
    r"[0-9](?<![\w+/-][0-9])(?<![0-9][.,][0-9])(?:[0-9]{12,18}"
    r"|[0-9]{3}([ .-]{1,2})[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|[0-9]{3}([ .-]{1,2})[0-9]{6}\2[0-9]{4,5}"
    r"|[0-9]{7}([ .-]{1,2})[0-9]{8}"
    r")(?![\w]|[.,-][0-9])"
)
# Pieces of the outline (`Reading.shape`), one of which every such number begins with.
_NEEDLES = (
    "0" * 13, "0000 0000 0000", "0000  0000  0000", "0000 000000 0000", "0000  000000  0000",
    "0000000 00000000", "0000000  00000000",
)  # fmt: skip
_DOUBLED = str.maketrans("0123456789", "0246813579")
_SEPARATORS = str.maketrans("", "", " .-")
# Issuer prefixes with the lengths they use (ISO/IEC 7812 ranges as the networks publish them).
_ISSUERS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (4000, 4999, (13, 16, 19)),  # Visa
    (5100, 5599, (16,)), (2221, 2720, (16,)),  # Mastercard
    (3400, 3499, (15,)), (3700, 3799, (15,)),  # American Express
    (3000, 3059, (14,)), (3095, 3095, (14,)), (3600, 3699, (14, 16)), (3800, 3999, (14, 16)),  # Diners
    (3528, 3589, (16, 17, 18, 19)),  # JCB
    (6011, 6011, (16, 19)), (6440, 6599, (16, 17, 18, 19)),  # Discover, RuPay
    (6200, 6299, (16, 17, 18, 19)), (8100, 8299, (16,)),  # UnionPay, RuPay
    (2200, 2204, (16, 17, 18, 19)),  # Mir
    (5000, 5099, (16,)), (5600, 5899, (16, 17, 18, 19)),  # Maestro, Elo
    (6000, 6399, (16,)), (6700, 6799, (16, 17, 18, 19)),
    (9792, 9792, (16,)),  # Troy
)  # fmt: skip
_CARD_NAMES = (
    "*card*|visa*|amex|maestro|mastercard|credit*|debit*|cvv*|cvc*|*kredit*|carte*|carta*|tarjeta*|cartão|*kaart*|*kort*"
    "|*kart*|карт*|卡|カード|카드"
)
_TABLE_BEFORE, _TABLE_AFTER = (
    re.compile(r"(?<![0-9])[0-9]{4}[ .-]{1,2}\Z"),
    re.compile(r"[ .-]{1,2}[0-9]{4}(?![0-9])"),
)
_SEPARATOR = re.compile(r"[^A-Za-z0-9]")
_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}(?:[ .-]?[A-Za-z0-9]){11,30}")
# The whole length by country, from the IBAN registry (ISO 13616).
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28,
    "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25,
    "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip


@cache
def _card_names() -> Names:
    return Names(_CARD_NAMES)


def card_found(reading: Reading) -> bool:
    """Whether the number of a payment card stands in the text."""
    return any(
        _is_card(match, reading)
        for needle in _NEEDLES
        if needle in reading.shape_nearby
        for match in reading.begin_with(needle, _CARD)
    )


def _is_card(match: re.Match[str], reading: Reading) -> bool:
    digits = match[0].translate(_SEPARATORS)
    length = len(digits)
    if length not in _lengths().get(digits[:4], ()) or not _luhn(digits):
        return False
    grouped = length != len(match[0])
    # A row of four-digit numbers, and a bar code or id of 13 or 17 to 19 digits, need a word for card.
    doubtful = _in_a_table(match, reading.ascii) if grouped else length not in (14, 15, 16)
    return not doubtful or (
        _card_names().may_stand_in(reading.words_nearby)
        and _card_names().stand_in(reading.beside(*match.span()))
    )


@cache
def _lengths() -> dict[str, frozenset[int]]:
    """The lengths of cards by their first four digits."""
    known: dict[str, frozenset[int]] = {}
    for low, high, lengths in _ISSUERS:
        for prefix in map(str, range(low, high + 1)):
            known[prefix] = known.get(prefix, frozenset()).union(lengths)
    return known


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, and its digits added."""
    return sum(map(int, digits[-1::-2] + digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def _in_a_table(match: re.Match[str], text: str) -> bool:
    before, after = text[max(0, match.start() - 8) : match.start()], text[match.end() : match.end() + 8]
    return _TABLE_BEFORE.search(before) is not None or _TABLE_AFTER.match(after) is not None


def iban_found(reading: Reading) -> bool:
    """Whether an IBAN of its country's form and length, with a right checksum, stands in the text."""
    return any(map(_is_iban, islice(_ibans(reading), MOST_CANDIDATES)))


def _ibans(reading: Reading) -> Iterator[str]:
    """What begins with a country and two digits, cut to the country's length, where a word ends there."""
    shape, text = reading.shape, reading.ascii
    at = shape.find("AA00")
    while at >= 0:
        length = _IBAN_LENGTHS.get(text[at : at + 2].upper())
        if length is not None and (at == 0 or shape[at - 1] not in "A0_"):
            match = _IBAN.match(text, at)
            if match is not None and (number := _cut(match[0], length, text[match.end() : match.end() + 1])):
                yield number
        at = shape.find("AA00", at + 2)


def _cut(written: str, length: int, after: str) -> str:
    """The first `length` letters and digits, or nothing when a word does not end there."""
    pieces = _SEPARATOR.split(written + after)
    number = ""
    for piece in pieces:
        number += piece
        if len(number) >= length:
            break
    return number if len(number) == length else ""


def _is_iban(candidate: str) -> bool:
    from stdnum import iban

    return iban.is_valid(candidate, check_country=False)
