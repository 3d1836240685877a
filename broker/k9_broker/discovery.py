"""Which backends there are when nobody configured any: engines on this machine, keys, a model folder.

Only loopback is asked, by GET, at the ports the engines use by themselves, all at once and for at
most about a second. A cloud is never contacted here: its key in the environment is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.engines import engine_at
from k9_broker.errors import ConfigurationError
from k9_broker.requests import Kind, Operation
from k9_broker.settings import Settings

if TYPE_CHECKING:
    import httpx

LOOPBACK = "127.0.0.1"
OPENAI_URL = "https://api.openai.com"
ANTHROPIC_URL = "https://api.anthropic.com"
AZURE_DEPLOYMENTS = ("AZURE_OPENAI_DEPLOYMENTS", "AZURE_OPENAI_DEPLOYMENT", "AZURE_OPENAI_DEPLOYMENT_NAME")
"""Variables that may name deployments, comma separated."""
_CLOUD_SLOTS = 32


@dataclass(frozen=True, slots=True)
class Found:
    """Backends in order of preference, and what a person should know about them."""

    backends: tuple[Backend, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A port to ask, and the engines to look for there, the likeliest first."""

    port: int
    engines: tuple[str, ...]


PLACES = (
    Place(11434, ("ollama",)),
    Place(8000, ("vllm", "llamacpp", "tgi")),
    Place(8080, ("llamacpp", "tgi", "vllm")),
    Place(3000, ("tgi", "llamacpp")),
)
"""The ports Ollama, vLLM, llama.cpp and TGI use unless told otherwise."""


async def resolve(settings: Settings, environ: Mapping[str, str]) -> Found:
    """The configured backends if there are any, else what `discover` finds.

    Raises `ConfigurationError` when one speaks a dialect that nobody knows.
    """
    if not settings.backends:
        return await discover(environ, model_folder=settings.model_folder)
    for backend in settings.backends:
        if backend.dialect != "embedded":
            dialect_named(backend.dialect)
    notes = [
        f"{backend.name}: the variable {backend.api_key_env} that holds its key is not set."
        for backend in settings.backends
        if backend.api_key_env and not environ.get(backend.api_key_env)
    ]
    return Found(settings.backends, tuple(notes))


def pick(found: Found, names: Sequence[str]) -> Found:
    """Only the named backends, in the order of `found`. Raises `ConfigurationError` for a name not there."""
    known = {backend.name for backend in found.backends}
    if missing := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"There is no backend {missing[0]!r}. Configured or found here:"
            f" {', '.join(sorted(known)) or 'none'}. Add it to k9.toml as [[backends]]."
        )
    return Found(tuple(one for one in found.backends if one.name in names), found.notes)


async def discover(
    environ: Mapping[str, str],
    *,
    model_folder: Path | None = None,
    places: Sequence[Place] = PLACES,
    timeout: float = 0.5,  # noqa: ASYNC109 - of each request, not of the whole
) -> Found:
    """Engines on this machine first, then the embedded model, then clouds whose key is in `environ`."""
    engines, notes = await _engines(places, timeout)
    embedded, about_embedded = _embedded(model_folder)
    clouds, about_clouds = _clouds(environ)
    backends = (*engines, *embedded, *clouds)
    if not any(backend.dialect != "embedded" for backend in backends):
        ports = ", ".join(str(place.port) for place in places)
        notes.append(
            f"No chat model: nothing answered on ports {ports}, and no cloud's key is set. Start one (`ollama"
            " serve` and `ollama pull llama3.2`, or llama-server, vLLM, TGI), set OPENAI_API_KEY, or name"
            " a backend in k9.toml; then start `k9 up` again. To try K-9 without one: `k9 fake`."
        )
    return Found(backends, (*notes, *about_embedded, *about_clouds))


# -- engines on this machine ------------------------------------------------------------------------


async def _engines(places: Sequence[Place], timeout: float) -> tuple[list[Backend], list[str]]:  # noqa: ASYNC109
    import httpx

    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as client:
        answers = await asyncio.gather(*(_look(client, place, 2 * timeout) for place in places))
    backends: list[Backend] = []
    notes: list[str] = []
    for place, (found, note) in zip(places, answers, strict=True):
        if note:
            notes.append(note)
        if found:
            twice = any(found.name == other.name for other in backends)
            backends.append(
                found.model_copy(update={"name": f"{found.name}-{place.port}"}) if twice else found
            )
    return backends, notes


