"""What a check of a backend means and how to mend what is wrong: pure rules, read by `doctor`."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from k9_broker.backends import Backend
from k9_broker.errors import (
    BackendCredentials,
    BackendError,
    BackendOverloaded,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendTimeout,
    BackendUnreachable,
    BadRequest,
    ConfigurationError,
    K9Error,
    ModelNotFound,
    UnsupportedParameter,
)
from k9_broker.findings import Verdict
from k9_broker.models import ModelCard
from k9_broker.requests import Kind, Operation

VENDORS = ("openai", "azure", "anthropic")
"""Dialects of services that run in a cloud."""
_TAILS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/models"),
    *("/chat/completions", "/api/chat", "/api/generate", "/api/embed", "/api/tags", "/api", "/v1"),
)
"""Ends of URLs that K-9 adds by itself."""
_START = {
    "ollama": "start it: `ollama serve`",
    "vllm": "start it: `vllm serve MODEL`",
    "llama.cpp": "start it: `llama-server -m MODEL.gguf`",
    "tgi": "start its container",
}
_ANY_NAME = ("tgi", "llama.cpp", "azure", "embedded")
"""Dialects whose servers answer to names that they do not list."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one check came to."""

    verdict: Verdict
    said: str
    mend: str = ""


def wrong(said: str, mend: str) -> Diagnosis:
    return Diagnosis(Verdict.WRONG, said, mend)


def of_error(error: K9Error, backend: Backend, url: str = "", model: str = "") -> Diagnosis:
    """What an error means that `backend` gave when `model`, if any, was called at `url`."""
    name = backend.name
    match error:
        case ConfigurationError():
            return wrong(error.message, "correct k9.toml, or the environment of the worker")
        case BackendCredentials() if backend.api_key_env:
            return wrong(
                f"it refuses the key in {backend.api_key_env}",
                f"put a valid key into {backend.api_key_env} in the worker's environment",
            )
        case BackendCredentials():
            return wrong(
                "it asks for a key and the backend names none",
                'set api_key_env = "VARIABLE" in k9.toml, and that variable in the worker\'s environment',
            )
        case BackendQuotaExceeded():
            return wrong(
                "its account has no quota left", f"raise the account's limit, then `k9 backends reset {name}`"
            )
        case BackendRateLimited():
            wait = f" in {error.retry_after:g} s" if error.retry_after else " later"
            return Diagnosis(Verdict.HINT, "its rate limit is reached just now", f"try again{wait}")
        case BackendOverloaded():
            return wrong(_plain(error), "wait, lower its slots, or give it another instance")
        case BackendTimeout():
            return wrong(
                _plain(error),
                f"see its server's log; if it may be silent for so long, raise read_timeout (now"
                f" {backend.read_timeout:g} s) and examine it with more --patience",
            )
        case BackendUnreachable():
            return wrong(_plain(error), start(backend))
        case ModelNotFound() if not model:
            return wrong("it has no list of models at this dialect's path", other_path(url))
        case ModelNotFound():
            return wrong(f"it does not have the model {model}", get_model(backend, model))
        case BadRequest() if error.status != 413 and _is_about_path(error):
            return wrong("it has nothing at this dialect's paths", other_path(url))
        case BadRequest() if "output limit was reached" in error.message:
            return Diagnosis(Verdict.OK, f"{model} thought for as long as it was allowed")
        case UnsupportedParameter():
            return wrong(
                f"it refuses the call: {_plain(error)}",
                "name only what it can do in the backend's `operations`; else check its `options`",
            )
        case BadRequest():
            return wrong(f"it refuses the call: {error.message}", "check the backend's `options`")
        case BackendError() if "URL and dialect" in error.message:
            return wrong("what answers there does not speak this dialect", other_path(url))
        case _:
            return wrong(_plain(error), "see its server's log")


def of_connection(error: OSError | TimeoutError, backend: Backend, url: str) -> Diagnosis:
    """Why there is no connection to `url`."""
    parts = urlsplit(url)
    where = f"{parts.hostname}:{port_of(url)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return wrong(
            f"its certificate is not trusted ({error.verify_message})",
            "give its server one that a public authority signed, or use http:// in your own network",
        )
    if isinstance(error, ssl.SSLError):
        return wrong(
            f"{where} does not speak TLS", f'write url = "{_shown(url).replace("https://", "http://", 1)}"'
        )
    if isinstance(error, ConnectionRefusedError):
        return wrong(f"nothing listens on {where}", start(backend))
    if isinstance(error, TimeoutError):
        return wrong(
            f"no connection to {where} within {backend.connect_timeout:g} s",
            "check its address and the firewalls between; raise connect_timeout if it is far away",
        )
    if type(error).__name__ == "gaierror":
        return wrong(f"the name {parts.hostname} cannot be resolved", "correct the host in its url")
    return wrong(f"no connection to {where} ({error.strerror or type(error).__name__})", start(backend))


