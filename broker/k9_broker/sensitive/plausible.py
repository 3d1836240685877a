"""Is a string a secret somebody uses, or a name, a placeholder, a piece of code?"""

from __future__ import annotations

import re

# Long enough pieces that a random token holds one of them less often than once in a thousand times.
_PLACEHOLDER = re.compile(
    r"your(?:[_ -]|api|key|token|secret|pass|own)|example|placeholder|redacted|dummy|sample|insert|replace"
    r"|change.?me|goes.?here|xxxx|\*\*\*|\.\.\.|abcdefgh|0{8}|123456789|fake[_-]|[_-]fake",
    re.IGNORECASE,
)
# What everybody writes when a password has to stand there.
_FAMOUS = frozenset({
    "password", "passwd", "password1", "password123", "passw0rd", "p@ssw0rd", "p@ssw0rd1", "p@ssword",
    "pa55word", "pass123", "pass1234", "secret", "secret123", "mysecret123", "mypassword123", "admin",
    "admin123", "root123", "test123", "test1234", "testpass123", "user123", "123456", "12345678", "qwerty",
    "qwerty123", "abc123", "letmein", "welcome1", "changeme", "guest", "postgres", "mysql", "root", "pass",
    "test", "hunter2",
})  # fmt: skip
# Possessive, as `[a-z]+` may begin again where it ended: it would be tried in exponentially many ways.
_WORDS_AND_NUMBER = re.compile(r"[A-Za-z]?[a-z]++(?:[-_.]?[A-Z]?[a-z]++)*+[-_.]?\d{0,2}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def random_token(value: str) -> bool:
    """Whether a long value looks drawn at random: letters and digits, many different ones, no placeholder."""
    value = value[:256]
    if len(set(value)) < 8 or not any(map(str.isdigit, value)) or not any(map(str.isalpha, value)):
        return False
    return _PLACEHOLDER.search(value) is None


def assigned_token(value: str) -> bool:
    """Whether a value that some code calls a key or token is one: long, and with digits all through."""
    if len(value) < 16 or sum(map(str.isdigit, value)) < 2 or _UUID.fullmatch(value):
        return False
    return random_token(value) and _WORDS_AND_NUMBER.fullmatch(value) is None


def password(value: str) -> bool:
    """Whether a value somebody calls a password is one: not a famous example, a word, or a piece of code."""
    if not 6 <= len(value) <= 128 or len(set(value)) < 4 or value.lower() in _FAMOUS:
        return False
    letters = any(map(str.isalpha, value))
    others = any(map(str.isdigit, value)) or any(sign in value for sign in "!@#$%^&*?")
    return letters and others and _PLACEHOLDER.search(value) is None


def is_example(value: str) -> bool:
    """Whether a value is one of those everybody writes when showing how."""
    return value.lower() in _FAMOUS or _PLACEHOLDER.search(value) is not None
