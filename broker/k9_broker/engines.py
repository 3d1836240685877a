"""Which engine answers at a URL: Ollama, vLLM, llama.cpp's server, TGI or TEI tell themselves apart.

Only by GET, at paths that cost nothing and load no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k9_broker.backends import Backend
from k9_broker.requests import Operation

if TYPE_CHECKING:
    import httpx

ENGINES = ("vllm", "llamacpp", "tgi", "ollama")
"""All that are known, those first that are the surest to be told from others."""

_GENERATE = (Operation.CHAT, Operation.COMPLETIONS)
_Get = Callable[[str], Awaitable[Any]]
"""Path → the JSON or text of a 200 answer, or `None`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What answers at a URL: an engine as a backend, or the statuses of what was asked."""

    engine: Backend | None = None
    statuses: Mapping[str, int] = field(default_factory=dict)
    """Path → status; empty when nobody listens."""


async def engine_at(
    client: httpx.AsyncClient, url: str, engines: Sequence[str] = ENGINES, *, within: float = 1.0
) -> Seen:
    """Look for `engines` at `url`, in this order, for at most `within` seconds. Raises nothing."""
    import httpx

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
            for engine in engines:
                if found := await _RECOGNISE[engine](get, url):
                    return Seen(found, statuses)
                if not statuses:  # nobody listens
                    break
    except TimeoutError:
        pass
    return Seen(None, statuses)


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
    return Backend(name="vllm", dialect="vllm", url=url, slots=64)


async def _llamacpp(get: _Get, url: str) -> Backend | None:
    models, props = await asyncio.gather(get("/v1/models"), get("/props"))
    known = isinstance(props, dict) and "default_generation_settings" in props
    if not known and "llamacpp" not in _owners(models):
        return None
    slots = props.get("total_slots") if isinstance(props, dict) else None
    return Backend(name="llamacpp", dialect="llama.cpp", url=url, slots=_bounded(slots, 4))


async def _tgi(get: _Get, url: str) -> Backend | None:
    """TGI, or its sister for embeddings, TEI: told apart by the model type TEI alone reports."""
    info = await get("/info")
    if not isinstance(info, dict) or "model_id" not in info:
        return None
    is_tei = "model_type" in info
    return Backend(
        name="tei" if is_tei else "tgi",
        dialect="tgi",
        url=url,
        operations=(Operation.EMBEDDINGS,) if is_tei else _GENERATE,
        slots=_bounded(info.get("max_concurrent_requests"), 32),
        max_inputs=_bounded(info.get("max_client_batch_size"), 32) if is_tei else None,
    )


_RECOGNISE: Mapping[str, Callable[[_Get, str], Awaitable[Backend | None]]] = {
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