def port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def of_configuration(backend: Backend, environ: Mapping[str, str]) -> list[Diagnosis]:
    """What can be told without asking anybody, beside what `callers.check` refuses."""
    found = []
    key = environ.get(backend.api_key_env or "", "")
    if key and (key != key.strip() or not key.isprintable()):
        found.append(
            wrong(f"{backend.api_key_env} has white space around or in the key", "set it again without")
        )
    urls = [one.url for one in backend.servers]
    if any(not _is_url(url) for url in urls):
        found.append(wrong("its url is not one", "write url = http://HOST:PORT or https://HOST"))
    elif backend.kind is Kind.LOCAL and backend.dialect in VENDORS and any(map(is_far, urls)):
        found.append(
            wrong(
                "it counts as local, and what must not leave this place would be sent to a cloud",
                'set kind = "cloud"',
            )
        )
    elif key and any(is_far(url) and url.startswith("http://") for url in urls):
        found.append(
            Diagnosis(Verdict.HINT, "its key travels unencrypted", "use https:// if it is offered there")
        )
    return found


def is_far(url: str) -> bool:
    """Whether a URL leads out of this machine and its private networks, as far as its host tells."""
    host = (urlsplit(url).hostname or "").lower()
    try:
        return not ip_address(host).is_private
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".lan", ".localhost", ".home.arpa"))


def better_url(url: str) -> str | None:
    """`url` without an end that K-9 adds by itself; `None` when it has none."""
    given = url.rstrip("/")
    return next((given.removesuffix(tail) for tail in _TAILS if given.endswith(tail)), None)


def other_path(url: str) -> str:
    """What to do when nothing is found at a URL's paths."""
    if better := better_url(_shown(url)):
        return f'this URL ends in {_shown(url).removeprefix(better)}: remove it, url = "{better}"'
    return "check its url, without /v1, and its dialect"


def start(backend: Backend) -> str:
    return f"{_START.get(backend.dialect, 'start its server')}; or correct its url in k9.toml"


def get_model(backend: Backend, model: str, listed: Iterable[str] = ()) -> str:
    """How a model that is missing is had: the one that was meant, or where it comes from."""
    if near := near_miss(model, listed):
        return f"did you mean {near}? Correct `models` in k9.toml" + (
            f", or: `ollama pull {model}`" if backend.dialect == "ollama" else ""
        )
    if backend.dialect == "ollama":
        return f"ollama pull {model or 'llama3.2'}"
    if backend.dialect == "azure":
        return "name its deployments in `models`, as the portal shows them"
    return "correct `models` in k9.toml, or serve it there"


def near_miss(model: str, listed: Iterable[str]) -> str | None:
    """The listed model that was likely meant."""
    names = list(listed)
    begin = [name for name in names if name.startswith((f"{model}:", f"{model}-", f"{model}."))]
    return next(iter(begin or get_close_matches(model, names, 1, 0.6)), None)


def is_listed(model: str, listed: Iterable[str]) -> bool:
    """Whether a model is in a list; services list the dated names that their shorter ones stand for."""
    dated = re.compile(
        re.escape(model.removesuffix(":latest").removesuffix("-latest"))
        + r"(:latest|-(latest|20\d{6}|20\d\d-\d\d-\d\d))?$"
    )
    return any(dated.match(name) for name in listed)


def of_models(backend: Backend, listed: Sequence[str]) -> list[Diagnosis]:
    """What the list of models means: none there, or some that are configured missing."""
    listed = [one for one in listed if one.removesuffix(":latest") == one or one[:-7] not in listed]
    shown = ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
    if not listed:
        if backend.dialect == "azure":
            names = ", ".join(backend.models)
            return [Diagnosis(Verdict.OK, f"deployments {names}; Azure does not tell whether it has them")]
        return [wrong("it has no model", get_model(backend, next(iter(backend.models), "")))]
    missing = [model for model in backend.models if not is_listed(model, listed)]
    if missing and backend.dialect in _ANY_NAME:
        return [Diagnosis(Verdict.OK, f"it serves {shown}, and answers to {', '.join(missing)} too")]
    found = [
        wrong(f"it does not have the model {model}; it has {shown}", get_model(backend, model, listed))
        for model in missing
    ]
    return found or [Diagnosis(Verdict.OK, shown)]


def to_try(
    cards: Mapping[str, ModelCard], operation: Operation, offered: Sequence[Operation], loaded: Iterable[str]
) -> str | None:
    """The model to try an operation with: one made for it, in memory, the cheapest, the first that can."""
    if operation not in offered:
        return None
    here = set(loaded)
    only = set(offered) <= {Operation.EMBEDDINGS}
    able = []
    for place, (model, card) in enumerate(cards.items()):
        tagged = "embedding" in card.tags
        if operation is Operation.EMBEDDINGS:
            can = tagged or operation in card.operations or only
        else:
            can = not tagged and (not card.operations or operation in card.operations)
        if not can or "special" in card.tags:
            continue
        price = float("inf") if card.input_usd is None else card.input_usd
        made_for_it = tagged is (operation is Operation.EMBEDDINGS)
        able.append((not made_for_it, model not in here, price, place, model))
    return min(able)[-1] if able else None


def _is_about_path(error: BadRequest) -> bool:
    return "nothing at this" in error.message


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _shown(url: str) -> str:
    """A URL without user, password, or slash at its end."""
    parts = urlsplit(url.rstrip("/"))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _plain(error: K9Error) -> str:
    """The first sentence of an error's message; what to do is said beside it."""
    return error.message.split(". ")[0].rstrip(".")
