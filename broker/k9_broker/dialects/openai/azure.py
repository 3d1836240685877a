"""The dialect `azure`: OpenAI's models in a resource of one's own at Azure.

A model of such a backend is named as its deployment; Azure's list of models has those of its region
instead, so the names must be configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from k9_broker.dialects.base import Options, WireRequest, read_models
from k9_broker.dialects.openai.dialect import CHAT_FIELDS, OPENAI, OpenAI
from k9_broker.errors import BadRequest, ConfigurationError, K9Error, ModelNotFound
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation

API_VERSION = "2024-10-21"
"""The last dated version of the classic surface that is generally available."""

_PATHS = {
    Operation.CHAT: "/chat/completions",
    Operation.COMPLETIONS: "/completions",
    Operation.EMBEDDINGS: "/embeddings",
}
_ROOTS = {"classic": "/openai", "v1": "/openai/v1"}
"""Surface → the beginning of its paths."""


class Azure(OpenAI):
    """Both surfaces of Azure OpenAI; the backend's URL is `https://RESOURCE.openai.azure.com`.

    Backend options, beside those of `OpenAICompatible`:

    - `surface`: `"classic"` (the default: the deployment stands in the path) or `"v1"`;
    - `api_version`: for classic, `API_VERSION` unless given; v1 needs none.
    """

    server = replace(
        OPENAI,
        name="Azure OpenAI",
        takes={**OPENAI.takes, Operation.CHAT: CHAT_FIELDS | {"data_sources", "user_security_context"}},
        own_options=OPENAI.own_options | {"surface", "api_version", "root"},
    )

    def headers(self, key: str | None) -> dict[str, str]:
        """A key of the resource goes as `api-key`; a token of Entra ID, which is a JWT, as a bearer's.

        A key that begins with `Bearer ` is sent as it is, for a gateway in front of Azure.
        """
        if not key:
            return {}
        if key.startswith("Bearer "):
            return {"authorization": key}
        if key.startswith("eyJ") and key.count(".") == 2:
            return {"authorization": f"Bearer {key}"}
        return {"api-key": key}

    def settle(self, url: str, options: Options) -> Options:
        """The surface, where the backend's URL has more than the host: `…/openai` or `…/openai/v1`."""
        given = url.rstrip("/")
        for surface in ("v1", "classic"):
            if given.endswith(_ROOTS[surface]):
                rest = "/v1" if surface == "classic" and options.get("surface") == "v1" else ""
                return {**options, "surface": "v1" if rest else surface, "root": rest}
        return options

    def path(self, request: InferenceRequest, options: Options) -> str:
        where = _PATHS[request.operation]
        if _surface(options) == "classic":
            where = f"/deployments/{quote(request.model, safe='')}{where}"
        return _full(where, options)

    def models_request(self, options: Options) -> WireRequest:
        """Only whether the resource can be reached and takes the key: see `parse_models`."""
        return WireRequest("GET", _full("/models", options))

    def parse_models(self, body: bytes) -> Mapping[str, ModelCard]:
        """Nothing: Azure lists what could be deployed, not what is."""
        read_models(body)
        return {}

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        error = super().error(status, headers, body)
        if isinstance(error, ModelNotFound):
            return ModelNotFound(
                "Azure has no deployment of this name. A model of an azure backend is named as its"
                " deployment; one made in the last minutes may not answer yet.",
                param="model",
            )
        if status == 404 and isinstance(error, BadRequest):
            return BadRequest(
                "Azure has nothing at this path."
                " Check the backend's url and its options surface and api_version."
            )
        return error


def _surface(options: Options) -> str:
    surface = options.get("surface", "classic")
    if surface not in _ROOTS:
        raise ConfigurationError(f"There is no surface {surface!r} of azure. Use classic or v1.")
    return str(surface)


def _full(where: str, options: Options) -> str:
    """The path with its beginning and its version."""
    surface = _surface(options)
    version = options.get("api_version", API_VERSION if surface == "classic" else None)
    query = f"?api-version={quote(str(version), safe='')}" if version else ""
    return f"{options.get('root', _ROOTS[surface])}{where}{query}"
