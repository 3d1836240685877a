"""`k9 api`: the HTTP API in this process."""

from __future__ import annotations

from typing import Annotated

import typer

from k9_broker.errors import ConfigurationError


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=0, max=65535)] = None,
    redis_url: Annotated[str | None, typer.Option(help="The Redis of the ledger and the queues.")] = None,
) -> None:
    """Serve the HTTP API. Needs a Redis; `k9 up` starts one, workers and the API together.

    On SIGHUP k9.toml is read again: routing, aliases, tenants.
    """
    from k9_broker.settings import load_settings

    settings = load_settings()
    named = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"api": settings.api.model_copy(update=named)})
    redis = redis_url or settings.redis_url
    if not redis:
        raise ConfigurationError("The API needs a Redis: give --redis-url or K9_REDIS_URL, or use `k9 up`.")
    from k9_api.serve import serve

    serve(settings, redis, load_settings)