async def _look(client: httpx.AsyncClient, place: Place, within: float) -> tuple[Backend | None, str | None]:
    """What serves at a place, or why something that does is not offered."""
    url = f"http://{LOOPBACK}:{place.port}"
    seen = await engine_at(client, url, place.engines, within=within)
    if seen.engine:
        return seen.engine, None
    if seen.statuses.get("/v1/models") in (401, 403):
        return None, (
            f"Port {place.port} has a model server that asks for a key. Name it in k9.toml as [[backends]]"
            f' with url = "{url}" and api_key_env.'
        )
    if seen.statuses:
        return None, f"Port {place.port} answers, but not like a model server K-9 knows; it was left alone."
    return None, None


# -- in process, and clouds -------------------------------------------------------------------------


def _embedded(folder: Path | None) -> tuple[list[Backend], list[str]]:
    if folder is None or not (folder / "model.safetensors").is_file():
        where = f" (looked in {folder})" if folder else ""
        return [], [f"No embedding model{where}. Get one (83 MB): `k9 model fetch minilm`."]
    if find_spec("numpy") is None:
        return [], ["The embedding model is here, NumPy is not: `pip install 'k9-broker[embedded]'`."]
    operations = (Operation.EMBEDDINGS,)
    return [Backend(name="embedded", dialect="embedded", operations=operations, slots=2)], []


def _clouds(environ: Mapping[str, str]) -> tuple[list[Backend], list[str]]:
    clouds: list[Backend] = []
    notes: list[str] = []
    for look in (_openai, _anthropic, _azure):
        cloud, note = look(environ)
        clouds += [cloud] if cloud else []
        notes += [note] if note else []
    return clouds, notes


def _openai(environ: Mapping[str, str]) -> tuple[Backend | None, str | None]:
    if not environ.get("OPENAI_API_KEY"):
        return None, None
    base, note = _base(environ, "OPENAI_BASE_URL", OPENAI_URL)
    if base is None:
        return None, note
    dialect = "openai" if base == OPENAI_URL else "openai-compatible"
    return _cloud("openai", dialect, base, "OPENAI_API_KEY"), None


def _anthropic(environ: Mapping[str, str]) -> tuple[Backend | None, str | None]:
    if not environ.get("ANTHROPIC_API_KEY"):
        return None, None
    base, note = _base(environ, "ANTHROPIC_BASE_URL", ANTHROPIC_URL)
    return (_cloud("anthropic", "anthropic", base, "ANTHROPIC_API_KEY"), None) if base else (None, note)


def _azure(environ: Mapping[str, str]) -> tuple[Backend | None, str | None]:
    """Azure's models are named as their deployments, which nobody can be asked for."""
    if not environ.get("AZURE_OPENAI_API_KEY"):
        return None, None
    endpoint = environ.get("AZURE_OPENAI_ENDPOINT")
    named = next((environ[name] for name in AZURE_DEPLOYMENTS if environ.get(name)), "")
    deployments = tuple(name.strip() for name in named.split(",") if name.strip())
    if not (endpoint and deployments):
        table = (
            '[[backends]] with dialect = "azure", kind = "cloud", api_key_env = "AZURE_OPENAI_API_KEY",'
            f' url = "{endpoint or "https://RESOURCE.openai.azure.com"}"'
            ' and models = ["the names of its deployments"]'
        )
        missing = "AZURE_OPENAI_DEPLOYMENTS" if endpoint else "AZURE_OPENAI_ENDPOINT"
        return None, (
            f"AZURE_OPENAI_API_KEY is set, {missing} is not, so Azure OpenAI is not offered."
            f" Set it, or write into k9.toml: {table}."
        )
    base, note = _base(environ, "AZURE_OPENAI_ENDPOINT", "")
    if base is None:
        return None, note
    cloud = _cloud("azure", "azure", base, "AZURE_OPENAI_API_KEY")
    version = environ.get("OPENAI_API_VERSION")
    options = {"api_version": version} if version else {}
    return cloud.model_copy(update={"models": deployments, "options": options}), None


def _cloud(name: str, dialect: str, url: str, key: str) -> Backend:
    return Backend(name=name, dialect=dialect, kind=Kind.CLOUD, url=url, api_key_env=key, slots=_CLOUD_SLOTS)


def _base(environ: Mapping[str, str], variable: str, usual: str) -> tuple[str | None, str | None]:
    """The base URL of a cloud, or why it is not offered."""
    base = (environ.get(variable) or usual).rstrip("/").removesuffix("/v1")
    address = urlsplit(base)
    if address.scheme not in ("http", "https") or not address.hostname:
        return None, f"{variable} is not a URL, so that cloud is not offered as a backend."
    if address.hostname in ("localhost", "::1") or address.hostname.startswith("127."):
        # Likely K-9 itself, for clients started from this shell: it must not call itself.
        return None, (
            f"{variable} points to this machine, so it is not offered as a cloud backend."
            " Unset it, or name that server in k9.toml as [[backends]]."
        )
    return base, None
