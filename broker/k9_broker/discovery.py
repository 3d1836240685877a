"""Which backends there are when nobody configured any: engines on this machine, keys, a model folder.

Only loopback is asked, by GET, at the ports the engines use by themselves, all at once and for at
most about a second. A cloud is never contacted here: its key in the environment is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.errors import ConfigurationError
from k9_broker.requests import Kind, Operation
from k9_broker.settings import Settings

if TYPE_CHECKING:
    import httpx

LOOPBACK = "127.0.0.1"
OPENAI_URL = "https://api.openai.com"
NOT_YET = {"ANTHROPIC_API_KEY": "Anthropic", "AZURE_OPENAI_API_KEY": "Azure OpenAI"}
"""Keys that are seen and named, of clouds whose dialect is still missing."""
_CLOUD_SLOTS = 32
_GENERATE = (Operation.CHAT, Operation.COMPLETIONS)


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
            f"No chat model: nothing answered on ports {ports} and OPENAI_API_KEY is not set. Start one"
            " (`ollama serve` and `ollama pull llama3.2`, or llama-server, vLLM, TGI), set the key, or name"
            " a backend in k9.toml; then start `k9 up` again. To try K-9 without one: `k9 fake`."
        )
    return Found(backends, (*notes, *about_embedded, *about_clouds))


# -- engines on this machine ------------------------------------------------------------------------

_Get = Callable[[str], Awaitable[Any]]
"""Path → the JSON or text of a 200 answer, or `None`."""


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
    import httpx

    url = f"http://{LOOPBACK}:{place.port}"
    statuses: dict[str, int] = {}

    async def get(path: str) -> Any:
        try:
            answer = await client.get(url + path)
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        statuses[path] = answer.status_code
        if answer.status_code != 200:
            return None
        try:
            return answer.json()
        except ValueError:
            return answer.text

    try:
        async with asyncio.timeout(within):
            for engine in place.engines:
                if found := await _ENGINES[engine](get, url):
                    return found, None
                if not statuses:  # nobody listens
                    return None, None
    except TimeoutError:
        pass
    if statuses.get("/v1/models") in (401, 403):
        return None, (
            f"Port {place.port} has a model server that asks for a key. Name it in k9.toml as [[backends]]"
            f' with url = "{url}" and api_key_env.'
        )
    if statuses:
        return None, f"Port {place.port} answers, but not like a model server K-9 knows; it was left alone."
    return None, None


async def _ollama(get: _Get, url: str) -> Backend | None:
    version = await get("/api/version")
    is_ollama = isinstance(version, dict) and "version" in version
    if not is_ollama and str(await get("/")).strip() != "Ollama is running":
        return None
    return Backend(name="ollama", dialect="ollama", url=url, slots=4)


async def _vllm(get: _Get, url: str) -> Backend | None:
    version, models = await asyncio.gather(get("/version"), get("/v1/models"))
    if not isinstance(version, dict) or "version" not in version or not _owners(models):
        return None
    return Backend(name="vllm", dialect="openai-compatible", url=url, slots=64)


async def _llamacpp(get: _Get, url: str) -> Backend | None:
    models, props = await asyncio.gather(get("/v1/models"), get("/props"))
    known = isinstance(props, dict) and "default_generation_settings" in props
    if not known and "llamacpp" not in _owners(models):
        return None
    slots = props.get("total_slots") if isinstance(props, dict) else None
    return Backend(name="llamacpp", dialect="openai-compatible", url=url, slots=_bounded(slots, 4))


async def _tgi(get: _Get, url: str) -> Backend | None:
    """TGI, or its sister for embeddings, TEI: told apart by the model type TEI alone reports."""
    info = await get("/info")
    if not isinstance(info, dict) or "model_id" not in info:
        return None
    is_tei = "model_type" in info
    return Backend(
        name="tei" if is_tei else "tgi",
        dialect="openai-compatible",
        url=url,
        models=(str(info["model_id"]),) if is_tei else (),
        operations=(Operation.EMBEDDINGS,) if is_tei else _GENERATE,
        slots=_bounded(info.get("max_concurrent_requests"), 32),
        max_inputs=_bounded(info.get("max_client_batch_size"), 32) if is_tei else 256,
    )


_ENGINES: Mapping[str, Callable[[_Get, str], Awaitable[Backend | None]]] = {
    "ollama": _ollama,
    "vllm": _vllm,
    "llamacpp": _llamacpp,
    "tgi": _tgi,
}


def _owners(models: Any) -> set[str]:
    """The `owned_by` of each model of an OpenAI list; empty if it is no such list."""
    if not isinstance(models, dict) or not isinstance(models.get("data"), list):
        return set()
    return {str(model.get("owned_by")) for model in models["data"] if isinstance(model, dict)}


def _bounded(count: Any, otherwise: int) -> int:
    return min(count, 64) if isinstance(count, int) and count > 0 else otherwise


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
    notes = [
        f"{variable} is set, but {who} is not yet supported as a backend; the key is not used."
        for variable, who in NOT_YET.items()
        if environ.get(variable)
    ]
    if not environ.get("OPENAI_API_KEY"):
        return [], notes
    base = (environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/").removesuffix("/v1")
    address = urlsplit(base)
    if address.scheme not in ("http", "https") or not address.hostname:
        return [], [*notes, "OPENAI_BASE_URL is not a URL; the cloud backend openai is not offered."]
    if address.hostname in ("localhost", "::1") or address.hostname.startswith("127."):
        # Likely K-9 itself, for clients started from this shell: it must not call itself.
        note = (
            "OPENAI_BASE_URL points to this machine, so it is not offered as a cloud backend."
            " Unset it, or name that server in k9.toml as [[backends]]."
        )
        return [], [*notes, note]
    cloud = Backend(
        name="openai",
        dialect="openai-compatible",
        kind=Kind.CLOUD,
        url=base,
        api_key_env="OPENAI_API_KEY",
        slots=_CLOUD_SLOTS,
    )
    return [cloud], notes
