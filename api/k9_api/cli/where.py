"""Where K-9 answers, and asking it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from k9_broker.errors import ConfigurationError, K9Error, LedgerUnavailable, Unauthorized, from_record

if TYPE_CHECKING:
    import httpx

    from k9_broker.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8765"

AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Where K-9 answers; default: K9_URL, what `k9 up` started, else port 8765."),
]


class NoAnswer(K9Error):
    """K-9 does not answer. Start it with `k9 up`."""

    code = "no_answer"


def api_url(url: str | None = None) -> str:
    """The API's base URL: `url`, else `K9_URL`, else what `k9 up` wrote down, else the default."""
    found = url or os.environ.get("K9_URL") or _written_down() or DEFAULT_URL
    if not found.startswith(("http://", "https://")):
        raise ConfigurationError(f"The URL {found!r} must begin with http:// or https://.")
    try:
        address = urlsplit(found)
        usable = bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is none, or half an IPv6 address
        usable = False
    if not usable:
        raise ConfigurationError(f"The URL {found!r} is not valid. Write http://HOST:PORT.")
    return found.rstrip("/").removesuffix("/v1")


def api_key() -> str:
    """The key in `K9_API_KEY`, or nothing. Raises `ConfigurationError` when no header can carry it."""
    key = os.environ.get("K9_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("K9_API_KEY holds characters that are not visible ASCII. Copy it again.")
    return key


def _written_down() -> str | None:
    from k9_broker.settings import load_settings

    try:
        found = json.loads((load_settings().state_dir / "up.json").read_text()).get("api")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def redis_url(settings: Settings) -> str:
    """The Redis of the configuration, else the private one of `k9 up`. Raises `ConfigurationError`."""
    from k9_broker.adapters.embedded_redis import running

    if settings.redis_url:
        return settings.redis_url
    if private := running(settings.state_dir):
        return private.url
    raise ConfigurationError(
        "No Redis: name the one the API uses (--redis URL or K9_REDIS_URL), or start `k9 up`."
    )


@contextmanager
def client(url: str | None) -> Iterator[httpx.Client]:
    """An HTTP client for the API, with the key in `K9_API_KEY`. Raises `NoAnswer` when nothing is there."""
    import httpx

    base = api_url(url)
    key = api_key()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(30, connect=3, read=600)
    # A proxy in the environment must not stand between a machine and itself.
    proxies = httpx.URL(base).host not in ("127.0.0.1", "localhost", "::1")
    try:
        with httpx.Client(base_url=base, headers=headers, timeout=timeout, trust_env=proxies) as open_client:
            yield open_client
    except httpx.TransportError as error:
        raise NoAnswer(
            f"K-9 does not answer at {base} ({type(error).__name__}); start it with `k9 up`."
        ) from None


def http_get(url: str | None, path: str) -> Any:
    """The JSON at `path`. Raises `NoAnswer`, or the error that K-9 answered with."""
    with client(url) as api:
        return answer(api.get(path))


def answer(reply: httpx.Response) -> Any:
    """The JSON of a good reply; raises the error in a bad one."""
    try:
        body = reply.json()
    except ValueError:
        body = None
    if reply.is_success and body is not None:
        return body
    if reply.status_code == 401:
        raise Unauthorized("K-9 asks for an API key, and did not know this one. Set K9_API_KEY.")
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        raise from_record(body["error"])
    if reply.status_code == 503 and isinstance(body, dict):
        raise LedgerUnavailable(body.get("message"))
    raise NoAnswer(f"What answers at {reply.url} is not K-9 (status {reply.status_code}).")
