"""Private keys: PEM, OpenSSH, PGP, PuTTY, age, WireGuard, JWK."""

from __future__ import annotations

import re
from functools import cache

from k9_broker.sensitive.reading import Reading

_MARKS = ("PRIVATE", "PuTTY-User-Key-File", "AGE-SECRET-KEY-1", "PrivateKey", "Private-Lines", '"kty"')
_JWK_SECRET = re.compile(r'"d"\s{0,3}:\s{0,3}"[A-Za-z0-9_-]{40}')


def found(reading: Reading) -> bool:
    """Whether a private key, not only the name of one, stands in the text."""
    text = reading.ascii
    if not any(mark in text for mark in _MARKS):
        return False
    if '"kty"' in text and _JWK_SECRET.search(text):
        return True
    return any(pattern.search(text) for pattern in _patterns())


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    # A header alone is a question about keys; a key has key material after it. Lines may be broken
    # anywhere, quoted, indented, or written as \n inside a string.
    filler = r"(?:[\s\"'>,|]|\\[nrt])"
    headers = rf"(?:{filler}{{0,8}}[A-Za-z-]{{3,20}}:[^\n\\]{{0,120}}(?:\n|\\n)){{0,6}}"
    material = rf"(?:{filler}{{0,8}}[A-Za-z0-9+/=]){{40}}"
    kind = r"(?:[A-Z0-9]{1,12}\s{1,3}){0,3}PRIVATE\s{1,3}KEY(?:\s{1,3}BLOCK)?"
    pem = rf"-{{2,5}}\s{{0,2}}BEGIN\s{{1,3}}{kind}\s{{0,2}}-{{2,5}}"
    return (
        re.compile(pem + headers + material),
        re.compile(r"Private-Lines:\s{0,3}\d{1,3}\s{1,4}[A-Za-z0-9+/=]{30}"),
        re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
        re.compile(r"PrivateKey\s{0,4}=\s{0,4}[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="),
    )
