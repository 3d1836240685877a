"""Whose request it is: the API key names the tenant."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.requests import Request

from k9_broker.errors import Unauthorized

DEFAULT_TENANT = "default"


class Keys:
    """API key → tenant. With no keys configured, everyone is the tenant `default`."""

    def __init__(self, tenants: Mapping[str, str]) -> None:
        self._tenants = [(key.encode(), tenant) for key, tenant in tenants.items()]

    def tenant(self, request: Request) -> str:
        """Whose request this is. Raises `Unauthorized`."""
        if not self._tenants:
            return DEFAULT_TENANT
        given = _key(request).encode()
        found: str | None = None
        for key, tenant in self._tenants:  # all of them, so that the time tells nothing
            if hmac.compare_digest(key, given):
                found = tenant
        if found is None:
            raise Unauthorized
        return found


def _key(request: Request) -> str:
    """The key in whichever of the three headers an SDK puts it."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key") or request.headers.get("api-key") or ""
