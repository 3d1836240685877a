"""Anthropic's surface: messages."""

from __future__ import annotations

from pydantic_core import to_json

from k9_api.dialects.anthropic import egress, ingress
from k9_api.dialects.anthropic.refusals import envelope
from k9_api.dialects.anthropic.stream import PING, MessageStream, write_event
from k9_api.dialects.controls import Headers
from k9_api.dialects.surface import StreamWriter
from k9_broker.errors import K9Error
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result


class AnthropicSurface:
    """A `Surface`. It has one operation, chat."""

    keep_alive = PING
    request_id_headers = (b"x-request-id", b"request-id")

    def parse(self, operation: Operation, raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
        return ingress.parse(raw, headers, tenant)

    def whole(self, asked: InferenceRequest, job: Job, result: Result) -> bytes:
        return egress.message(asked, job, result)

    def stream(self, asked: InferenceRequest, job: Job) -> StreamWriter:
        return MessageStream(asked, job)

    def error(self, error: K9Error, request_id: str) -> bytes:
        return to_json(envelope(error, request_id))

    def error_frame(self, error: K9Error, request_id: str) -> bytes:
        return write_event(envelope(error, request_id))


ANTHROPIC = AnthropicSurface()
