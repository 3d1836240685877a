"""Keys and tokens, told by the prefixes their issuers document, and secrets assigned to a name.

The formats are the issuers' own. Every one holds a run of at least twenty letters, digits, `_` or
`-`, which ordinary text seldom has: only such runs, and what follows a name like `password`, are
looked at closely.
"""

from __future__ import annotations

import re
from functools import cache

from k9_broker.sensitive import assignments
from k9_broker.sensitive.plausible import random_token
from k9_broker.sensitive.reading import Reading

_LONG_RUN = "x" * 20
_W = "[A-Za-z0-9_-]"
_A = "[A-Za-z0-9]"
_TOKENS = (
    # OpenAI, Anthropic, OpenRouter, Langfuse, DeepSeek and others of the sk- family
    rf"sk-(?:proj|svcacct|admin|None|ant|or|lf)-{_W}{{20}}", rf"sk-{_A}{{32}}",
    rf"gsk_{_A}{{40}}", rf"xai-{_A}{{40}}", rf"pplx-{_A}{{40}}", rf"r8_{_A}{{36}}", rf"tvly-{_W}{{20}}",
    rf"pcsk_{_A}{{5,8}}_{_A}{{40}}", rf"hf_{_A}{{30}}", rf"api_org_{_A}{{30}}", r"dapi[0-9a-f]{32}",
    # code hosts and registries
    rf"gh[opsur]_{_A}{{36}}", rf"github_pat_{_A}{{22}}_{_A}{{50}}",
    rf"gl(?:pat|ptt|rt|dt|soat|cbt|ft|imt|agent)-{_W}{{20}}", rf"npm_{_A}{{36}}", rf"pypi-{_W}{{40}}",
    r"rubygems_[0-9a-f]{48}", rf"dckr_[po]at_{_W}{{20}}", rf"ATATT3{_W}{{40}}", rf"ATBB{_A}{{28}}",
    # clouds
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])", rf"AIza{_W}{{35}}", rf"ya29\.{_W}{{20}}",
    rf"GOCSPX-{_W}{{28}}", r"do[opr]_v1_[0-9a-f]{64}", rf"LTAI{_A}{{20}}", rf"hv[sbr]\.{_W}{{24}}",
    rf"dp\.(?:pt|st|ct|sa|scim|audit)\.{_A}{{40}}", rf"pscale_(?:tkn|pw|oauth)_{_W}{{32}}",
    r"sbp_[0-9a-f]{40}", rf"NRAK-{_A}{{27}}", rf"gls[ac]_{_A}{{30}}", rf"sntry[su]_{_A}{{40}}",
    r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31}",
    # messengers and mail
    rf"xox[abeoprs]-{_W}{{20}}", rf"xapp-\d-{_W}{{20}}", rf"xoxe\.xox[bp]-{_W}{{20}}",
    rf"\d{{8,10}}:{_W}{{35}}(?!{_W})", rf"[MNO]{_W}{{23,27}}\.{_W}{{6}}\.{_W}{{27,40}}",
    rf"SG\.{_W}{{22}}\.{_W}{{43}}", r"(?:SK|AC)[0-9a-f]{32}(?![A-Za-z0-9])",
    r"key-[0-9a-f]{32}(?![A-Za-z0-9])",
    rf"services/T{_A}{{8,12}}/B{_A}{{8,12}}/{_A}{{20}}", rf"api/webhooks/\d{{17,20}}/{_W}{{60}}",
    # money and shops
    rf"[sr]k_(?:live|test)_{_A}{{20}}", rf"whsec_{_A}{{30}}", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    rf"sq0(?:atp|csp)-{_W}{{22}}", rf"access_token\$production\${_A}{{16}}\${_A}{{32}}",
    # offices
    rf"lin_api_{_A}{{40}}", rf"ntn_{_A}{{40}}", rf"secret_{_A}{{43}}", rf"PMAK-{_A}{{24}}-{_A}{{34}}",
    rf"pat{_A}{{14}}\.[0-9a-f]{{64}}", rf"figd_{_W}{{40}}", rf"EAACEdEose0cBA{_A}{{20}}",
)  # fmt: skip
_START = 40
"""How far before a long run its token may begin: a Telegram bot's number, `SG.`, `services/T…/B…/`."""


# Bounded, as everything here is, so that the time stays linear.
_REST = rf"{_W}{{0,200}}"
_TOKEN_MAY_START = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]")


@cache
def _token() -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(_TOKENS)}){_REST}")


def found(reading: Reading) -> bool:
    """Whether a key, a token or a password stands in the text."""
    return _issued(reading) or assignments.found(reading)


def _issued(reading: Reading) -> bool:
    runs, text = reading.runs, reading.ascii
    start = runs.find(_LONG_RUN)
    while start >= 0:
        end = _end(runs, start)
        looked_at = 0
        for place in _TOKEN_MAY_START.finditer(text, max(0, start - _START), end):
            match = _token().match(text, place.start()) if place.start() >= looked_at else None
            if match is not None and random_token(match[0]):
                return True
            looked_at = match.end() if match is not None else looked_at
        if _is_web_token(runs, text, start, end):
            return True
        start = runs.find(_LONG_RUN, end)
    return False


def _end(runs: str, start: int) -> int:
    end = runs.find(" ", start)
    return len(runs) if end < 0 else end


def _is_web_token(runs: str, text: str, start: int, end: int) -> bool:
    """A JWT (RFC 7519) in compact form: two JSON objects in base64url, which begin `eyJ`, and a signature."""
    if text.find("eyJ", start, end) < 0 or not text.startswith(".eyJ", end):
        return False
    signature = _end(runs, end + 1)
    return text.startswith(".", signature) and _end(runs, signature + 1) - signature > 10
