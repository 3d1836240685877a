"""Secrets told by the name they are given: `password = …`, `Authorization: …`, `user:pass@host`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from k9_broker.sensitive import plausible
from k9_broker.sensitive.reading import Reading

_PASSWORD_NAMES = (
    "passw", "passphrase", "passcode", "pwd", "kennwort", "senha", "contrase", "mot de passe", "wachtwoord",
    "parola", "hasło", "пароль", "密码", "密碼", "パスワード", "비밀번호",
)  # fmt: skip
_TOKEN_NAMES = ("secret", "token", "credential", "密钥")
# Before "key", with or without "_", "-" or a space between: any other key may be one of a dictionary.
_KINDS_OF_KEY = (
    "api", "access", "auth", "account", "private", "secret", "encryption", "signing", "license",
    "subscription", "master", "service", "webhook",
)  # fmt: skip
_NAME_ENDS = r"[\w-]{0,24}(?: [a-z]{1,12}){0,3}[\"'`\])]{0,2}"
_IS = (
    r"(?P<sign>\s{0,4}(?::=|=>|={1,3}|:)\s{0,4}"
    r"|\s{1,2}(?:is|ist|est|es|era|was)(?:\s{0,2}:)?\s{1,2}|\s?[是为は는은]\s{0,2}"
    r"|\",?\s{0,2}\"?value\"?\s?[:=]\s?)"
)
_VALUE = r"(?:[brfu]?(?P<quote>[\"'`])(?P<quoted>[^\"'`\s]{6,256})(?P=quote)|(?P<bare>[^\s\"'`<>,;]{6,256}))"


@cache
def _rest() -> re.Pattern[str]:
    """What follows a name: its end, a sign of assignment, and a value with or without quotes."""
    return re.compile(_NAME_ENDS + _IS + _VALUE, re.IGNORECASE)


_SCHEME = r"(?:basic|token|apikey|bot|key)"
_Q = r"[\"']?"
_AUTHORIZATION = (
    rf"authorization{_Q}\s{{0,2}}[:=,]\s{{0,2}}{_Q}{_SCHEME}\s{{1,2}}{_Q}([A-Za-z0-9._~+/=-]{{12,8192}})"
)


@cache
def _headers() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return (
        ("bearer", re.compile(r"bearer\s{1,3}([A-Za-z0-9._~+/=-]{16,8192})", re.IGNORECASE)),
        ("authorization", re.compile(_AUTHORIZATION, re.IGNORECASE)),
        ("sig=", re.compile(r"[?&;]sig=([A-Za-z0-9%+/_-]{40,200})", re.IGNORECASE)),
    )


_CODE = re.compile(
    r"[(){}\[\]]|\$[A-Za-z_{]|::|->|%[A-Z_]+%|%s|://"
    r"|\b(?:os|process|env|self|this|config|req|request|user|settings|data|args|params|form|props|state)\."
)
_TEMPLATE = re.compile(r"\$[({]|\{\{|\{\w*\}|%\w+%|%s|^\$[A-Za-z_]\w*$|://")
_IN_URL = re.compile(r"://([^\s/@:\"'<>]{0,64}):([^\s/@\"'<>]{3,128})@[A-Za-z0-9\[]")


def found(reading: Reading) -> bool:
    """Whether a name that stands for a secret is given a value that looks like one."""
    lower = reading.lower
    for needle, pattern in _headers():
        if needle in lower and any(
            plausible.random_token(match[1]) for match in pattern.finditer(reading.ascii)
        ):
            return True
    if "://" in lower and "@" in lower and any(map(_opens_url, _IN_URL.finditer(reading.ascii))):
        return True
    return (
        _assigned(reading, _PASSWORD_NAMES, plausible.password)
        or _assigned(reading, _TOKEN_NAMES, plausible.assigned_token)
        or _value_follows(reading, "key", plausible.assigned_token, _KINDS_OF_KEY)
    )


def _opens_url(match: re.Match[str]) -> bool:
    user, secret = match[1].lower(), match[2]
    if secret[0] in "${%[*:" or secret.lower() == user or secret.isdigit():
        return False
    return not plausible.is_example(secret)


def _assigned(reading: Reading, names: tuple[str, ...], is_secret: Callable[[str], bool]) -> bool:
    return any(
        _value_follows(reading, name, is_secret)
        for name in names
        if name.isascii() or not reading.text.isascii()
    )


def _value_follows(
    reading: Reading, name: str, is_secret: Callable[[str], bool], kinds: tuple[str, ...] = ("",)
) -> bool:
    """Whether `name`, with one of `kinds` before it, is given a secret value somewhere."""
    text, searched = reading.text, reading.lower if name.isascii() else reading.text
    at = searched.find(name)
    while at >= 0:
        after = at + len(name)
        if searched[max(0, at - 14) : at].rstrip("_- ").endswith(kinds):
            match = _rest().match(text, after)
            if match is not None:
                if _value_is(match, is_secret):
                    return True
                after = match.end()
        at = searched.find(name, after)
    return False


def _value_is(match: re.Match[str], is_secret: Callable[[str], bool]) -> bool:
    if match["quote"]:
        return is_secret(match["quoted"]) and _TEMPLATE.search(match["quoted"]) is None
    value = match["bare"].rstrip(".,;:!?)")
    if _CODE.search(value) or not is_secret(value):
        return False
    # `password = value1` is code; `PASSWORD=value1` a settings file; `password: value1` is said to somebody.
    return match["sign"].strip(" ") == match["sign"] or "=" not in match["sign"] or _mixed(value)


def _mixed(value: str) -> bool:
    """Whether a value is no name of something else: small and capital letters, and digits or signs enough."""
    kinds = all(any(map(kind, value)) for kind in (str.isupper, str.islower, str.isdigit))
    return kinds and (not value.isidentifier() or sum(map(str.isdigit, value)) >= 4)
