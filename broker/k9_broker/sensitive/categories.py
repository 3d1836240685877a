"""The kinds of sensitive content K-9 looks for."""

from __future__ import annotations

from enum import StrEnum


class Category(StrEnum):
    """One kind of content that must stay local."""

    API_KEY = "api_key"
    """Keys, tokens and passwords that open something."""
    PRIVATE_KEY = "private_key"
    EMAIL = "email"
    PHONE = "phone"
    PAYMENT_CARD = "payment_card"
    IBAN = "iban"
    NATIONAL_ID = "national_id"
    """Numbers a state gives to a person: social security, tax, identity card."""
    WORD = "word"
    """Words and phrases the operator configured."""
