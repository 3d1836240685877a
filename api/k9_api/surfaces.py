"""Which wire format a caller speaks, known by the path it asks and by the header `anthropic-version`."""

from __future__ import annotations

from starlette.types import Scope

from k9_api.dialects.anthropic.surface import ANTHROPIC
from k9_api.dialects.openai.surface import OPENAI
from k9_api.dialects.surface import Surface

_SHARED = "/v1/models"
"""Both formats have this path; it answers in the caller's."""


def speaks_anthropic(scope: Scope) -> bool:
    """Whether the caller reads Anthropic's format."""
    path = scope["path"]
    if _under(path, "/v1/messages"):
        return True
    return _under(path, _SHARED) and any(name == b"anthropic-version" for name, _ in scope["headers"])


def surface_of(scope: Scope) -> Surface:
    """The surface that answers this request, errors included; OpenAI's wherever no other is meant."""
    return ANTHROPIC if speaks_anthropic(scope) else OPENAI


def _under(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
