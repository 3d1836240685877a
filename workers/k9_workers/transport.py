"""The caller of one instance over HTTP: a dialect, which knows the words, joined to its connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import httpx

from k9_broker.backends import Backend, Instance
from k9_broker.dialects import embeddings
from k9_broker.dialects.base import Dialect, StreamParser, WireRequest
from k9_broker.dialects.wire_errors import discreet
from k9_broker.errors import (
    BackendCredentials,
    BackendError,
    BadRequest,
    K9Error,
    ModelNotFound,
    StreamTruncated,
)
from k9_broker.health import Load
from k9_broker.limits import RateLimits
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result
from k9_workers.connections import LOST, Connections
from k9_workers.credentials import key_of

PARTS_AT_ONCE = 4
"""Parts of one embeddings call under way at once; the backend's slots bound them all together."""

LINGER_SECONDS = 1.0
"""How long to wait for the end of a response whose answer is complete, to keep its connection."""


class HttpCaller:
    """One instance, ready to be called. Use it within one event loop, and close it.

    Raises `ConfigurationError` when the backend's key is not in the environment.
    """

    def __init__(
        self,
        backend: Backend,
        instance: Instance,
        dialect: Dialect,
        *,
        heard: Callable[[RateLimits], None] | None = None,
    ) -> None:
        """`heard` is told the rate limits in the head of every response that has some."""
        self._max_inputs = backend.max_inputs or dialect.max_inputs
        self._dialect = dialect
        self._options = dialect.settle(instance.url, dict(backend.options))
        self._connections = Connections(backend, instance, dialect.headers(key_of(backend)))
        self._heard = heard

    async def listed(self) -> Mapping[str, ModelCard]:
        """The models the instance has now, each with what its list says of it."""
        return self._dialect.parse_models(await self._asked(self._dialect.models_request(self._options)))

    async def described(self, model: str, card: ModelCard) -> ModelCard:
        """`card` with what the server says of this one model, where it says more than in its list."""
        try:
            wire = self._dialect.describe_request(model, self._options)
            if wire is None:
                return card
            said = self._dialect.parse_description(await self._asked(wire), self._options)
        except K9Error:  # it serves the model whether or not it describes it
            return card
        return card.model_copy(update=said.model_dump(exclude_defaults=True))

    async def load(self) -> Load | None:
        """How busy the server says it is; `None` when it does not say."""
        wire = self._dialect.load_request(self._options)
        if wire is None:
            return None
        try:
            return self._dialect.parse_load(await self._asked(wire))
        except (BadRequest, ModelNotFound, BackendCredentials):  # it is not offered, or not to us
            return None

    async def call(self, request: InferenceRequest) -> Result:
        """The whole answer. Long lists of embedding inputs go in parts and come back as one result."""
        if request.operation is Operation.EMBEDDINGS:
            return await self._embed(request)
        return await self._whole(request.streaming(False))

    async def stream(self, request: InferenceRequest) -> AsyncGenerator[Chunk, None]:
        """The answer in OpenAI-shaped chunks, the last of which carries the usage.

        Close the iterator (`contextlib.aclosing`) to stop early: its connection is closed at once.
        """
        request = request.streaming(True)
        parser = self._dialect.parser(request)
        try:
            async with self._accepted(request) as response:
                pieces = response.aiter_bytes()
                try:
                    async for data in pieces:
                        for chunk in parser.feed(data):
                            yield chunk
                        if parser.ended:
                            break
                except LOST as error:
                    for chunk in _rest(parser, self._connections.lost(error, begun=True)):
                        yield chunk
                    return
                for chunk in parser.close():
                    yield chunk
                await _drain(pieces)
        except K9Error as error:
            raise discreet(error, request) from error.__cause__

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    async def _embed(self, request: InferenceRequest) -> Result:
        parts = embeddings.split(request, self._max_inputs)
        if len(parts) == 1:
            return await self._part(request)
        places = asyncio.Semaphore(PARTS_AT_ONCE)

        async def one(part: InferenceRequest) -> Result:
            async with places:
                return await self._part(part)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(part)) for part in parts]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return embeddings.merge(parts, [task.result() for task in tasks])

    async def _part(self, request: InferenceRequest) -> Result:
        """One call or, where `partial` allows it, as many as it takes to find the inputs refused."""
        try:
            return await self._whole(request)
        except BadRequest as error:
            if not (request.partial and embeddings.concerns_inputs(error)):
                raise
            if len(embeddings.inputs_of(request)) == 1:
                return embeddings.refused(request, error)
        parts = embeddings.halves(request)
        return embeddings.merge(parts, [await self._part(part) for part in parts])

    async def _whole(self, request: InferenceRequest) -> Result:
        try:
            async with self._accepted(request) as response:
                result = self._dialect.parse(request, await self._connections.read(response))
                return self._dialect.complete(result, response.headers)
        except K9Error as error:
            raise discreet(error, request) from error.__cause__

    @asynccontextmanager
    async def _accepted(self, request: InferenceRequest) -> AsyncIterator[httpx.Response]:
        """A successful response. What the backend refuses of K-9's own additions is left out from then on."""
        while True:
            options = self._options
            response = await self._sent(self._dialect.build(request, options))
            try:
                if response.is_success:
                    yield response
                    return
                error = await self._refusal(response)
            finally:
                await response.aclose()
            relaxed = self._dialect.relax(request, error, options)
            if relaxed is None:
                raise error
            self._options = relaxed

    async def _asked(self, wire: WireRequest) -> bytes:
        """The body of the successful answer to a question about the server."""
        response = await self._sent(wire)
        try:
            if not response.is_success:
                raise await self._refusal(response)
            return await self._connections.read(response)
        finally:
            await response.aclose()

    async def _sent(self, wire: WireRequest) -> httpx.Response:
        response = await self._connections.send(wire)
        if self._heard is not None and (limits := self._dialect.limits(response.headers, time.time())):
            self._heard(limits)
        return response

    async def _refusal(self, response: httpx.Response) -> K9Error:
        body = await self._connections.read(response)
        return self._dialect.error(response.status_code, response.headers, body)


def _rest(parser: StreamParser, lost: BackendError) -> list[Chunk]:
    """What a parser still has when the connection is lost; raises `lost` unless the answer is complete."""
    try:
        return list(parser.close())
    except StreamTruncated:
        raise lost from None


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read on to the end of a response, so that its connection can be used again."""
    with suppress(*LOST):  # TimeoutError is an OSError
        async with asyncio.timeout(LINGER_SECONDS):
            async for _ in pieces:
                pass
