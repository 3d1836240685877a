"""Phone numbers: international, in unmistakable national shapes, and, beside a word for phone, any other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice

from k9_broker.sensitive.names import Names
from k9_broker.sensitive.reading import MOST_CANDIDATES, Reading

_INTERNATIONAL = re.compile(
    r"\+(?<![\w)+][+])[ ]?(?:\([1-9][0-9]{0,3}\)|[1-9])(?:[ ().\-/]{0,3}[0-9]){6,14}(?![0-9])"
)
# Written so, a number is a phone number in its country and next to nothing else anywhere.
_SHAPES = re.compile(
    r"(?<![\w,/+-])(?<![0-9][.=])(?:"
    r"(?:\+?1[ .-]?)?\([2-9][0-9]{2}\)[ .-]?[0-9]{3}[ .-][0-9]{4}"  # (555) 123-4567
    r"|1[ -](?:8(?:00|33|44|55|66|77|88)|900)[ -][2-9][0-9]{2}[ -][0-9]{4}"  # 1-800-555-0199
    r"|0[1-9](?:[ .][0-9]{2}){4}"  # 06 12 34 56 78
    r"|\(0[0-9]{1,4}\)[ ]?[0-9]{3,5}[ -]?[0-9]{3,4}"  # (020) 7946 0958
    r"|\([1-9]{2}\) 9[0-9]{4}-[0-9]{4}"  # (11) 98765-4321
    r"|0[1-9][0-9]{0,2}-[0-9]{3,4}-[0-9]{4}"  # 03-1234-5678, 010-1234-5678
    r"|8[ -]?\([0-9]{3}\)[ ]?[0-9]{3}-[0-9]{2}-[0-9]{2}"  # 8 (495) 123-45-67
    r"|07[0-9]{3} [0-9]{3} ?[0-9]{3}|04[0-9]{2} [0-9]{3} [0-9]{3}"  # 07700 900123, 0412 345 678
    r"|01[5-7][0-9][ /-][0-9]{7,8}"  # 0151 23456789
    r"|1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}"  # 138 1234 5678
    r")(?![\w]|[.,/-][0-9]|[ -][0-9]{3})"
)
# North American numbers with dashes or dots are only taken when the plan allows them (NANP: neither the
# area code nor the exchange begins with 0 or 1).
_AMERICAN = re.compile(
    r"(?<![\w,/+-])(?<![0-9][.=])[2-9][0-9]{2}([-.])[2-9][0-9]{2}\1[0-9]{4}(?!\w|[.,/-][0-9])"
)
_NATIONAL = re.compile(f"{_SHAPES.pattern}|{_AMERICAN.pattern}")
# Pieces of the outline (`Reading.shape`): every number of these shapes has one of the first in it, or
# begins with one of the second.
_BRACKETED = ("00) 000", "00)000")
_PLAIN = (
    "0 000 0000", "0 000 000 0000", "0 0000 0000", "00 00 00 00 00", "00000 000", "0000 000 000",
    "0000 0000000",
)  # fmt: skip
_HEAD, _TAIL = 8, 24
"""How far before a bracketed piece a number may begin, and how far after it the number and its edge end."""
_ANY = re.compile(r"(?<![\w.,])\(?[0-9](?:[ ().\-/]{0,3}[0-9]){6,13}(?!\w|[.,][0-9])")
_PHONE_NAMES = (
    "phone*|telephone*|tel|mobile*|cell|cellphone|whatsapp|signal|fax|landline|hotline|call at|call on"
    "|call me*|call us*|call him*|call her*|text me*|ring me*|reach me*|reach us*|reach him*|reach her*"
    "|contact me*|contact us*|telefon*|handy|handynummer|mobil*|durchwahl|rufnummer|téléphone*|tél|portable"
    "|teléfono*|móvil|celular|cellulare|telefone*|telemóvel|telefoon*|gsm|puhelin*|komórk*|тел|телефон*"
    "|мобильн*|هاتف|جوال|تلفن|फ़ोन|फोन|मोबाइल|电话|電話|手机|手機|携帯|联系方式|전화|핸드폰|연락처|โทร"
)
_REGIONS = (
    "US", "GB", "DE", "FR", "ES", "IT", "NL", "BR", "MX", "IN", "CN", "JP", "KR", "RU", "TR", "PL", "SE",
    "NO", "DK", "FI", "CH", "AT", "BE", "PT", "AU", "ZA", "SA", "AE", "EG", "IL", "ID",
    "TH", "VN", "NG", "AR",
)  # fmt: skip


def found(reading: Reading) -> bool:
    """Whether a phone number stands in the text."""
    if not reading.islands:
        return False
    text = reading.ascii
    if "+" in text and any(map(_dials, islice(_INTERNATIONAL.finditer(text), MOST_CANDIDATES))):
        return True
    return _has_shape(reading) or any(
        _dials_somewhere(number) for number in islice(_beside_a_word(reading), MOST_CANDIDATES // 20)
    )


def _has_shape(reading: Reading) -> bool:
    nearby = reading.shape_nearby
    return any(_has_brackets(reading, needle) for needle in _BRACKETED if needle in nearby) or any(
        any(reading.begin_with(needle, _NATIONAL)) for needle in _PLAIN if needle in nearby
    )


def _has_brackets(reading: Reading, needle: str) -> bool:
    at = reading.shape.find(needle)
    while at >= 0:
        if _SHAPES.search(reading.ascii, max(0, at - _HEAD), at + _TAIL):
            return True
        at = reading.shape.find(needle, at + len(needle))
    return False


@cache
def _names() -> Names:
    return Names(_PHONE_NAMES)


def _beside_a_word(reading: Reading) -> Iterator[str]:
    text = reading.ascii
    for start, end in _names().islands(reading, 40, 15):
        if sum(map(str.isdigit, text[start : min(end, start + 40)])) >= 8:
            numbers = _ANY.finditer(text, max(0, start - 1), min(len(text), end + 2))
            yield from (match[0] for match in islice(numbers, 8))


def _dials(match: re.Match[str]) -> bool:
    """Whether the international number, or its beginning up to one of its gaps, is one that can exist."""
    number = match[0]
    gaps = [gap.start() for gap in re.finditer(r"(?<=[0-9])[^0-9]", number)]
    ends = [len(number), *(end for end in reversed(gaps) if end >= 9)][:4]
    return any(_valid(number[:end], None) for end in ends)


def _dials_somewhere(number: str) -> bool:
    digits = "".join(filter(str.isdigit, number))
    if len(set(digits)) < 3:
        return False
    if number.startswith("00") and _valid("+" + digits[2:], None):
        return True
    # 555 stands for an area that does not exist; whoever says "phone" before it still means a phone.
    return re.fullmatch(r"\(?[2-9][0-9]{2}\)?[ .-]?[0-9]{3}[ .-]?[0-9]{4}", number) is not None or any(
        _valid(number, region) for region in _REGIONS
    )


def _valid(number: str, region: str | None) -> bool:
    from phonenumbers import NumberParseException, is_valid_number, parse

    try:
        return is_valid_number(parse(number, region))
    except NumberParseException:
        return False
