"""What the walk of a request needs of a wire format that callers speak: one object per format."""

from __future__ import annotations

from typing import Protocol

from k9_api.dialects.controls import Headers
from k9_broker.errors import K9Error
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result


class StreamWriter(Protocol):
    """One streamed answer, from the chunks of a relay to the frames its caller reads."""

    def write(self, chunk: Chunk) -> bytes | None:
        """The frames of one chunk; `None` when there is nothing in it for this caller."""
        ...

    def close(self) -> bytes:
        """The frames that tell the answer is complete."""
        ...


class Surface(Protocol):
    """A wire format as its callers see it. It has no state; one serves every request."""

    @property
    def keep_alive(self) -> bytes:
        """The frame that fills a silence in a stream."""
        ...

    @property
    def request_id_headers(self) -> tuple[bytes, ...]:
        """The headers that carry a request's id."""
        ...

    def parse(self, operation: Operation, raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
        """The request in the body `raw` and its headers. Raises `BadRequest`."""
        ...

    def whole(self, asked: InferenceRequest, job: Job, result: Result) -> bytes:
        """The JSON body of a whole answer."""
        ...

    def stream(self, asked: InferenceRequest, job: Job) -> StreamWriter:
        """The writer of a streamed answer."""
        ...

    def error(self, error: K9Error, request_id: str) -> bytes:
        """The JSON body of an error answer."""
        ...

    def error_frame(self, error: K9Error, request_id: str) -> bytes:
        """The frame that ends a stream which cannot be completed."""
        ...
