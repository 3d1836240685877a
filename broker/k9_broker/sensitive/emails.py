"""E-mail addresses."""

from __future__ import annotations

import re

from k9_broker.sensitive.reading import Reading

_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})(?![\w-])")
_LOCAL_ASCII = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.!#$%&'*+/=?^_`{|}~-"
_SPELLED_AT = re.compile(r"[\[({<]\s?at\s?[\])}>]")
_SPELLED = re.compile(
    r"[a-z0-9._%+-]{1,64}\s?[\[({<]\s?at\s?[\])}>]\s?[a-z0-9-]{1,63}"
    r"(?:\.|\s?[\[({<]\s?(?:dot|punkt|punto|point)\s?[\])}>]\s?)[a-z]{2,24}"
)
# Domains set aside for documentation (RFC 2606), and the names everybody writes instead.
_NOBODYS = re.compile(
    r"(?:.+\.)?example\.(?:com|org|net|edu)|(?:your|my|some|any)?(?:domain|company)\.(?:com|org|net)"
    r"|(?:test|foo|bar|sample)\.(?:com|org|net)"
)
_NOBODY = re.compile(
    r"(?:my|your|the|an?)?[._-]?(?:example|sample|user|user[._-]?name|name|e?mail|test|someone|you)\d?"
)
_NO_TOP_LEVEL = re.compile(  # reserved (RFC 6761), or the ending of a file or of a version
    r"example|invalid|localhost|test|local|internal|png|jpe?g|gif|svg|webp|ico|css|[jt]sx?|mjs|json|xml|html?|py|java"
    r"|cpp|hpp|cs|rb|php|txt|md|ya?ml|toml|zip|gz|tgz|jar|exe|dll|so"
)


def found(reading: Reading) -> bool:
    """Whether an address of somebody stands in the text."""
    text = reading.text
    at = text.find("@")
    while at >= 0:
        if _is_address(text, at):
            return True
        at = text.find("@", at + 1)
    lower = reading.lower
    return _SPELLED_AT.search(lower) is not None and _SPELLED.search(lower) is not None


def _is_address(text: str, at: int) -> bool:
    domain = _DOMAIN.match(text, at + 1, at + 256)
    if domain is None:
        return False
    before = text[max(0, at - 64) : at]
    local = before[len(before.rstrip(_LOCAL_ASCII)) :].strip("'`.{}|")
    if not local and not before[-1:].isalnum():
        return False
    if _NO_TOP_LEVEL.fullmatch(domain[1].lower()) or _NOBODYS.fullmatch(domain[0].lower()):
        return False
    if _NOBODY.fullmatch(local.lower()):
        return False
    # git@host:path and ssh://git@host/path name a repository, not a person.
    return not (local.rpartition("/")[2] == "git" and text[domain.end() : domain.end() + 1] in (":", "/"))
