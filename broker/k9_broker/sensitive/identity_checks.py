"""Checks of personal numbers that python-stdnum does not have, from the issuers' published rules."""

from __future__ import annotations


def german_card(number: str) -> bool:
    """Identity card and passport: weights 7, 3, 1 over nine characters, letters as 10 to 35 (ICAO 9303)."""
    weighed = sum(int(character, 36) * (7, 3, 1)[place % 3] for place, character in enumerate(number[:9]))
    return number[0].isalpha() and weighed % 10 == int(number[9])


def snils(number: str) -> bool:
    """Russia's pension number: digits weighed 9 to 1, modulo 101."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    weighed = sum(digit * weight for digit, weight in zip(digits, range(9, 0, -1), strict=False))
    return weighed % 101 % 100 == digits[9] * 10 + digits[10]


def inn(number: str) -> bool:
    """Russia's taxpayer number of a person: two check digits."""
    digits = list(map(int, number))
    weights = (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
    first = sum(digit * weight for digit, weight in zip(digits, weights[1:], strict=False)) % 11 % 10
    second = sum(digit * weight for digit, weight in zip(digits, weights, strict=False)) % 11 % 10
    return digits[10:] == [first, second]


def taiwan(number: str) -> bool:
    """The letter stands for a place, 10 to 35 in an order of its own; weights 1, 9, 8 … 1, 1."""
    place = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(number[0]) + 10
    digits = [place // 10, place % 10, *map(int, number[1:])]
    return (
        sum(digit * weight for digit, weight in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True))
        % 10
        == 0
    )


def singapore(number: str) -> bool:
    """NRIC and FIN: weights 2, 7, 6, 5, 4, 3, 2; the remainder names a letter, by the first letter."""
    weighed = sum(
        int(digit) * weight for digit, weight in zip(number[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True)
    )
    weighed += {"T": 4, "G": 4, "M": 3}.get(number[0], 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "KLJNPQRTUWX"}.get(number[0], "XWUTRQPNMLK")
    place = weighed % 11
    return letters[10 - place if number[0] == "M" else place] == number[8]


def chinese(number: str) -> bool:
    """Check digit, date and place are python-stdnum's, which stumbles last, over places without counties."""
    from stdnum.cn import ric

    try:
        return bool(ric.is_valid(number))
    except KeyError:
        return True


def any_length(number: str) -> bool:
    digits = [character for character in number if character.isdigit()]
    return 9 <= len(digits) <= 18 and len(set(digits)) > 2
