"""The application: routes, one layer of middleware, and the broker it opens and closes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from k9_api.auth import Keys
from k9_api.context import Broker, Context
from k9_api.middleware import Edge
from k9_api.rereading import Reread, rereading, warn
from k9_api.routes import (
    azure,
    chat,
    completions,
    embeddings,
    events,
    health,
    jobs,
    messages,
    models,
    queues,
    route,
    usage,
)
from k9_api.standing import Standings
from k9_broker.settings import JobSettings, Settings
from k9_broker.strategy.engine import Router

Opener = Callable[[str, JobSettings], Awaitable[Broker]]


async def open_redis(url: str, jobs: JobSettings) -> Broker:
    """The broker over one Redis."""
    from k9_broker.adapters.redis_broker import RedisBroker

    return await RedisBroker.open(url, jobs)


def create_app(
    settings: Settings, redis_url: str, *, opener: Opener = open_redis, reread: Reread | None = None
) -> FastAPI:
    """The API over the Redis at `redis_url`, which need not be up yet.

    With `reread` it reads its configuration again on SIGHUP.
    """

    router = Router(settings.policy)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warn(settings)
        router.warm_up()  # now: no request waits for it, and a broken installation fails at once
        broker = await opener(redis_url, settings.jobs)
        standings = Standings(broker.ledger, broker.fleet)
        keys, most = Keys(settings.keys), settings.api.max_body_bytes
        app.state.context = Context(broker, router, keys, most, standings)
        try:
            with rereading(app, reread):
                yield
        finally:
            await broker.close()

    app = FastAPI(
        title="K-9",
        summary="A queue-based inference broker with OpenAI's and Anthropic's APIs.",
        lifespan=lifespan,
        redirect_slashes=False,
        exception_handlers={HTTPException: _to_the_edge, RequestValidationError: _to_the_edge},
    )
    app.add_middleware(Edge)
    inference, told = (chat, completions, embeddings, messages, azure), (models, usage, queues, health)
    for routes in (*inference, route, events, jobs, *told):
        app.include_router(routes.router)
    return app


async def _to_the_edge(request: Request, problem: Exception) -> Response:
    """The framework's own errors are answered where all others are."""
    raise problem
